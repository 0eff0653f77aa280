// Files of figures.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace damoyolo::cli {

// For commands that measure long before they write: throws Error when the file cannot be written. Changes nothing.
void require_writable(const std::string& path);

// Throws Error when the file cannot be written. Text that is not UTF-8 has its wrong bytes replaced.
void write_json_file(const std::string& path, const nlohmann::ordered_json& json);

}  // namespace damoyolo::cli
