// Instructions that CUDA C++ has no word for, as small named functions. On the host they do what a machine that runs
// one kernel after another does.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#ifndef __CUDACC__
#include <tensor_core.h>
#endif

namespace damoyolo::kernels {

// Waits until all kernels before this one on its stream have ended and their writes are seen. A kernel launched with
// Stream::overlap must call it before it touches memory that another kernel reads or writes; elsewhere it costs
// nothing.
__device__ __forceinline__ void wait_for_predecessors() {
#ifndef __CUDACC__
  simt::wait_for_predecessors();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
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

// Has [from, from + bytes) brought to the second-level cache some time, if it is not there; nobody waits for it. Both
// are multiples of 16, and `bytes` is below 1 MiB. Of the `threads` that come here with the same range, this one is
// number `thread`.
__device__ __forceinline__ void prefetch_l2(const void* from, unsigned bytes, int thread,
                                            [[maybe_unused]] int threads) {
#ifndef __CUDACC__
  simt::prefetch_l2(from, bytes, thread);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (thread == 0 && bytes > 0)
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
  constexpr unsigned kLine = 128;
  for (unsigned at = thread * kLine; at < bytes; at += threads * kLine)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(from) + at) : "memory");
#endif
}

// 2^x and 1/x by the special function unit alone, within two units of the last place; results and arguments below the
// smallest normal number are zeros.
__device__ __forceinline__ float exp2_approximately(float x) {
#ifdef __CUDACC__
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
#else
  return exp2f(x);
#endif
}
__device__ __forceinline__ float reciprocal_approximately(float x) {
#ifdef __CUDACC__
  asm("rcp.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
#else
  return 1.0f / x;
#endif
}

// From here on: compute capability 8.0 and later.

#ifdef __CUDACC__
__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
#endif

// Counts up one that goes from 0 to `last` and begins again, and returns what it was. What this thread has seen or
// written before is seen by whoever counts after it, on the whole device: a release and an acquire in one.
__device__ __forceinline__ unsigned count_up_acq_rel(unsigned* counter, unsigned last) {
#ifdef __CUDACC__
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(last) : "memory");
  return before;
#else
  return atomicInc(counter, last);
#endif
}

// Starts to copy 16 bytes from global to shared memory, both at multiples of 16 bytes, past L1. Where not `valid`,
// zeros are written and nothing is read; where not `wanted`, nothing is done.
__device__ __forceinline__ void cp_async_16(void* to, const void* from, bool valid, bool wanted = true) {
#ifdef __CUDACC__
  asm volatile(
      "{.reg .pred wanted; setp.ne.b32 wanted, %3, 0;\n"
      "@wanted cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;}" ::"r"(shared_address(to)),
      "l"(from), "r"(valid ? 16 : 0), "r"(static_cast<int>(wanted))
      : "memory");
#else
  if (wanted) simt::copy_16(to, from, valid);
#endif
}

// Makes one group of what this thread has started to copy since its last group; it may be empty.
__device__ __forceinline__ void cp_async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simt::commit_copies();
#endif
}

// Waits until at most the N latest of this thread's groups are still under way. Other threads see the copies after
// the next barrier.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  simt::wait_for_copies(N);
#endif
}

// Loads four matrices of 8 × 8 16-bit elements from shared memory. Lane 8·i + r says where row r of matrix i lies, 16
// bytes at a multiple of 16. to[i] becomes elements 2·(lane % 4) and the next one of row lane / 4 of matrix i.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&to)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
#else
  simt::ldmatrix_x4(to, row, {__FILE__, __LINE__});
#endif
}

#ifdef __CUDACC__
// sums += a · b for 16 × 8 sums and 16 products each.
template <typename T>
__device__ __forceinline__ void mma_16x8x16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// The products of all of a's fragments with all of b's: sums[m·N + n] += a[m] · b[n], each 16 × 8 sums of 16 products.
// With g = lane / 4 and t = 2·(lane % 4), a lane holds, where (x) means x and x + 1, the elements
//   a[m]:          [g, (t)], [g + 8, (t)], [g, (t + 8)], [g + 8, (t + 8)] of 16 rows × 16 products,
//   b[n]:          [g, (t)], [g, (t + 8)]                                 of 8 columns × 16 products,
//   sums[m·N + n]: [g, t], [g, t + 1], [g + 8, t], [g + 8, t + 1]         of 16 rows × 8 columns.
template <typename T, int M, int N>
__device__ __forceinline__ void multiply_add(float (&sums)[M * N][4], const unsigned (&a)[M][4],
                                             const unsigned (&b)[N][2]) {
#ifdef __CUDACC__
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n) mma_16x8x16<T>(sums[m * N + n], a[m], b[n]);
#else
  simt::Mma mma{sums, a, b, M, N, simt::float_of(T{})};
  simt::mma_16x8x16(mma, {__FILE__, __LINE__});
#endif
}

}  // namespace damoyolo::kernels
