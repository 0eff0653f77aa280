#include "engine/cuda/plan_cache.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/temporary_folder.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

const PlanKey kKey{"NVIDIA H100, 9.0", "driver 13000, CUDA 13000, cuDNN 9.12", "abc", "bf16", 8, 640, 640};
const KernelChoices kChoices{{"backbone.0", "cudnn 3"}, {"head.cls.0+reg.0", "cublaslt \"1\""}};

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Sets a variable of the environment, and puts back what was there.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  }
  ~Variable() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("plan cache: what was stored is loaded, for the same key only") {
  const test::TemporaryFolder temporary;
  const std::filesystem::path folder = temporary.file("a/b");
  CHECK_FALSE(load_choices(folder, kKey).has_value());
  REQUIRE(store_choices(folder, kKey, kChoices));
  CHECK(load_choices(folder, kKey) == kChoices);
  REQUIRE(store_choices(folder, kKey, {}));
  CHECK(load_choices(folder, kKey) == KernelChoices{});

  const auto changed = [](auto change) {
    PlanKey key = kKey;
    change(key);
    return key;
  };
  for (const PlanKey& other :
       {changed([](PlanKey& key) { key.gpu = "NVIDIA A100, 8.0"; }),
        changed([](PlanKey& key) { key.libraries += "1"; }), changed([](PlanKey& key) { key.model = "abd"; }),
        changed([](PlanKey& key) { key.precision = "fp16"; }), changed([](PlanKey& key) { key.batch = 16; }),
        changed([](PlanKey& key) { key.height = 320; }), changed([](PlanKey& key) { key.width = 320; }),
        changed([](PlanKey& key) { key.overlap = true; })}) {
    CHECK(plan_cache_file(folder, other) != plan_cache_file(folder, kKey));
    CHECK_FALSE(load_choices(folder, other).has_value());
  }
}

TEST_CASE("plan cache: damaged and foreign files are ignored, and replaced") {
  const test::TemporaryFolder temporary;
  const std::filesystem::path folder = temporary.file("cache"), path = plan_cache_file(folder, kKey);
  REQUIRE(store_choices(folder, kKey, kChoices));
  const std::string good = read(path);
  for (std::size_t length = 0; length + 2 < good.size(); length += 7) {
    write(path, good.substr(0, length));
    CHECK_FALSE(load_choices(folder, kKey).has_value());
  }
  for (const char* text :
       {"[]", "null", "{\"key\": 1, \"kernels\": {}}", "\xff\xfe", "{\"kernels\": {\"a\": \"b\"}}"}) {
    write(path, text);
    CHECK_FALSE(load_choices(folder, kKey).has_value());
  }
  PlanKey other = kKey;
  other.model = "other";
  REQUIRE(store_choices(folder, other, kChoices));
  write(path, read(plan_cache_file(folder, other)));
  CHECK_FALSE(load_choices(folder, kKey).has_value());
  write(path, std::string(2 << 20, ' ') + good);  // longer than any plan
  CHECK_FALSE(load_choices(folder, kKey).has_value());

  REQUIRE(store_choices(folder, kKey, kChoices));
  CHECK(load_choices(folder, kKey) == kChoices);
}

TEST_CASE("plan cache: writers at the same time leave one whole file and nothing else") {
  const test::TemporaryFolder temporary;
  const std::filesystem::path folder = temporary.file("cache");
  REQUIRE(store_choices(folder, kKey, kChoices));
  std::vector<std::thread> threads;
  std::vector<int> faults(4, 0);
  for (std::size_t t = 0; t < faults.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        if (!store_choices(folder, kKey, kChoices)) ++faults[t];
        if (load_choices(folder, kKey) != kChoices) ++faults[t];
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(faults == std::vector<int>(4, 0));
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
}

TEST_CASE("plan cache: a place that cannot be written is no error") {
  const test::TemporaryFolder temporary;
  write(temporary.file("file"), "in the way");
  CHECK_FALSE(store_choices(temporary.file("file") + "/cache", kKey, kChoices));
  CHECK_FALSE(load_choices(temporary.file("file") + "/cache", kKey).has_value());
  CHECK_FALSE(store_choices({}, kKey, kChoices));
  CHECK_FALSE(load_choices({}, kKey).has_value());
  // A folder where the file should be: nothing stays behind.
  const std::filesystem::path folder = temporary.file("cache");
  std::filesystem::create_directories(plan_cache_file(folder, kKey) / "x");
  CHECK_FALSE(store_choices(folder, kKey, kChoices));
  CHECK_FALSE(load_choices(folder, kKey).has_value());
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
}

TEST_CASE("plan cache: it lies where the XDG standard says") {
  const Variable home("HOME", "/home/someone");
  {
    const Variable cache("XDG_CACHE_HOME", "/var/cache/someone");
    CHECK(plan_cache_folder() == "/var/cache/someone/damoyolo");
  }
  {
    const Variable cache("XDG_CACHE_HOME", "relative");
    CHECK(plan_cache_folder() == "/home/someone/.cache/damoyolo");
  }
  const Variable cache("XDG_CACHE_HOME", nullptr);
  CHECK(plan_cache_folder() == "/home/someone/.cache/damoyolo");
  const Variable nowhere("HOME", nullptr);
  CHECK(plan_cache_folder().empty());
}
