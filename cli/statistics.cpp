#include "cli/statistics.h"

#include <algorithm>
#include <cmath>

namespace damoyolo::cli {

double percentile(std::span<const double> sorted, double part) {
  const double place = part * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return percentile(values, 0.5);
}

Statistics summarize(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  Statistics result{values.size(),
                    sorted.front(),
                    percentile(sorted, 0.5),
                    percentile(sorted, 0.95),
                    percentile(sorted, 0.99),
                    percentile(sorted, 0.75) - percentile(sorted, 0.25),
                    std::nullopt};
  if (const std::size_t half = values.size() / 2; half > 0) {
    const double first = median({values.begin(), values.begin() + static_cast<std::ptrdiff_t>(half)});
    const double second = median({values.end() - static_cast<std::ptrdiff_t>(half), values.end()});
    result.drift = std::abs(first - second) / std::min(first, second);
  }
  return result;
}

}  // namespace damoyolo::cli
