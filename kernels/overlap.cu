#include "kernels/launch.h"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

// What every kernel begins with.
__global__ void waiting_kernel() { wait_for_predecessors(); }

}  // namespace

bool can_overlap() {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, waiting_kernel), "overlap");
  return attributes.ptxVersion >= 90;
}

}  // namespace damoyolo::kernels
