#include "cli/json_file.h"

#include <filesystem>
#include <fstream>

#include "engine/core/error.h"

namespace damoyolo::cli {
namespace {

[[noreturn]] void fail(const std::string& path) { throw Error("{}: cannot be written", path); }

}  // namespace

void require_writable(const std::string& path) {
  std::error_code failed;
  const bool is_new = !std::filesystem::exists(std::filesystem::symlink_status(path, failed));
  if (!std::ofstream(path, std::ios::binary | std::ios::app)) fail(path);
  if (is_new) std::filesystem::remove(path, failed);
}

void write_json_file(const std::string& path, const nlohmann::ordered_json& json) {
  std::ofstream file(path, std::ios::binary);
  file << json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  file.close();
  if (!file) fail(path);
}

}  // namespace damoyolo::cli
