#include "cli/json_file.h"

#include <filesystem>
#include <fstream>

#include "engine/core/error.h"

namespace damoyolo::cli {
namespace {

[[noreturn]] void fail(const std::string& path) { throw Error("{}: cannot be written", path); }

}  // namespace

void require_writable(const std::string& path, const std::vector<std::string>& inputs) {
  namespace fs = std::filesystem;
  std::error_code failed;
  for (const std::string& input : inputs)
    if (fs::equivalent(path, input, failed))
      throw Error("{}: is read for something else, expected another file for the results", path);
  if (fs::is_fifo(path, failed)) return;  // its reader would take this for the end
  const bool is_new = !fs::exists(fs::symlink_status(path, failed));
  if (!std::ofstream(path, std::ios::binary | std::ios::app)) fail(path);
  if (is_new) fs::remove(path, failed);
}

void write_json_file(const std::string& path, const nlohmann::ordered_json& json) {
  std::ofstream file(path, std::ios::binary);
  file << json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  file.close();
  if (!file) fail(path);
}

}  // namespace damoyolo::cli
