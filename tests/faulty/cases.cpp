// Test cases that do what tests/cases.sh has to survive; tests/cases_test.sh runs them.
#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>

namespace {

bool fault = false;  // like the error that a CUDA context keeps

TEST_CASE("passes") { CHECK_FALSE(fault); }

TEST_CASE("faults") {
  fault = true;
  CHECK_FALSE(fault);
}

TEST_CASE("passes after a fault") { CHECK_FALSE(fault); }

TEST_CASE("hangs") {
  const int layer = 3;
  CAPTURE(layer);
  for (;;) pause();
}

TEST_CASE("crashes") { std::raise(SIGSEGV); }

TEST_CASE("is killed") { std::raise(SIGKILL); }

TEST_CASE("passes at the end") { CHECK_FALSE(fault); }

}  // namespace
