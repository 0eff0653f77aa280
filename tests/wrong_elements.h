// What to know of a wrong result where nobody can look again: rounding or nonsense, and whose work it was.
#pragma once

#include <cmath>
#include <cstddef>
#include <iterator>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace damoyolo {

// "0-7, 16, 64-71": the numbers in order, behind a few ranges only how many there are.
inline std::string describe_ranges(const std::set<std::size_t>& numbers) {
  constexpr int kRanges = 6;
  std::string text;
  int ranges = 0;
  for (auto first = numbers.begin(); first != numbers.end();) {
    auto last = first, next = std::next(first);
    while (next != numbers.end() && *next == *last + 1) last = next++;
    if (ranges++ == kRanges) return text + " ... (" + std::to_string(numbers.size()) + ")";
    text += (ranges > 1 ? ", " : "") + std::to_string(*first);
    if (last != first) text += "-" + std::to_string(*last);
    first = next;
  }
  return text;
}

// Which elements are compared: of a tensor of h × w pixels an image, all channels of all pixels, or of those listed.
struct Compared {
  int h, w, c;
  std::span<const int> pixels = {};  // through all images
};

// Empty when every element is within its bound. `before`, where it is given: what the memory held before, which tells
// what was not written. Otherwise a line such as
//
//   "64 of 640 wrong, 60 of them by more than 10 bounds, at most by 31.5 (5 bounds); 0 are no numbers, 2 zero, 8 as
//    before; in pixels 64-127, channels 0-7; first n 0, y 3, x 4, c 0: 1.25, expected 0.5 to within 0.01"
inline std::string describe_wrong(const Compared& compared, std::span<const float> got,
                                  std::span<const double> expected, std::span<const double> bounds,
                                  std::span<const float> before = {}) {
  if (got.size() != expected.size())
    return std::to_string(got.size()) + " elements, expected " + std::to_string(expected.size());
  const auto channels = static_cast<std::size_t>(compared.c);
  std::size_t wrong = 0, gross = 0, no_numbers = 0, zeros = 0, unwritten = 0, first = 0;
  double largest = 0, most_bounds = 0;
  std::set<std::size_t> wrong_pixels, wrong_channels;
  const auto pixel_of = [&](std::size_t i) {
    return compared.pixels.empty() ? i / channels : static_cast<std::size_t>(compared.pixels[i / channels]);
  };
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]);
    if (error <= bounds[i]) continue;
    if (wrong++ == 0) first = i;
    if (!(error <= 10 * bounds[i])) ++gross;
    if (std::isnan(got[i])) ++no_numbers;
    if (got[i] == 0) ++zeros;
    if (!before.empty() && got[i] == before[i]) ++unwritten;
    largest = std::fmax(largest, error);  // unless it is no number
    most_bounds = std::fmax(most_bounds, error / bounds[i]);
    wrong_pixels.insert(pixel_of(i));
    wrong_channels.insert(i % channels);
  }
  if (wrong == 0) return "";
  const auto pixel = static_cast<int>(pixel_of(first));
  std::ostringstream text;
  text << wrong << " of " << expected.size() << " wrong, " << gross << " of them by more than 10 bounds, at most by "
       << largest << " (" << most_bounds << " bounds); " << no_numbers << " are no numbers, " << zeros << " zero";
  if (!before.empty()) text << ", " << unwritten << " as before";
  text << "; in pixels " << describe_ranges(wrong_pixels) << ", channels " << describe_ranges(wrong_channels)
       << "; first n " << pixel / compared.w / compared.h << ", y " << pixel / compared.w % compared.h << ", x "
       << pixel % compared.w << ", c " << first % channels << ": " << got[first] << ", expected " << expected[first]
       << " to within " << bounds[first];
  return text.str();
}

}  // namespace damoyolo
