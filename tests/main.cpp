// The test program. Beside doctest's own messages it prints one line per test case in the Test Anything Protocol
// (https://testanything.org), and the plan at the end, from which tests/run.sh counts and by which it sees a crash.
// The line of a case that fails names its first failure, or the exception or signal that ended it, with what INFO and
// CAPTURE held then: the line may be all that is left of a long output.
//
// With $TEST_CASE_SECONDS a test case may take that long and no longer, and the first that fails ends the program:
// after a fault on a GPU everything else fails, too. tests/cases.sh goes on behind it in a new process.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "tests/skip.h"

namespace {

std::optional<std::string> skip_reason;  // of the running test case
volatile std::sig_atomic_t out_of_time = 0;

// doctest reports a test case that gets SIGTERM as crashed. Where that cannot come to its end, because the signal met
// the allocator at work, the second alarm ends the program.
void end_test_case(int) {
  out_of_time = 1;
  alarm(5);
  std::raise(SIGTERM);
}

class TapListener : public doctest::IReporter {
 public:
  explicit TapListener(const doctest::ContextOptions&) {
    if (const char* seconds = std::getenv("TEST_CASE_SECONDS")) seconds_ = std::atoi(seconds);
    struct sigaction once = {};
    once.sa_handler = end_test_case;
    once.sa_flags = SA_RESETHAND | SA_NODEFER;
    sigaction(SIGALRM, &once, nullptr);
  }

  void test_case_start(const doctest::TestCaseData& test) override {
    name_ = test.m_name;
    cause_.clear();
    alarm(seconds_);
  }

  void log_assert(const doctest::AssertData& data) override {
    if (!data.m_failed || (data.m_at & doctest::assertType::is_warn) != 0) return;
    std::ostringstream cause;
    cause << doctest::assertString(data.m_at) << "(" << data.m_expr
          << "): " << (data.m_threw ? data.m_exception : data.m_decomp);
    failed(cause.str());
  }

  void log_message(const doctest::MessageData& data) override {
    if ((data.m_severity & doctest::assertType::is_warn) == 0) failed(data.m_string.c_str());
  }

  // What ended the case says more than what failed before it.
  void test_case_exception(const doctest::TestCaseException& exception) override {
    crashed_ = crashed_ || exception.is_crash;
    cause_.clear();
    failed(out_of_time ? "no end within " + std::to_string(seconds_) + " s" : exception.error_string.c_str());
  }

  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    alarm(0);
    const auto reason = std::exchange(skip_reason, std::nullopt);
    if (const int checks = stats.numAssertsFailedCurrentTest; checks > 1)
      cause_ += " (" + std::to_string(checks) + " checks failed)";
    report(stats.failure_flags == 0, reason);
    if (stats.failure_flags != 0 && seconds_ != 0) std::_Exit(EXIT_FAILURE);
  }

  // Called for cases that are filtered out as well; only those marked in the source are worth a line.
  void test_case_skipped(const doctest::TestCaseData& test) override {
    if (!test.m_skip) return;
    name_ = test.m_name;
    report(true, "marked so in its source");
  }

  void test_run_end(const doctest::TestRunStats&) override {
    if (!crashed_) std::cout << "1.." << count_ << std::endl;
  }

  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}

 private:
  // Contexts that an exception has left behind are in the order in which it left them.
  void failed(const std::string& cause) {
    if (!cause_.empty()) return;
    std::ostringstream line;
    line << ": " << cause;
    for (int i = 0; i < get_num_active_contexts(); ++i) get_active_contexts()[i]->stringify(&(line << ", "));
    for (int i = get_num_stringified_contexts(); i-- > 0;) line << ", " << get_stringified_contexts()[i];
    cause_ = line.str();
    std::ranges::replace(cause_, '\n', ' ');
  }

  void report(bool passed, const std::optional<std::string>& reason) {
    ++count_;
    std::cout << (passed ? "ok " : "not ok ") << count_ << " - " << name_ << (passed ? "" : cause_);
    if (passed && reason) std::cout << " # SKIP " << *reason;
    std::cout << std::endl;
  }

  std::string name_, cause_;  // of the running test case; empty unless it has failed
  int count_ = 0;
  unsigned seconds_ = 0;  // 0: no limit
  bool crashed_ = false;
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
