// The shim itself: what it must run, and the faults it must report and not hang on.
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/launch.h"
#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

// Sums a block's numbers: warps by shuffles, then the first warp over shared memory.
__global__ void sum_kernel(const int* numbers, int* sums) {
  __shared__ int partial[32];
  const int thread = static_cast<int>(threadIdx.x);
  int sum = numbers[blockIdx.x * blockDim.x + threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (thread % warpSize == 0) partial[thread / warpSize] = sum;
  __syncthreads();
  if (thread >= warpSize) return;
  sum = thread < static_cast<int>(blockDim.x) / warpSize ? partial[thread] : 0;
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(~0u, sum, distance);
  if (thread == 0) sums[blockIdx.x] = sum;
}

TEST_CASE("simt: blocks sum through shuffles and shared memory") {
  std::vector<int> numbers(3 * 256), sums(3);
  for (int i = 0; i < 3 * 256; ++i) numbers[i] = i * i;
  launch("sum", sum_kernel, {3, 256}, {}, numbers.data(), sums.data());
  for (int block = 0; block < 3; ++block) {
    int want = 0;
    for (int i = 0; i < 256; ++i) want += numbers[block * 256 + i];
    CHECK(sums[block] == want);
  }
}

__global__ void exchange_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int* mine = out + lane * 10;
  mine[0] = __shfl_sync(~0u, lane, 5);
  mine[1] = __shfl_sync(~0u, lane, 3, 8);
  mine[2] = __shfl_up_sync(~0u, lane, 2);
  mine[3] = __shfl_down_sync(~0u, lane, 2, 16);
  mine[4] = static_cast<int>(__ballot_sync(~0u, lane % 3 == 0));
  mine[5] = __any_sync(~0u, lane == 31);
  mine[6] = __all_sync(~0u, lane < 31);
  if (lane < 8) mine[7] = __shfl_xor_sync(0xffu, lane, 1);
  mine[8] = __syncthreads_or(lane == 3);
  mine[9] = __syncthreads_or(0);
}

