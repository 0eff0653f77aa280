// The test program. Beside doctest's own messages it prints one line per test case in the Test Anything Protocol
// (https://testanything.org), and the plan at the end, from which tests/run.sh counts and by which it sees a crash.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <iostream>
#include <optional>
#include <utility>

#include "tests/skip.h"

namespace {

std::optional<std::string> skip_reason;  // of the running test case

class TapListener : public doctest::IReporter {
 public:
  explicit TapListener(const doctest::ContextOptions&) {}

  void test_case_start(const doctest::TestCaseData& test) override { name_ = test.m_name; }

  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    const auto reason = std::exchange(skip_reason, std::nullopt);
    report(stats.failure_flags == 0, reason);
  }

  // Called for cases that are filtered out as well; only those marked in the source are worth a line.
  void test_case_skipped(const doctest::TestCaseData& test) override {
    if (!test.m_skip) return;
    name_ = test.m_name;
    report(true, "marked so in its source");
  }

  void test_run_end(const doctest::TestRunStats&) override { std::cout << "1.." << count_ << std::endl; }

  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}

 private:
  void report(bool passed, const std::optional<std::string>& reason) {
    ++count_;
    std::cout << (passed ? "ok " : "not ok ") << count_ << " - " << name_;
    if (passed && reason) std::cout << " # SKIP " << *reason;
    std::cout << std::endl;
  }

  std::string name_;
  int count_ = 0;
};

DOCTEST_REGISTER_LISTENER("tap", 1, TapListener);

}  // namespace

namespace damoyolo::test {

void skip(std::string reason) { skip_reason = std::move(reason); }

bool gpu_present() {
  static const bool present = [] {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) return false;
    const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    const auto count_devices = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
    int devices = 0;
    return init && count_devices && init(0) == 0 && count_devices(&devices) == 0 && devices > 0;
  }();
  return present;
}

}  // namespace damoyolo::test
