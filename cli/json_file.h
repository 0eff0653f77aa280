// Files of figures.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace damoyolo::cli {

// Throws Error when the file cannot be written. Text that is not UTF-8 has its wrong bytes replaced.
void write_json_file(const std::string& path, const nlohmann::ordered_json& json);

}  // namespace damoyolo::cli
