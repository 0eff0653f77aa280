// The emulations of hopper.h themselves: what they must do, and the faults they must report.
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

__global__ void phases_kernel(CUtensorMap, float* out) {
  if (threadIdx.x == 0) mbarrier_init(barrier(), 3);
  __syncthreads();
  for (unsigned phase = 0; phase < 4; ++phase) {
    mbarrier_wait(barrier(), phase % 2 ^ 1);
    out[blockIdx.x * 3 + threadIdx.x] += 1;
    mbarrier_arrive(barrier());
    mbarrier_wait(barrier(), phase % 2);
    // Nobody arrives in the next phase before all have arrived in this one.
    for (unsigned i = 0; i < 3; ++i)
      if (out[blockIdx.x * 3 + i] < static_cast<float>(phase + 1)) out[blockIdx.x * 3 + i] = -100;
  }
}

TEST_CASE("hopper: a barrier's phases end one after another") {
  std::vector<float> counts(6);
  CHECK(run(phases_kernel, {.threads = 3, .out = counts.data()}) == "");
  CHECK(counts == std::vector<float>(6, 4.0f));
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

// 3 rows of 4 pixels of 20 channels, numbered.
struct Numbered {
  std::vector<std::uint16_t> values = std::vector<std::uint16_t>(3 * 4 * 24);
  Numbered() {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = bf16_from_float(static_cast<float>(i % 24 < 20 ? i / 24 * 20 + i % 24 + 1 : 1000));
  }
  CUtensorMap map(unsigned step, int span) const {
    TensorMap map;
    map.data = values.data();
    map.rank = 3;
    map.size = {20, 4, 3};
    map.strides = {48, 192};
    map.box = {static_cast<unsigned>(span) / 2, 3, 2};
    map.steps = {1, step, step, 1, 1};
    map.span = span;
    return encode(map, "test");
  }
};

// Brings the box that starts at channel 0, column -1, row -1, and unswizzles it.
template <int Span>
__global__ void load_kernel(CUtensorMap map, float* out) {
  constexpr int kBytes = Span * 3 * 2;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier(), 1);
    mbarrier_arrive_expect(barrier(), kBytes);
    tensor_load(room(), map, barrier(), 0, -1, -1);
  }
  __syncthreads();
  mbarrier_wait(barrier(), 0);
  for (unsigned i = threadIdx.x; i < kBytes / 2; i += blockDim.x) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, simt::shared_pointer(simt::swizzled(room() + i * 2, Span), 2), 2);
    out[i] = float_from_bf16(bits);
  }
}

template <int Span>
void check_box(unsigned step) {
  constexpr int kWidth = Span / 2;
  const Numbered tensor;
  std::vector<float> box(kWidth * 3 * 2, -1.0f);
  CHECK(run(load_kernel<Span>, {.map = tensor.map(step, Span), .out = box.data()}) == "");
  for (int row = 0; row < 2; ++row)
    for (int column = 0; column < 3; ++column)
      for (int channel = 0; channel < kWidth; ++channel) {
        const int y = row * static_cast<int>(step) - 1, x = column * static_cast<int>(step) - 1;
        const bool inside = y >= 0 && y < 3 && x >= 0 && x < 4 && channel < 20;
        CHECK(box[static_cast<std::size_t>((row * 3 + column) * kWidth + channel)] ==
              (inside ? float_from_bf16(bf16_from_float(static_cast<float>((y * 4 + x) * 20 + channel + 1))) : 0.0f));
      }
}

TEST_CASE("hopper: a copy brings a box, zeros outside the tensor, every so many-th element") {
  check_box<128>(1);
  check_box<128>(2);
  check_box<64>(1);
  check_box<32>(2);
}

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
  const Numbered tensor;
  const CUtensorMap map = tensor.map(1, 128);
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

// Row r of a holds 1 at product r % 32; b's row n holds its numbers n + 64·k at products k < 32, both 64 wide and
// written through the swizzle. So sums[r][n] = n + 64·(r % 32).
__global__ void product_kernel(CUtensorMap, float* out) {
  const std::uint32_t a = room(), b = a + 64 * 128;
  const auto write = [](std::uint32_t factor, unsigned row, unsigned k, float value) {
    const std::uint16_t bits = bf16_from_float(value);
    std::memcpy(simt::shared_pointer(simt::swizzled(factor + row * 128 + k * 2, 128), 2), &bits, 2);
  };
  if (threadIdx.x < 64)
    for (unsigned k = 0; k < 64; ++k) write(a, threadIdx.x, k, k == threadIdx.x % 32 ? 1.0f : 0.0f);
  else if (threadIdx.x < 96)
    for (unsigned k = 0; k < 64; ++k)
      write(b, threadIdx.x - 64, k, k < 32 ? static_cast<float>((threadIdx.x - 64) / 4 + k * 8) : 7.0f);
  __syncthreads();
  float sums[4][4] = {};
  wgmma_fence();
  for (unsigned k = 0; k < 64; k += 16)
    wgmma<__nv_bfloat16, 32>(sums, matrix_descriptor(a, 128) + (k * 2 >> 4), matrix_descriptor(b, 128) + (k * 2 >> 4));
  wgmma_commit();
  wgmma_wait<0>();
  const unsigned thread = threadIdx.x;
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned h = 0; h < 2; ++h)
      for (unsigned e = 0; e < 2; ++e) {
        const unsigned row = thread / 32 * 16 + h * 8 + thread % 32 / 4, column = 8 * i + thread % 4 * 2 + e;
        out[row * 32 + column] = sums[i][2 * h + e];
      }
}

TEST_CASE("hopper: products take their factors from swizzled rows and leave their sums where the manual says") {
  std::vector<float> sums(64 * 32);
  CHECK(run(product_kernel, {.threads = 128, .out = sums.data()}) == "");
  for (std::size_t row = 0; row < 64; ++row)
    for (std::size_t column = 0; column < 32; ++column)
      CHECK(sums[row * 32 + column] == static_cast<float>(column / 4 + row % 32 * 8));
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

// Each thread reads what another of its half has written before the barrier. Half 1 comes once more than half 0.
__global__ void named_barrier_kernel(CUtensorMap, float* out) {
  const unsigned half = threadIdx.x / 64;
  auto* const shared = dynamic_shared<float>();
  if (half == 1) named_barrier(2, 64);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  named_barrier(static_cast<int>(1 + half), 64);
  out[threadIdx.x] = shared[threadIdx.x ^ 63];
}
__global__ void wrong_count_kernel(CUtensorMap, float*) { named_barrier(1, 96); }

TEST_CASE("hopper: a named barrier is its threads' alone") {
  std::vector<float> out(128, -1.0f);
  CHECK(run(named_barrier_kernel, {.threads = 128, .out = out.data()}) == "");
  for (std::size_t i = 0; i < 128; ++i) CHECK(out[i] == static_cast<float>(i ^ 63));
  CHECK(contains(run(wrong_count_kernel, {.threads = 64}), "for the rest of a named barrier, which never comes"));
}

}  // namespace
}  // namespace damoyolo::kernels
