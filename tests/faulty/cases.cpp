// Test cases that do what tests/cases.sh and tests/parallel.sh have to survive; tests/cases_test.sh runs them.
#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/case_for_each.h"

namespace {

bool fault = false;  // like the error that a CUDA context keeps

TEST_CASE("passes") { CHECK_FALSE(fault); }

TEST_CASE("faults") {
  fault = true;
  CHECK_FALSE(fault);
}

TEST_CASE("passes after a fault") { CHECK_FALSE(fault); }

TEST_CASE("throws") {
  const int layer = 3, tile = 4;
  CAPTURE(layer);
  CAPTURE(tile);
  CHECK(layer == 4);
  throw std::runtime_error("an illegal\ninstruction");
}

TEST_CASE("is wrong twice") {
  const int layer = 3;
  CAPTURE(layer);
  WARN(layer == 5);
  FAIL_CHECK("1 of 2 wrong");
  CHECK(layer == 4);
}

TEST_CASE_FOR_EACH(const int& number, std::vector<int>({1, 2, 11}), "is one of " + std::to_string(number)) {
  CHECK(number != 2);
}

TEST_CASE("hangs") {
  const int layer = 3;
  CAPTURE(layer);
  for (;;) pause();
}

TEST_CASE("crashes") { std::raise(SIGSEGV); }

TEST_CASE("is killed") { std::raise(SIGKILL); }

TEST_CASE("passes at the end") { CHECK_FALSE(fault); }

}  // namespace
