// What compute capability 9.0 adds, for kernels that run on the host: barriers in shared memory, bulk tensor copies,
// products of warpgroups, barriers of some threads. The functions are the instructions of kernels/ptx_sm90.cuh.
//
// What is emulated is what the PTX manual documents: phases and byte counts of barriers, boxes with zeros outside the
// tensor and steps between elements, the three swizzles as functions of the address in shared memory, descriptors bit
// by bit, the accumulators' layout. Breaking a documented rule throws. What goes on beside the threads happens as late
// as it may in one block, and as early in the next: copies arrive when no thread can go on, or at once; products are
// computed when their wait begins to hold everybody up. So a missing wait shows, and a buffer freed too early.
//
// Only a device can confirm that the manual is read rightly: above all, that addresses are swizzled after the sum of
// start and offsets, that steps apply to elements outside the tensor too, and what fences are needed for; the fences
// of memory do nothing here.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace simt {

// Shared memory begins here, so that a kernel has to align its own buffers.
constexpr std::uint32_t kSharedBase = 1024 + 128;

// Addresses of the block's dynamic shared memory as instructions take them, in bytes.
std::uint32_t shared_address(const void* pointer);
// Throws Error unless the bytes are the block's.
void* shared_pointer(std::uint32_t address, std::size_t bytes);

// The 16-byte pieces of every `span` (32, 64 or 128) bytes change places with the row they are in.
std::uint32_t swizzled(std::uint32_t address, int span);

// Copies a box that starts at `start` (map rank elements) to shared memory.
void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, int rank, const int* start);
// sums[64][n] += a[64][16] · b[n][16], of which float[n / 8][4] are the calling thread's.
void wgmma(float (*sums)[4], int n, std::uint64_t a, std::uint64_t b, bool bf16);
void wgmma_wait(int pending, Site site);

}  // namespace simt

// The instructions, as kernels/ptx_sm90.cuh describes them.
namespace damoyolo::kernels {

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

using simt::shared_address;

void mbarrier_init(std::uint32_t barrier, unsigned count);
void mbarrier_arrive(std::uint32_t barrier);
void mbarrier_arrive_expect(std::uint32_t barrier, unsigned bytes);
void mbarrier_wait(std::uint32_t barrier, unsigned parity, SIMT_SITE);
inline void fence_mbarrier_init() {}
bool named_barrier_or(int id, int threads, bool value, SIMT_SITE);

inline void prefetch_tensor_map(const CUtensorMap&) {}
template <typename... Start>
void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, Start... start) {
  const int at[] = {start...};
  simt::tensor_load(to, map, barrier, sizeof...(start), at);
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
