#include "tests/wrong_elements.h"

#include <doctest/doctest.h>

#include <limits>

using namespace damoyolo;

TEST_CASE("wrong elements: what is right is not described") {
  CHECK(describe_wrong({1, 2, 2}, std::vector<float>{1, 2, 3, 4}, std::vector<double>{1, 2, 3, 4.5},
                       std::vector<double>{0, 0, 0, 0.5}) == "");
}

TEST_CASE("wrong elements: how many, how far, where, and of what kind") {
  // Two images of 2 × 3 pixels with 2 channels, each 1; the second image's first row is wrong in one channel.
  std::vector<float> got(24, 1), before(24, 7);
  const std::vector<double> expected(24, 1), bounds(24, 0.5);
  got[13] = 3;
  got[15] = 7;
  got[17] = std::numeric_limits<float>::quiet_NaN();
  CHECK(describe_wrong({2, 3, 2}, got, expected, bounds, before) ==
        "3 of 24 wrong, 2 of them by more than 10 bounds, at most by 6 (12 bounds); 1 are no numbers, 0 zero, 1 as "
        "before; in pixels 6-8, channels 1; first n 1, y 0, x 0, c 1: 3, expected 1 to within 0.5");
  CHECK(describe_wrong({2, 3, 2}, std::vector<float>(23), expected, bounds) == "23 elements, expected 24");
}

TEST_CASE("wrong elements: of some pixels of a tensor") {
  const std::vector<int> pixels{0, 8};
  const std::vector<float> got{1, 0};
  const std::vector<double> ones(2, 1), bounds(2, 0.1);
  CHECK(
      describe_wrong({2, 3, 1, pixels}, got, ones, bounds) ==
      "1 of 2 wrong, 0 of them by more than 10 bounds, at most by 1 (10 bounds); 0 are no numbers, 1 zero; in pixels "
      "8, channels 0; first n 1, y 0, x 2, c 0: 0, expected 1 to within 0.1");
}

TEST_CASE("wrong elements: ranges, and how many when there are more than a few") {
  CHECK(describe_ranges({}) == "");
  CHECK(describe_ranges({0, 1, 2, 5, 7, 8}) == "0-2, 5, 7-8");
  CHECK(describe_ranges({0, 2, 4, 6, 8, 10, 12, 14}) == "0, 2, 4, 6, 8, 10 ... (8)");
}
