// Bulk tensor stores on the host: the faults that must be reported or show.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/simt/hopper_fixture.h"

namespace damoyolo::kernels {
namespace {

// 2 images of 3 rows of 4 pixels of 16 channels.
struct Target {
  static constexpr std::size_t kImage = 3 * 4 * 16;
  std::vector<std::uint16_t> values = std::vector<std::uint16_t>(2 * kImage);
  CUtensorMap map(unsigned step = 1) {
    TensorMap map;
    map.data = values.data();
    map.rank = 4;
    map.size = {16, 4, 3, 2};
    map.strides = {32, 4 * 32, 3 * 4 * 32};
    map.box = {16, 3, 2, 1};
    map.steps = {1, step, 1, 1, 1};
    map.span = 32;
    return encode(map, "test");
  }
};

void fill_box(std::uint32_t box, std::uint16_t value) {
  for (std::uint32_t i = 0; i < 16 * 3 * 2; ++i) std::memcpy(simt::shared_pointer(box + i * 2, 2), &value, 2);
}

// Fills the box again without waiting until it has been read.
__global__ void refill_kernel(CUtensorMap map, float*) {
  const auto image = static_cast<int>(blockIdx.x);
  fill_box(room(), 100);
  fence_async_shared();
  tensor_store(map, room(), 0, 0, 0, image);
  store_commit();
  fill_box(room(), 300);
  store_wait_read<0>();
}

TEST_CASE("store: a box that is filled again before it was read shows") {
  Target target;
  CHECK(run(refill_kernel, {.threads = 1, .map = target.map()}) == "");
  CHECK(target.values[0] + target.values[Target::kImage] == 400);
}

// A warp writes a box by stmatrix; all fence what they have written, or all but one.
template <int Unfenced>
__device__ void write_box() {
  const auto lane = static_cast<int>(threadIdx.x) % 32;
  stmatrix_x4(simt::shared_pointer(room() + static_cast<std::uint32_t>(lane) * 16, 16), {1, 2, 3, 4});
  if (lane != Unfenced) fence_async_shared();
}
template <int Unfenced>
__global__ void store_written_kernel(CUtensorMap map, float*) {
  write_box<Unfenced>();
  __syncthreads();
  if (threadIdx.x != 0) return;
  tensor_store(map, room(), 0, 0, 0, 0);
  store_commit();
  store_wait_read<0>();
}
template <int Unfenced>
__global__ void load_over_written_kernel(CUtensorMap map, float*) {
  if (threadIdx.x == 0) mbarrier_init(barrier(), 1);
  write_box<Unfenced>();
  __syncthreads();
  if (threadIdx.x != 0) return;
  mbarrier_arrive_expect(barrier(), 16 * 3 * 2 * 2);
  tensor_load(room(), map, barrier(), 0, 0, 0, 0);
  mbarrier_wait(barrier(), 0);
}
template <int Unfenced>
__global__ void multiply_written_kernel(CUtensorMap, float*) {
  if (threadIdx.x < 32) write_box<Unfenced>();
  __syncthreads();
  float sums[4][4] = {};
  wgmma_fence();
  wgmma<__nv_bfloat16, 32>(sums, matrix_descriptor(room() + 4096, 32), matrix_descriptor(room(), 32));
  wgmma_commit();
  wgmma_wait<0>();
}

TEST_CASE("store: what a thread has written and not fenced is reported wherever it is used past threads") {
  Target target;
  const auto outcome = [&](auto* kernel, unsigned threads) {
    return run(kernel, {.threads = threads, .clusters = 1, .map = target.map()});
  };
  const char* fault = "thread 5 has written to shared memory and not fenced it";
  CHECK(outcome(store_written_kernel<32>, 32) == "");
  CHECK(contains(outcome(store_written_kernel<5>, 32), fault));
  CHECK(outcome(load_over_written_kernel<32>, 32) == "");
  CHECK(contains(outcome(load_over_written_kernel<5>, 32), fault));
  CHECK(outcome(multiply_written_kernel<32>, 128) == "");
  CHECK(contains(outcome(multiply_written_kernel<5>, 128), fault));
}

__global__ void prefetch_kernel(CUtensorMap map, float*) { prefetch_tensor_map(map); }

TEST_CASE("store: a tensor map that was never encoded is not prefetched") {
  CHECK(run(prefetch_kernel, {.threads = 1, .map = Target{}.map()}) == "");
  CHECK(contains(run(prefetch_kernel, {.threads = 1}), "that was never encoded"));
}

__global__ void no_wait_kernel(CUtensorMap map, float*) {
  tensor_store(map, room(), 0, 0, 0, 0);
  tensor_store(map, room() + 1024, 0, 0, 0, 1);
  store_commit();
  store_wait_read<1>();
}
__global__ void no_commit_kernel(CUtensorMap map, float*) {
  tensor_store(map, room(), 0, 0, 0, 0);
  store_wait_read<0>();
}
__global__ void another_waits_kernel(CUtensorMap map, float*) {
  if (threadIdx.x == 0) {
    tensor_store(map, room(), 0, 0, 0, 0);
    store_commit();
  }
  __syncthreads();
  if (threadIdx.x == 1) store_wait_read<0>();
}
__global__ void misplaced_kernel(CUtensorMap map, float*) { tensor_store(map, room() + 64, 0, 0, 0, 0); }

TEST_CASE("store: what a device would not define is reported") {
  Target target;
  for (int turn = 0; turn < 2; ++turn) {
    CHECK(contains(run(no_wait_kernel, {.threads = 1, .clusters = 1, .map = target.map()}),
                   "ended before it had waited until 2 of its stores"));
    CHECK(contains(run(no_commit_kernel, {.threads = 1, .clusters = 1, .map = target.map()}),
                   "ended before it had waited until 1 of its stores"));
    CHECK(contains(run(another_waits_kernel, {.threads = 2, .clusters = 1, .map = target.map()}),
                   "until 1 of its stores"));
    CHECK(contains(run(misplaced_kernel, {.threads = 1, .clusters = 1, .map = target.map()}),
                   "expected a multiple of 256 for its swizzle"));
    CHECK(contains(run(no_commit_kernel, {.threads = 1, .clusters = 1, .map = target.map(2)}),
                   "a tensor map with steps"));
  }
}

}  // namespace
}  // namespace damoyolo::kernels
