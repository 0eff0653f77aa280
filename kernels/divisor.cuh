// Division by a number that a whole grid shares, without a division on the device, and what kernels count with it.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

namespace damoyolo::kernels {

// Divides numbers below 2^31 by a divisor from 1 to 2^31 − 1: n / d = (⌊n · m / 2^32⌋ + n) >> s, with s = ⌈log2 d⌉ and
// m = ⌊2^32 · (2^s − d) / d⌋ + 1 (Granlund and Montgomery, "Division by invariant integers using multiplication",
// 1994, section 4).
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int divisor)
      : shift_(std::bit_width(static_cast<unsigned>(divisor) - 1)),
        multiplier_(static_cast<unsigned>((((std::uint64_t{1} << shift_) - static_cast<unsigned>(divisor)) << 32) /
                                              static_cast<unsigned>(divisor) +
                                          1)) {}

  __device__ __forceinline__ int divide(int number) const {
    const auto n = static_cast<unsigned>(number);
    return static_cast<int>((__umulhi(n, multiplier_) + n) >> shift_);
  }

 private:
  int shift_ = 0;
  unsigned multiplier_ = 1;
};

// Counts through images, their rows, their columns, and groups of channels, which change fastest.
struct ItemOrder {
  int groups, columns, rows;
  Divisor by_groups, by_columns, by_rows;

  ItemOrder(int groups, int columns, int rows)
      : groups(groups), columns(columns), rows(rows), by_groups(groups), by_columns(columns), by_rows(rows) {}

  struct Item {
    int group, column, row, image;
  };

  __device__ __forceinline__ Item at(int number) const {
    const int pixel = by_groups.divide(number), line = by_columns.divide(pixel), image = by_rows.divide(line);
    return {number - pixel * groups, pixel - line * columns, line - image * rows, image};
  }
};

}  // namespace damoyolo::kernels
