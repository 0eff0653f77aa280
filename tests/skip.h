// Tests that cannot run on this machine say so: the run lists them by name and counts them as skipped.
#pragma once

#include <string>

namespace damoyolo::test {

// Marks the running test case as skipped; the case returns after it. A check that failed before still fails the case.
void skip(std::string reason);

// Whether the NVIDIA driver is there and sees a GPU.
bool gpu_present();

}  // namespace damoyolo::test

// Leaves the running test case. The reason says what a GPU is needed for.
#define SKIP_WITHOUT_GPU(reason)               \
  do {                                         \
    if (!damoyolo::test::gpu_present()) {      \
      damoyolo::test::skip("no GPU: " reason); \
      return;                                  \
    }                                          \
  } while (false)
