// The emulations of hopper.h: what the manual says of addresses, and the faults that must be reported. What the
// instructions do, tests/kernels/instructions_*_test.cu say, of them and of a GPU.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/simt/hopper_fixture.h"

namespace damoyolo::kernels {
namespace {

TEST_CASE("hopper: pieces of 16 bytes change places as the PTX manual's tables say") {
  // Over 128 bytes: row r has piece p at place p ^ r, for 8 rows of 128 bytes.
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned piece = 0; piece < 8; ++piece)
      CHECK(simt::swizzled(row * 128 + piece * 16 + 4, 128) == row * 128 + (piece ^ (row % 8)) * 16 + 4);
  // Over 64 bytes: four places, which change every two rows of 64 bytes; over 32: two, every four rows of 32.
  const unsigned over_64[] = {0, 1, 2, 3, 0, 1, 2, 3, 1, 0, 3, 2, 1, 0, 3, 2, 2, 3, 0, 1, 2, 3, 0, 1, 3, 2, 1, 0};
  for (unsigned i = 0; i < std::size(over_64); ++i) CHECK(simt::swizzled(i * 16, 64) == i / 4 * 64 + over_64[i] * 16);
  const unsigned over_32[] = {0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1};
  for (unsigned i = 0; i < std::size(over_32); ++i) CHECK(simt::swizzled(i * 16, 32) == i / 2 * 32 + over_32[i] * 16);
}

TEST_CASE("hopper: a descriptor has its fields where the PTX manual says") {
  const std::uint64_t descriptor = matrix_descriptor(0x12340, 128);
  CHECK((descriptor & 0x3fff) == 0x1234);
  CHECK(((descriptor >> 32) & 0x3fff) == 1024 / 16);
  CHECK(((descriptor >> 49) & 7) == 0);
  CHECK((descriptor >> 62) == 1);
  CHECK((matrix_descriptor(0, 64) >> 62) == 2);
  CHECK(((matrix_descriptor(0, 64) >> 32) & 0x3fff) == 512 / 16);
  CHECK((matrix_descriptor(0, 32) >> 62) == 3);
}

__global__ void nobody_arrives_kernel(CUtensorMap, float*) {
  if (threadIdx.x == 0) mbarrier_init(barrier(), 2);
  __syncthreads();
  if (threadIdx.x == 0) mbarrier_arrive(barrier());
  mbarrier_wait(barrier(), 0);
}
__global__ void too_many_arrive_kernel(CUtensorMap, float*) {
  mbarrier_init(barrier(), 1);
  mbarrier_arrive_expect(barrier(), 16);
  mbarrier_arrive(barrier());
}
__global__ void misplaced_barrier_kernel(CUtensorMap, float*) { mbarrier_init(barrier() + 4, 1); }

TEST_CASE("hopper: waits without end and misused barriers are reported") {
  const std::string stuck = run(nobody_arrives_kernel, {.threads = 4});
  CHECK(contains(stuck, "in block (0, 0, 0) 4 of 4 threads wait at tests/simt/hopper_test.cpp:"));
  CHECK(contains(stuck, "for a phase of a barrier in shared memory, which never comes"));
  CHECK(contains(run(too_many_arrive_kernel, {.threads = 1}), "one more arrives at the barrier"));
  CHECK(contains(run(misplaced_barrier_kernel, {.threads = 1}), "is not at a multiple of 8 bytes"));
}

// 3 rows of 4 pixels of 64 channels, all 1.
struct Ones {
  std::vector<std::uint16_t> values = std::vector<std::uint16_t>(3 * 4 * 64, bf16_from_float(1));
  CUtensorMap map() const {
    TensorMap map;
    map.data = values.data();
    map.rank = 3;
    map.size = {64, 4, 3};
    map.strides = {128, 4 * 128};
    map.box = {64, 3, 2};
    return encode(map, "test");
  }
};

__global__ void no_wait_kernel(CUtensorMap map, float* out) {
  mbarrier_init(barrier(), 1);
  mbarrier_arrive_expect(barrier(), 128 * 3 * 2);
  tensor_load(room(), map, barrier(), 0, 0, 0);
  std::uint16_t first = 0;
  std::memcpy(&first, simt::shared_pointer(room(), 2), 2);
  out[blockIdx.x] = float_from_bf16(first);
  mbarrier_wait(barrier(), 0);
}
__global__ void no_end_kernel(CUtensorMap map, float*) {
  mbarrier_init(barrier(), 1);
  mbarrier_arrive_expect(barrier(), 128 * 3 * 2);
  tensor_load(room(), map, barrier(), 0, 0, 0);
}
__global__ void misplaced_box_kernel(CUtensorMap map, float*) {
  mbarrier_init(barrier(), 1);
  tensor_load(room() + 512, map, barrier(), 0, 0, 0);
}
__global__ void wrong_bytes_kernel(CUtensorMap map, float*) {
  mbarrier_init(barrier(), 1);
  mbarrier_arrive_expect(barrier(), 128);
  tensor_load(room(), map, barrier(), 0, 0, 0);
  mbarrier_wait(barrier(), 0);
}

TEST_CASE("hopper: copies that nobody waits for, or at wrong places, show") {
  const Ones tensor;
  const CUtensorMap map = tensor.map();
  std::vector<float> seen(2);
  CHECK(run(no_wait_kernel, {.threads = 1, .map = map, .out = seen.data()}) == "");
  CHECK((seen[0] == 1.0f) != (seen[1] == 1.0f));  // too early in one block or the other
  const std::string unfinished =
      run(no_end_kernel, {.threads = 1, .map = map}) + run(no_end_kernel, {.threads = 1, .clusters = 1, .map = map});
  CHECK(contains(unfinished, "a block ended before 1 of its copies had come"));
  CHECK(
      contains(run(misplaced_box_kernel, {.threads = 1, .map = map}), "expected a multiple of 1024 for its swizzle"));
  CHECK(run(wrong_bytes_kernel, {.threads = 1, .map = map}) != "");
}

__global__ void no_fence_kernel(CUtensorMap, float*) {
  float sums[4][4] = {};
  wgmma<__nv_bfloat16, 32>(sums, matrix_descriptor(room(), 128), matrix_descriptor(room(), 128));
}
__global__ void half_a_warpgroup_kernel(CUtensorMap, float*) {
  if (threadIdx.x < 64) wgmma_wait<0>();
}
__global__ void different_products_kernel(CUtensorMap, float*) {
  float sums[4][4] = {};
  wgmma_fence();
  wgmma<__nv_bfloat16, 32>(sums, matrix_descriptor(room() + threadIdx.x / 32 * 16, 128),
                           matrix_descriptor(room(), 128));
}
__global__ void no_product_wait_kernel(CUtensorMap, float* out) {
  float sums[4][4] = {};
  wgmma_fence();
  wgmma<__nv_bfloat16, 32>(sums, matrix_descriptor(room(), 128), matrix_descriptor(room(), 128));
  wgmma_commit();
  out[0] = sums[0][0];
}

TEST_CASE("hopper: products that a device would not define are reported") {
  std::vector<float> out(1);
  CHECK(contains(run(no_fence_kernel, {.threads = 128}), "uses its registers in wgmma without a fence"));
  CHECK(contains(run(half_a_warpgroup_kernel, {.threads = 128}), "64 of 128 threads wait"));
  CHECK(contains(run(different_products_kernel, {.threads = 128}),
                 "issues another wgmma than the rest of its warpgroup"));
  CHECK(contains(run(no_product_wait_kernel, {.threads = 128, .out = out.data()}),
                 "a block ended before 1 of its products"));
}

__global__ void wrong_count_kernel(CUtensorMap, float*) { named_barrier(1, 96); }

TEST_CASE("hopper: a named barrier that not all reach is reported") {
  CHECK(contains(run(wrong_count_kernel, {.threads = 64}), "for the rest of a named barrier, which never comes"));
}

}  // namespace
}  // namespace damoyolo::kernels
