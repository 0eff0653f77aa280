// Instructions of compute capability 9.0 (sm_90a), as small named functions: clusters of blocks, barriers in shared
// memory, bulk tensor copies, products of warpgroups. Addresses are those of the shared window, in bytes: of the
// block's own shared memory, or, where a function says so, of any block's of the cluster. Tests run emulations of the
// same names on the host, tests/simt/hopper.h.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/ptx.cuh"

#ifndef __CUDACC__
#include <hopper.h>
#endif

namespace damoyolo::kernels {

// How a matrix of rows of `span` bytes (32, 64 or 128: its swizzle) lies in shared memory, as wgmma is told: rows of
// the factor one after another, products of a sum innermost. Groups of 8 rows follow each other; the distance in the
// other direction has no meaning here. Add (bytes >> 4) to move the start; 32 bytes are the next 16 products.
__device__ __forceinline__ std::uint64_t matrix_descriptor(std::uint32_t address, int span) {
  const std::uint64_t mode = span == 128 ? 1 : span == 64 ? 2 : 3;
  const std::uint64_t group_stride = static_cast<std::uint64_t>(span) * 8;
  return mode << 62 | (group_stride >> 4) << 32 | std::uint64_t{1} << 16 | (address & 0x3ffff) >> 4;
}

#ifdef __CUDACC__

// The block's number in its cluster (LaunchShape::cluster).
__device__ __forceinline__ int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// The barrier of a cluster, in two halves: nobody's wait ends before all threads of the cluster have arrived, but for
// those that have ended. Whole warps take part. A block must not touch another's shared memory before the first wait,
// for the other may not have started, nor after the other's end. What is seen behind it is what fence_mbarrier_init()
// covers, and nothing else; so it waits for no writes.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// The address of the same place in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ std::uint32_t shared_address_in(std::uint32_t address, int rank) {
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

// True for one lane of a warp, all of which come here, and always the same one; which one is the device's affair.
__device__ __forceinline__ bool elect_one() {
  int elected;
  asm volatile(
      "{\n"
      ".reg .pred elected;\n"
      "elect.sync _|elected, 0xffffffff;\n"
      "selp.b32 %0, 1, 0, elected;\n"
      "}"
      : "=r"(elected));
  return elected != 0;
}

// The threads of a warpgroup, all of which come here, have N registers each from here on: more than before, for which
// they wait until other warpgroups have given theirs, or fewer. The kernel has launch bounds.
template <int N>
__device__ __forceinline__ void take_registers() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void give_registers() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// A barrier is 8 bytes. Its phase ends when `count` have arrived and all bytes that were announced have come; then
// the next begins.
__device__ __forceinline__ void mbarrier_init(std::uint32_t barrier, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Makes new barriers known to the cluster's other blocks, behind its barrier. __syncthreads() makes them known to the
// block, and fence_async_shared() to what copies.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// At the barrier of any block of the cluster, which sees no write by it: says that a buffer has been read. It waits
// for nothing, and the other block's mbarrier_wait is enough.
__device__ __forceinline__ void mbarrier_arrive_cluster(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive_expect(std::uint32_t barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Until the phase of this parity has ended; the one before the first has.
__device__ __forceinline__ void mbarrier_wait(std::uint32_t barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// The same where other blocks' store_async() count: sees what they wrote. It empties L1.
__device__ __forceinline__ void mbarrier_wait_cluster(std::uint32_t barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Until `threads` threads of the block, a multiple of 32, have come to barrier `id` (1 to 15).
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Comes to the barrier and waits for nobody. What this thread has written before, those see who wait there.
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Writes 8 bytes to the shared memory of any block of the cluster; they count for that block's barrier, which is in
// the same block, when they have come. This thread waits for nothing.
__device__ __forceinline__ void store_async(std::uint32_t to, std::uint32_t barrier, float first, float second) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%2, %3}, [%1];" ::"r"(to),
               "r"(barrier), "f"(first), "f"(second)
               : "memory");
}

// ldmatrix_x4() the other way.
__device__ __forceinline__ void stmatrix_x4(void* row, const unsigned (&from)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
               "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
               : "memory");
}

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Copies the box that starts at these elements of the tensor, innermost first. `to` is a multiple of 8 spans; the
// bytes count for `barrier` when they have come.
__device__ __forceinline__ void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, int x0,
                                            int x1, int x2, int x3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
      : "memory");
}

// The same for every block of the cluster whose bit is set in `mask`: box and bytes come to the same places in each.
__device__ __forceinline__ void tensor_load_multicast(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier,
                                                      std::uint16_t mask, int x0, int x1, int x2, int x3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%4, %5, %6, %7}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "h"(mask), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
      : "memory");
}

// Makes what this thread has written to shared memory, new barriers included, known to bulk copies that are issued
// behind the next barrier.
__device__ __forceinline__ void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Copies the box at `from`, a multiple of 8 spans, to the tensor, from these elements on, innermost first. What lies
// outside the tensor is not written. The map has steps of 1.
__device__ __forceinline__ void tensor_store(const CUtensorMap& map, std::uint32_t from, int x0, int x1, int x2,
                                             int x3) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
               "r"(from), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
               : "memory");
}

// What this thread has stored since its last commit becomes a group; it may be empty.
__device__ __forceinline__ void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until the shared memory of all of this thread's groups but the latest `Pending` has been read. Before it ends, a
// block must wait so for all.
template <int Pending>
__device__ __forceinline__ void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}

