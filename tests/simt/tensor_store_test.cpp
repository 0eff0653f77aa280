// Bulk tensor stores on the host.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/simt/hopper_fixture.h"

namespace damoyolo::kernels {
namespace {

// 2 images of 3 rows of 4 pixels of 20 of 24 channels, at first 9 everywhere.
struct Target {
  std::vector<std::uint16_t> values = std::vector<std::uint16_t>(2 * 3 * 4 * 24, 9);
  CUtensorMap map(int span, unsigned step = 1) {
    TensorMap map;
    map.data = values.data();
    map.rank = 4;
    map.size = {20, 4, 3, 2};
    map.strides = {48, 4 * 48, 3 * 4 * 48};
    map.box = {static_cast<unsigned>(span) / 2, 3, 2, 1};
    map.steps = {1, step, 1, 1, 1};
    map.span = span;
    return encode(map, "test");
  }
  std::uint16_t at(int image, int row, int column, int channel) const {
    return values[static_cast<std::size_t>(((image * 3 + row) * 4 + column) * 24 + channel)];
  }
};

// Element i of the box, through the swizzle, becomes first + i.
template <int Span>
void fill(std::uint32_t box, int first) {
  for (std::uint32_t i = threadIdx.x; i < Span / 2 * 3 * 2; i += blockDim.x) {
    const auto value = static_cast<std::uint16_t>(static_cast<std::uint32_t>(first) + i);
    std::memcpy(simt::shared_pointer(simt::swizzled(box + i * 2, Span), 2), &value, 2);
  }
}

// The box starts at channel 8, column 2, row -1 of image 1, so that it hangs out on three sides.
template <int Span>
__global__ void store_kernel(CUtensorMap map, float*) {
  fill<Span>(room(), 100);
  fence_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    tensor_store(map, room(), 8, 2, -1, 1);
    store_commit();
    store_wait_read<0>();
  }
}

template <int Span>
void check_box() {
  for (int turn = 0; turn < 2; ++turn) {
    Target target;
    CHECK(run(store_kernel<Span>, {.threads = 64, .clusters = 1, .map = target.map(Span)}) == "");
    for (int image = 0; image < 2; ++image)
      for (int row = 0; row < 3; ++row)
        for (int column = 0; column < 4; ++column)
          for (int channel = 0; channel < 24; ++channel) {
            const int width = Span / 2, i = ((row + 1) * 3 + column - 2) * width + channel - 8;
            const bool inside = image == 1 && row < 1 && column >= 2 && channel >= 8 && channel < min(8 + width, 20);
            CHECK(target.at(image, row, column, channel) == (inside ? 100 + i : 9));
          }
  }
}

TEST_CASE("store: a box goes to the tensor, and nothing outside is written") {
  check_box<32>();
  check_box<64>();
  check_box<128>();
}

// Fills the box again without waiting until it has been read, or after.
template <bool Wait>
__global__ void refill_kernel(CUtensorMap map, float*) {
  const auto image = static_cast<int>(blockIdx.x);
  fill<32>(room(), 100);
  fence_async_shared();
  tensor_store(map, room(), 0, 0, 0, image);
  store_commit();
  if (Wait) store_wait_read<0>();
  fill<32>(room(), 300);
  store_wait_read<0>();
}

TEST_CASE("store: a box that is filled again before it was read shows") {
  Target with, without;
  CHECK(run(refill_kernel<true>, {.threads = 1, .map = with.map(32)}) == "");
  CHECK(run(refill_kernel<false>, {.threads = 1, .map = without.map(32)}) == "");
  CHECK(with.at(0, 0, 0, 0) == 100);
  CHECK(with.at(1, 0, 0, 0) == 100);
  CHECK(without.at(0, 0, 0, 0) + without.at(1, 0, 0, 0) == 400);
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
    CHECK(contains(run(no_wait_kernel, {.threads = 1, .clusters = 1, .map = target.map(32)}),
                   "ended before it had waited until 2 of its stores"));
    CHECK(contains(run(no_commit_kernel, {.threads = 1, .clusters = 1, .map = target.map(32)}),
                   "ended before it had waited until 1 of its stores"));
    CHECK(contains(run(another_waits_kernel, {.threads = 2, .clusters = 1, .map = target.map(32)}),
                   "until 1 of its stores"));
    CHECK(contains(run(misplaced_kernel, {.threads = 1, .clusters = 1, .map = target.map(32)}),
                   "expected a multiple of 256 for its swizzle"));
    CHECK(contains(run(store_kernel<32>, {.threads = 1, .clusters = 1, .map = target.map(32, 2)}),
                   "a tensor map with steps"));
  }
}

}  // namespace
}  // namespace damoyolo::kernels
