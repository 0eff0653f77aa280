// The number of OpenMP threads, for the length of a scope.
#pragma once

#include <omp.h>

namespace damoyolo::cpu {

// The number is a setting of the calling thread; it is put back as it was. 0: leave it.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(omp_get_max_threads()) {
    if (threads > 0) omp_set_num_threads(threads);
  }
  ~ThreadCount() { omp_set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

}  // namespace damoyolo::cpu
