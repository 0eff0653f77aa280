// What compute capability 9.0 adds, for kernels that run on the host: clusters of blocks, barriers in shared memory,
// bulk tensor copies, products of warpgroups, barriers of some threads. The functions are the instructions of
// kernels/ptx_sm90.cuh.
//
// What is emulated is what the PTX manual documents: phases and byte counts of barriers, boxes with zeros outside the
// tensor and steps between elements, the three swizzles as functions of the address in shared memory, descriptors bit
// by bit, the accumulators' layout. Breaking a documented rule throws. What goes on beside the threads happens as late
// as it may in one block, and as early in the next: copies arrive when no thread can go on, or at once; stores read
// when they are waited for and write when the block ends, or both at once; products are computed when their wait
// begins to hold everybody up. So a missing wait shows, and a buffer freed too early.
//
// Blocks of a cluster may use each other's shared memory from their first barrier on until its owner ends; anything
// else throws.
//
// Only a device can confirm that the manual is read rightly: above all, that addresses are swizzled after the sum of
// start and offsets, that steps apply to elements outside the tensor too, and what fences are needed for. Of these,
// what shows when it is missing is fence_async_shared() between stmatrix_x4() and what reads past the threads: bulk
// stores and wgmma. Others do nothing here, nor does what tells waits and arrivals for a cluster from those for a
// block.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "tensor_core.h"

namespace simt {

// Shared memory begins here, so that a kernel has to align its own buffers.
constexpr std::uint32_t kSharedBase = 1024 + 128;

// Addresses of dynamic shared memory as instructions take them, in bytes: where in the block, and from bit 24 on, as
// sm_90 does it, the block's rank in its cluster.
std::uint32_t shared_address(const void* pointer);
std::uint32_t shared_address_in(std::uint32_t address, int rank);
// Throws Error unless the bytes are a running block's.
void* shared_pointer(std::uint32_t address, std::size_t bytes);

// The 16-byte pieces of every `span` (32, 64 or 128) bytes change places with the row they are in.
std::uint32_t swizzled(std::uint32_t address, int span);

// Copies a box that starts at `start` (map rank elements) to shared memory of the blocks whose bits are set.
void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, unsigned blocks, int rank,
                 const int* start);
void tensor_store(const CUtensorMap& map, std::uint32_t from, int rank, const int* start);
void store_wait_read(int pending);
// sums[64][n] += a[64][16] · b[n][16], of which float[n / 8][4] are the calling thread's.
void wgmma(float (*sums)[4], int n, std::uint64_t a, std::uint64_t b, bool bf16);
void wgmma_wait(int pending, Site site);

}  // namespace simt

// The instructions, as kernels/ptx_sm90.cuh describes them.
namespace damoyolo::kernels {

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

using simt::cluster_rank;
using simt::shared_address;
using simt::shared_address_in;

inline void cluster_arrive(SIMT_SITE) { simt::cluster_arrive({file, line}); }
inline void cluster_wait(SIMT_SITE) { simt::cluster_wait({file, line}); }

bool elect_one(SIMT_SITE);
template <int N>
void take_registers() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0);
}
template <int N>
void give_registers() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0);
}

void mbarrier_init(std::uint32_t barrier, unsigned count);
void mbarrier_arrive(std::uint32_t barrier);
void mbarrier_arrive_expect(std::uint32_t barrier, unsigned bytes);
void mbarrier_arrive_cluster(std::uint32_t barrier);
void mbarrier_wait(std::uint32_t barrier, unsigned parity, SIMT_SITE);
inline void mbarrier_wait_cluster(std::uint32_t barrier, unsigned parity, SIMT_SITE) {
  mbarrier_wait(barrier, parity, file, line);
}
inline void fence_mbarrier_init() {}
void named_barrier(int id, int threads, SIMT_SITE);
void named_barrier_arrive(int id, int threads, SIMT_SITE);
void store_async(std::uint32_t to, std::uint32_t barrier, float first, float second);
inline void stmatrix_x4(void* row, const unsigned (&from)[4], SIMT_SITE) {
  simt::stmatrix_x4(row, from, {file, line});
}

void prefetch_tensor_map(const CUtensorMap& map);
template <typename... Start>
void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, Start... start) {
  const int at[] = {start...};
  simt::tensor_load(to, map, barrier, 1u << cluster_rank(), sizeof...(start), at);
}
template <typename... Start>
void tensor_load_multicast(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, std::uint16_t mask,
                           Start... start) {
  const int at[] = {start...};
  simt::tensor_load(to, map, barrier, mask, sizeof...(start), at);
}

void fence_async_shared();
template <typename... Start>
void tensor_store(const CUtensorMap& map, std::uint32_t from, Start... start) {
  const int at[] = {start...};
  simt::tensor_store(map, from, sizeof...(start), at);
}
void store_commit();
template <int Pending>
void store_wait_read() {
  simt::store_wait_read(Pending);
}

void wgmma_fence();
template <typename T, int N>
void wgmma(float (*sums)[4], std::uint64_t a, std::uint64_t b) {
  simt::wgmma(sums, N, a, b, std::is_same_v<T, __nv_bfloat16>);
}
void wgmma_commit();
template <int Pending>
void wgmma_wait(SIMT_SITE) {
  simt::wgmma_wait(Pending, {file, line});
}
template <int N>
void fence_registers(float (&)[N][4]) {}

#undef SIMT_SITE

}  // namespace damoyolo::kernels
