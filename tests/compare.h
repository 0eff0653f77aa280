// How far two lists of numbers are apart.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

namespace damoyolo {

// ‖found − expected‖ / ‖expected‖; infinite when the lengths differ.
inline double relative_difference(const std::vector<float>& expected, const std::vector<float>& found) {
  if (expected.size() != found.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (double{expected[i]} - found[i]) * (double{expected[i]} - found[i]);
    norm += double{expected[i]} * expected[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace damoyolo