// Before a wgmma that uses registers which anything else has touched since the last one was waited for.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// What was issued since the last commit becomes a group.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until all groups but the last `Pending` are done.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Keeps the compiler from moving uses of `sums` across.
template <int N>
__device__ __forceinline__ void fence_registers(float (&sums)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
    asm volatile("" : "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])::"memory");
}

// The instruction for one width: the text of N / 2 operands, then the operands.
#define DAMOYOLO_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define DAMOYOLO_NAMES_1 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DAMOYOLO_NAMES_2 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define DAMOYOLO_NAMES_3 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DAMOYOLO_NAMES_4 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define DAMOYOLO_NAMES_5 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define DAMOYOLO_NAMES_6 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define DAMOYOLO_NAMES_7 \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define DAMOYOLO_SUMS(i)                                                                                              \
  "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3]), "+f"(sums[i + 1][0]), "+f"(sums[i + 1][1]), \
      "+f"(sums[i + 1][2]), "+f"(sums[i + 1][3]), "+f"(sums[i + 2][0]), "+f"(sums[i + 2][1]), "+f"(sums[i + 2][2]),   \
      "+f"(sums[i + 2][3]), "+f"(sums[i + 3][0]), "+f"(sums[i + 3][1]), "+f"(sums[i + 3][2]), "+f"(sums[i + 3][3])
#define DAMOYOLO_WGMMA(n, type, names, a_name, b_name, ...)                                                        \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" names "}, " a_name ", " b_name \
               ", 1, 1, 1, 0, 0;"                                                                                  \
               : __VA_ARGS__                                                                                       \
               : "l"(a), "l"(b))
#define DAMOYOLO_WGMMA_CASE(n, names, a_name, b_name, ...)         \
  if constexpr (N == n && std::is_same_v<T, __nv_bfloat16>)        \
    DAMOYOLO_WGMMA(n, "bf16", names, a_name, b_name, __VA_ARGS__); \
  else if constexpr (N == n)                                       \
  DAMOYOLO_WGMMA(n, "f16", names, a_name, b_name, __VA_ARGS__)

// sums[64][N] += a[64][16] · b[N][16], of T, by the 128 threads of a warpgroup, N 32, 64, 96, 128, 160, 192 or 256.
// Thread t holds N / 2 sums: sums[i][2 h + e] is that of row t / 32 · 16 + h · 8 + t % 32 / 4 and column
// 8 i + t % 4 · 2 + e.
template <typename T, int N>
__device__ __forceinline__ void wgmma(float (*sums)[4], std::uint64_t a, std::uint64_t b) {
  DAMOYOLO_WGMMA_CASE(32, DAMOYOLO_NAMES_0, "%16", "%17", DAMOYOLO_SUMS(0));
  DAMOYOLO_WGMMA_CASE(64, DAMOYOLO_NAMES_0 DAMOYOLO_NAMES_1, "%32", "%33", DAMOYOLO_SUMS(0), DAMOYOLO_SUMS(4));
  DAMOYOLO_WGMMA_CASE(96, DAMOYOLO_NAMES_0 DAMOYOLO_NAMES_1 DAMOYOLO_NAMES_2, "%48", "%49", DAMOYOLO_SUMS(0),
                      DAMOYOLO_SUMS(4), DAMOYOLO_SUMS(8));
  DAMOYOLO_WGMMA_CASE(128, DAMOYOLO_NAMES_0 DAMOYOLO_NAMES_1 DAMOYOLO_NAMES_2 DAMOYOLO_NAMES_3, "%64", "%65",
                      DAMOYOLO_SUMS(0), DAMOYOLO_SUMS(4), DAMOYOLO_SUMS(8), DAMOYOLO_SUMS(12));
  DAMOYOLO_WGMMA_CASE(160, DAMOYOLO_NAMES_0 DAMOYOLO_NAMES_1 DAMOYOLO_NAMES_2 DAMOYOLO_NAMES_3 DAMOYOLO_NAMES_4, "%80",
                      "%81", DAMOYOLO_SUMS(0), DAMOYOLO_SUMS(4), DAMOYOLO_SUMS(8), DAMOYOLO_SUMS(12),
                      DAMOYOLO_SUMS(16));
  DAMOYOLO_WGMMA_CASE(
      192, DAMOYOLO_NAMES_0 DAMOYOLO_NAMES_1 DAMOYOLO_NAMES_2 DAMOYOLO_NAMES_3 DAMOYOLO_NAMES_4 DAMOYOLO_NAMES_5,
      "%96", "%97", DAMOYOLO_SUMS(0), DAMOYOLO_SUMS(4), DAMOYOLO_SUMS(8), DAMOYOLO_SUMS(12), DAMOYOLO_SUMS(16),
      DAMOYOLO_SUMS(20));
  DAMOYOLO_WGMMA_CASE(256,
                      DAMOYOLO_NAMES_0 DAMOYOLO_NAMES_1 DAMOYOLO_NAMES_2 DAMOYOLO_NAMES_3 DAMOYOLO_NAMES_4
                          DAMOYOLO_NAMES_5 DAMOYOLO_NAMES_6 DAMOYOLO_NAMES_7,
                      "%128", "%129", DAMOYOLO_SUMS(0), DAMOYOLO_SUMS(4), DAMOYOLO_SUMS(8), DAMOYOLO_SUMS(12),
                      DAMOYOLO_SUMS(16), DAMOYOLO_SUMS(20), DAMOYOLO_SUMS(24), DAMOYOLO_SUMS(28));
}

#undef DAMOYOLO_WGMMA_CASE
#undef DAMOYOLO_WGMMA
#undef DAMOYOLO_SUMS
#undef DAMOYOLO_NAMES_0
#undef DAMOYOLO_NAMES_1
#undef DAMOYOLO_NAMES_2
#undef DAMOYOLO_NAMES_3
#undef DAMOYOLO_NAMES_4
#undef DAMOYOLO_NAMES_5
#undef DAMOYOLO_NAMES_6
#undef DAMOYOLO_NAMES_7

#endif

}  // namespace damoyolo::kernels
