#include "cli/json_file.h"

#include <fstream>

#include "engine/core/error.h"

namespace damoyolo::cli {

void write_json_file(const std::string& path, const nlohmann::ordered_json& json) {
  std::ofstream file(path, std::ios::binary);
  file << json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  file.close();
  if (!file) throw Error("{}: cannot be written", path);
}

}  // namespace damoyolo::cli
