// For the tests of single instructions. Each case is one thing that the convolutions take for granted, so that where
// they fail on a device, it says which. The same kernels run on the host's emulation of the instructions and on a GPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/numeric.cuh"
#include "kernels/ptx_sm90.cuh"
#include "kernels/tensor_map.h"
#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {

// Enough for every case, and for both orders in which the emulation lets copies come.
constexpr unsigned kBlocks = 4;

// Of each block: 16 barriers, and room at a multiple of 1024 bytes.
struct SharedMemory {
  // In bytes.
  static constexpr unsigned kBarriers = 128, kAlignment = 1024, kRoom = 64 * 1024;

  std::uint32_t barriers, room;  // as addresses of instructions
  unsigned char* bytes;          // of the room

  __device__ __forceinline__ SharedMemory() {
    auto* const first = dynamic_shared<unsigned char>();
    barriers = shared_address(first);
    room = (barriers + kBarriers + kAlignment - 1) / kAlignment * kAlignment;
    bytes = first + (room - barriers);
  }
  __device__ __forceinline__ std::uint32_t barrier(int i = 0) const { return barriers + i * 8; }
};

// Runs body() in every thread. Body is a struct of the kernel's arguments and says
//   kCapability  80: its instructions are those of compute capability 8.0 and later; 90: those of sm_90a
//   kThreads     of a block
template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, 1) instruction_kernel(const __grid_constant__ Body body) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int kCompiledFor = 90;
#else
  constexpr int kCompiledFor = __CUDA_ARCH__ < 900 ? __CUDA_ARCH__ / 10 : 89;
#endif
  if (Body::kCapability <= kCompiledFor) body();
}

// `overlap` as in Stream; `room` in bytes.
struct Grid {
  unsigned blocks = kBlocks, cluster = 1;
  bool overlap = false;
  unsigned room = SharedMemory::kRoom;
};

// Waits until the kernel has ended.
template <typename Body>
void run(const Body& body, const Grid& grid = {}) {
  launch("of the test", instruction_kernel<Body>,
         {grid.blocks, Body::kThreads, SharedMemory::kBarriers + SharedMemory::kAlignment + grid.room, grid.cluster},
         {nullptr, grid.overlap}, body);
  const cudaError_t result = cudaDeviceSynchronize();
  REQUIRE_MESSAGE(result == cudaSuccess, "the kernel ended with: ", cudaGetErrorString(result));
}

// Barrier i counts `counts[i]` arrivals. All threads of the block come here, and may use the barriers behind it.
template <typename... Counts>
__device__ __forceinline__ void make_barriers(const SharedMemory& shared, Counts... counts) {
  if (threadIdx.x == 0) {
    int i = 0;
    (mbarrier_init(shared.barrier(i++), static_cast<unsigned>(counts)), ...);
    fence_mbarrier_init();
    fence_async_shared();
  }
  __syncthreads();
}

// Fills the room with `elements` of 16 bits, or with kNothing, and hands it to bulk copies; all threads of the block
// come here.
constexpr std::uint16_t kNothing = 0xffff;

__device__ __forceinline__ void fill_room(const SharedMemory& shared, const std::uint16_t* elements, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    const std::uint16_t element = elements == nullptr ? kNothing : elements[i];
    __builtin_memcpy(shared.bytes + 2 * i, &element, 2);
  }
  fence_async_shared();
  __syncthreads();
}

// The first `count` elements of the room, as they lie there, to this block's part of `out`.
__device__ __forceinline__ void take_room(const SharedMemory& shared, std::uint16_t* out, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
    __builtin_memcpy(out + static_cast<std::size_t>(blockIdx.x) * count + i, shared.bytes + 2 * i, 2);
}

// Which 16 bytes of memory hold unit `unit` of row `row` when units are swizzled over rows of `span` bytes: they
// change places within the row, by the number of the 128 bytes that it lies in, as the PTX manual draws it.
__host__ __device__ constexpr int swizzled_unit(int row, int unit, int span) {
  const int units = span / 16;
  return row * units + (unit ^ row * span / 128 % units);
}

// `got` holds what several blocks have written, each of which should have written `want`. Empty when they have;
// otherwise the first wrong element, counted in rows of `width`, where its value belongs if that is one place, and how
// many are wrong.
template <typename T>
std::string describe_wrong_elements(const std::vector<T>& got, const std::vector<T>& want, std::size_t width) {
  const auto place = [&](std::size_t i) {
    return "row " + std::to_string(i / width) + ", column " + std::to_string(i % width);
  };
  std::size_t wrong = 0, first = got.size();
  for (std::size_t i = got.size(); i-- > 0;)
    if (got[i] != want[i % want.size()]) ++wrong, first = i;
  if (wrong == 0) return "";
  const auto home = std::find(want.begin(), want.end(), got[first]);
  const bool has_home = home != want.end() && std::find(home + 1, want.end(), got[first]) == want.end();
  std::ostringstream text;
  text << "block " << first / want.size() << ", " << place(first % want.size()) << ": " << got[first] << ", expected "
       << want[first % want.size()]
       << (has_home ? "; that belongs to " + place(static_cast<std::size_t>(home - want.begin())) : "") << "; "
       << wrong << " of " << got.size() << " are wrong";
  return text.str();
}

template <typename T>
void check_elements(const std::vector<T>& got, const std::vector<T>& want, std::size_t width) {
  CHECK(describe_wrong_elements(got, want, width) == "");
}

}  // namespace damoyolo::kernels
