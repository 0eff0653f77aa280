#include "engine/cuda/plan_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>

#include "weights/sha256.h"

namespace damoyolo::cuda {
namespace {

// To be raised when kernels change so much that old choices are no longer good.
constexpr int kEngineVersion = 2;
constexpr std::uintmax_t kLargestFile = 1 << 20;

nlohmann::json to_json(const PlanKey& key) {
  return {{"engine", kEngineVersion},   {"gpu", key.gpu},     {"libraries", key.libraries}, {"model", key.model},
          {"precision", key.precision}, {"batch", key.batch}, {"height", key.height},       {"width", key.width},
          {"overlap", key.overlap}};
}

}  // namespace

std::filesystem::path plan_cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  // The standard wants relative paths ignored.
  if (const auto cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) return cache / "damoyolo";
  if (const auto home = variable("HOME"); home.is_absolute()) return home / ".cache" / "damoyolo";
  return {};
}

std::filesystem::path plan_cache_file(const std::filesystem::path& folder, const PlanKey& key) {
  const std::string text = to_json(key).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return folder / (sha256(std::as_bytes(std::span(text))) + ".json");
}

std::optional<KernelChoices> load_choices(const std::filesystem::path& folder, const PlanKey& key) {
  if (folder.empty()) return std::nullopt;
  const std::filesystem::path path = plan_cache_file(folder, key);
  std::error_code error;
  const bool regular = std::filesystem::is_regular_file(path, error);
  if (!regular || error || std::filesystem::file_size(path, error) > kLargestFile || error) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  try {
    const nlohmann::json contents = nlohmann::json::parse(file);
    if (contents.at("key") != to_json(key)) return std::nullopt;
    return contents.at("kernels").get<KernelChoices>();
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

bool store_choices(const std::filesystem::path& folder, const PlanKey& key, const KernelChoices& choices) {
  if (folder.empty()) return false;
  static std::atomic<int> counter = 0;
  const std::filesystem::path path = plan_cache_file(folder, key);
  const std::filesystem::path beside = fmt::format("{}.{}.{}", path.string(), ::getpid(), counter++);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::ofstream file(beside, std::ios::binary);
  const nlohmann::json contents{{"key", to_json(key)}, {"kernels", choices}};
  file << contents.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  file.close();
  if (file.good()) {
    std::filesystem::rename(beside, path, error);
    if (!error) return true;
  }
  std::filesystem::remove(beside, error);
  return false;
}

}  // namespace damoyolo::cuda
