// A span of time for several tasks, one after another.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace damoyolo::cuda {

class TimeShares {
 public:
  using Clock = std::chrono::steady_clock;

  TimeShares(double seconds, std::ptrdiff_t tasks)
      : end_(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))),
        left_(tasks) {}

  // When the next task has to end, to leave each of those behind it as much: has passed when no time is left.
  Clock::time_point next_deadline() {
    const auto now = Clock::now();
    return now + (end_ - now) / std::max<std::ptrdiff_t>(left_--, 1);
  }

 private:
  Clock::time_point end_;
  std::ptrdiff_t left_;
};

}  // namespace damoyolo::cuda
