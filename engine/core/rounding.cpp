#include "engine/core/rounding.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/error.h"

namespace damoyolo {
namespace {

float to_bf16(double value) { return float_from_bf16(bf16_from_float(static_cast<float>(value))); }

}  // namespace

// What one value loses, the next one is given. The smallest come last, since they can take it up most finely.
void round_keeping_sums(std::span<float> values, std::size_t row) {
  if (row == 0 || values.size() % row != 0)
    throw Error("{} weights are no rows of {}, expected a multiple", values.size(), row);
  std::vector<std::size_t> order(row);
  for (std::size_t begin = 0; begin < values.size(); begin += row) {
    const std::span<float> one = values.subspan(begin, row);
    const bool finite = std::ranges::all_of(one, [](float value) { return std::isfinite(value); });
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (finite) std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return std::abs(one[i]); });
    double lost = 0;
    for (const std::size_t i : order) {
      const double wanted = one[i] + lost;
      one[i] = to_bf16(wanted);
      if (finite) lost = wanted - one[i];
    }
  }
}

}  // namespace damoyolo
