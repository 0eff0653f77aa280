// What repeated measurements of one thing come to.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace damoyolo::cli {

// The value below which that part (0 to 1) of them lies: linear between the two nearest, the first value being 0 and
// the last 1. `sorted`: not empty, ascending.
double percentile(std::span<const double> sorted, double part);

double median(std::vector<double> values);  // not empty

struct Statistics {
  std::size_t runs = 0;
  double min = 0, median = 0, p95 = 0, p99 = 0;
  double interquartile = 0;  // third quartile less first quartile
  // How far apart the medians of the first and the second half are, as a part of the smaller; none of a single run.
  std::optional<double> drift;
};

// Medians of two halves further apart than this are not to be relied on.
constexpr double kSteadyDrift = 0.03;

// `values`: not empty, in the order in which they were measured.
Statistics summarize(std::span<const double> values);

}  // namespace damoyolo::cli
