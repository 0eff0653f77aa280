// Instructions that CUDA C++ has no word for, as small named functions. On the host they do what a machine that runs
// one kernel after another does.
#pragma once

#include <cuda_runtime.h>

namespace damoyolo::kernels {

// Waits until all kernels before this one on its stream have ended and their writes are seen. A kernel launched with
// Stream::overlap must call it before it touches memory that another kernel reads or writes; elsewhere it costs
// nothing.
__device__ __forceinline__ void wait_for_predecessors() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel on the stream start when all blocks have said so or ended; it still waits for this kernel's
// writes in wait_for_predecessors().
__device__ __forceinline__ void let_successors_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace damoyolo::kernels