TEST_CASE("simt: shuffles and votes give what the CUDA guide says") {
  std::vector<int> out(32 * 10);
  launch("exchange", exchange_kernel, {1, 32}, {}, out.data());
  unsigned thirds = 0;
  for (int lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  for (int lane = 0; lane < 32; ++lane) {
    const int* mine = &out[static_cast<std::size_t>(lane * 10)];
    CHECK(mine[0] == 5);
    CHECK(mine[1] == lane / 8 * 8 + 3);
    CHECK(mine[2] == (lane < 2 ? lane : lane - 2));
    CHECK(mine[3] == (lane % 16 < 14 ? lane + 2 : lane));
    CHECK(mine[4] == static_cast<int>(thirds));
    CHECK(mine[5] == 1);
    CHECK(mine[6] == 0);
    CHECK(mine[7] == (lane < 8 ? (lane ^ 1) : 0));
    CHECK(mine[8] == 1);
    CHECK(mine[9] == 0);
  }
}

// Thread i reads what its neighbour wrote, on one side or the other.
__global__ void neighbour_kernel(int* out, int side) {
  int* shared = dynamic_shared<int>();
  const int thread = static_cast<int>(threadIdx.x), count = static_cast<int>(blockDim.x);
  shared[thread] = thread;
  if (side == 0) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[(thread + count + (side == 0 ? 1 : side)) % count];
}

TEST_CASE("simt: a missing barrier shows, whichever neighbour is read") {
  std::vector<int> out(2 * 64), with_barrier(2 * 64);
  launch("neighbour", neighbour_kernel, {2, 64, 64 * sizeof(int)}, {}, with_barrier.data(), 0);
  CHECK(with_barrier[10] == 11);
  CHECK(with_barrier[64 + 10] == 11);
  for (const int side : {-1, 1}) {
    launch("neighbour", neighbour_kernel, {2, 64, 64 * sizeof(int)}, {}, out.data(), side);
    const bool first_block_saw = out[10] == 10 + side, second_block_saw = out[64 + 10] == 10 + side;
    CHECK(first_block_saw != second_block_saw);
  }
}

__global__ void some_do_not_reach_kernel() {
  if (threadIdx.x < 3) return;
  __syncthreads();
}
__global__ void different_barriers_kernel() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void half_a_warp_kernel() {
  if (threadIdx.x < 16)
    __syncwarp();
  else
    __syncthreads();
}
__global__ void reads_outsider_kernel() {
  if (threadIdx.x < 4) __shfl_sync(0xfu, 1, 7);
}

std::string failure(void (*kernel)()) {
  try {
    launch("faulty", kernel, {dim3(1, 2), 32}, {});
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no failure";
}

TEST_CASE("simt: a barrier that not all reach is reported with its place") {
  const std::string message = failure(some_do_not_reach_kernel);
  CHECK(message.find("kernel faulty was not launched: in block (0, 0, 0) the block barrier at tests/simt/") == 0);
  CHECK(message.find("is reached by 29 of 32 threads, expected all") != std::string::npos);
  CHECK(failure(different_barriers_kernel).find("is reached by 16 of 32 threads") != std::string::npos);
  CHECK(failure(half_a_warp_kernel).find("the warp barrier") != std::string::npos);
  CHECK(failure(reads_outsider_kernel).find("reads lane 7, which takes no part") != std::string::npos);
}

TEST_CASE("simt: a launch after a failed one is sound") {
  failure(some_do_not_reach_kernel);
  std::vector<int> numbers(64, 2), sums(1);
  launch("sum", sum_kernel, {1, 64}, {}, numbers.data(), sums.data());
  CHECK(sums[0] == 128);
}

TEST_CASE("simt: launches beyond the limits of a device are refused") {
  int* none = nullptr;
  CHECK_THROWS_WITH(launch("sum", sum_kernel, {1, 2048}, {}, none, none),
                    "kernel sum was not launched: invalid configuration argument");
  CHECK_THROWS_WITH(launch("sum", sum_kernel, {0, 32}, {}, none, none),
                    "kernel sum was not launched: invalid configuration argument");
  CHECK_THROWS_WITH(launch("sum", sum_kernel, {1, 32, 1 << 20}, {}, none, none),
                    "kernel sum was not launched: invalid argument");
}

TEST_CASE("simt: float becomes the nearest half, ties to even") {
  for (unsigned bits = 0; bits < 0x7c00; ++bits) {
    const float value = float_from_f16(static_cast<std::uint16_t>(bits));
    const float next = bits + 1 == 0x7c00 ? 65536.0f : float_from_f16(static_cast<std::uint16_t>(bits + 1));
    const float middle = (value + next) / 2;
    REQUIRE(__float2half_rn(value).bits == bits);
    REQUIRE(__float2half_rn(-value).bits == (bits | 0x8000));
    REQUIRE(__float2half_rn(middle).bits == bits + bits % 2);
    REQUIRE(__float2half_rn(std::nextafter(middle, 0.0f)).bits == bits);
    REQUIRE(__float2half_rn(std::nextafter(middle, 1e9f)).bits == bits + 1);
  }
  CHECK(__float2half_rn(INFINITY).bits == 0x7c00);
  CHECK(std::isnan(__half2float(__float2half_rn(NAN))));
}

__global__ void no_kernel() { wait_for_predecessors(); }

__global__ void hasty_kernel() {}

TEST_CASE("simt: a launch raises what its kernel may have of shared memory, and never lowers it; early ones agree") {
  const auto attributes = [] {
    cudaFuncAttributes attributes{};
    cudaFuncGetAttributes(&attributes, no_kernel);
    return attributes;
  };
  launch("none", no_kernel, {1, 32}, {});
  CHECK(attributes().preferredShmemCarveout == cudaSharedmemCarveoutDefault);
  launch("none", no_kernel, {1, 32}, {nullptr, true});
  CHECK(attributes().preferredShmemCarveout == cudaSharedmemCarveoutMaxShared);
  for (const std::size_t kib : {100u, 200u, 60u}) launch("none", no_kernel, {1, 32, kib * 1024}, {});
  CHECK(attributes().maxDynamicSharedSizeBytes == 200 * 1024);
}

TEST_CASE("simt: a kernel that may start early and waits for nobody is reported") {
  launch("hasty", hasty_kernel, {1, 32}, {});
  CHECK_THROWS_WITH(
      launch("hasty", hasty_kernel, {1, 32}, {nullptr, true}),
      "kernel hasty was not launched: block (0, 0, 0) ends without having waited for the kernels before it");
  CHECK_NOTHROW(launch("none", no_kernel, {1, 32}, {nullptr, true}));
}

}  // namespace
}  // namespace damoyolo::kernels
