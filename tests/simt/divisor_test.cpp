#include "kernels/divisor.cuh"

#include <doctest/doctest.h>

namespace damoyolo::kernels {
namespace {

TEST_CASE("divisor: quotients are those of division") {
  constexpr int kLargest = 0x7fffffff;
  for (const int d : {1, 2, 3, 5, 7, 8, 13, 20, 640, 641, 1 << 20, (1 << 20) + 1, 1 << 30, (1 << 30) + 1, kLargest}) {
    const Divisor divisor(d);
    CAPTURE(d);
    for (const std::int64_t middle : {std::int64_t{0}, std::int64_t{d}, std::int64_t{d} * 2, std::int64_t{d} * 12345,
                                      std::int64_t{kLargest} / d * d, std::int64_t{kLargest}})
      for (std::int64_t n = middle - 2; n <= middle + 2; ++n) {
        if (n < 0 || n > kLargest) continue;
        CAPTURE(n);
        CHECK(divisor.divide(static_cast<int>(n)) == static_cast<int>(n) / d);
      }
  }
}

}  // namespace
}  // namespace damoyolo::kernels
