// Files of figures.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace damoyolo::cli {

// For commands that measure long before they write: throws Error when the file cannot be written, or is one of
// `inputs`. Changes nothing; of a pipe it asks nothing.
void require_writable(const std::string& path, const std::vector<std::string>& inputs);

// Throws Error when the file cannot be written. Text that is not UTF-8 has its wrong bytes replaced.
void write_json_file(const std::string& path, const nlohmann::ordered_json& json);

}  // namespace damoyolo::cli
