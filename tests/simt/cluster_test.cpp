// Clusters of blocks on the host: the faults that must be reported or show.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/simt/hopper_fixture.h"

namespace damoyolo::kernels {
namespace {

constexpr Launch kPairs{.clusters = 4, .cluster = 2};

void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}
float word_at(std::uint32_t address) {
  float word = 0;
  std::memcpy(&word, simt::shared_pointer(address, 4), 4);
  return word;
}

// Block r writes where block r + 1 reads without waiting for it.
__global__ void neighbour_kernel(CUtensorMap, float* out) {
  if (threadIdx.x == 0) {
    mbarrier_init(barrier(), 1);
    mbarrier_arrive_expect(barrier(), blockDim.x * 8);
  }
  cluster_barrier();
  const int neighbour = (cluster_rank() + 1) % simt::cluster_size();
  const std::uint32_t place = room() + threadIdx.x * 8;
  store_async(shared_address_in(place, neighbour), shared_address_in(barrier(), neighbour),
              static_cast<float>(cluster_rank()), 0);
  out[blockIdx.x * blockDim.x + threadIdx.x] = word_at(place);
  mbarrier_wait_cluster(barrier(), 0);
}

TEST_CASE("cluster: a missing wait shows") {
  constexpr std::size_t kThreads = 32;
  std::vector<float> seen(8 * kThreads);
  CHECK(run(neighbour_kernel, {.clusters = 4, .cluster = 2, .out = seen.data()}) == "");
  std::size_t right = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) right += seen[i] == static_cast<float>(1 - i / kThreads % 2);
  CHECK(right < seen.size() / 2);
}

// 64 rows of 64 numbered elements.
struct Rows {
  std::vector<std::uint16_t> values = std::vector<std::uint16_t>(64 * 64);
  Rows() {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i + 1);
  }
  CUtensorMap map() const {
    TensorMap map;
    map.data = values.data();
    map.rank = 3;
    map.size = {64, 64, 1};
    map.strides = {128, 64 * 128};
    map.box = {64, 8, 1};
    return encode(map, "test");
  }
};
constexpr unsigned kBoxBytes = 64 * 8 * 2;

std::uint16_t first_element() {
  std::uint16_t bits = 0;
  std::memcpy(&bits, simt::shared_pointer(room(), 2), 2);
  return bits;
}

// Block 0 brings both blocks two boxes to the same place, and does not wait until block 1 has read the first.
__global__ void refill_kernel(CUtensorMap map, float* out) {
  const std::uint32_t full = barrier(), empty = barrier() + 8;
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init(empty, 2);
  }
  cluster_barrier();
  if (threadIdx.x == 0) {
    for (unsigned turn = 0; turn < 2; ++turn) {
      mbarrier_arrive_expect(full, kBoxBytes);
      if (cluster_rank() == 0) tensor_load_multicast(room(), map, full, 0b11, 0, static_cast<int>(8 * turn), 0);
      mbarrier_wait(full, turn);
      out[blockIdx.x * 2 + turn] = first_element();
      if (turn > 0) break;
      for (int rank = 0; rank < 2; ++rank) mbarrier_arrive_cluster(shared_address_in(empty, rank));
    }
    mbarrier_wait(empty, 0);
  }
  cluster_barrier();
}

TEST_CASE("cluster: filling another block's buffer before it has been read shows") {
  const Rows rows;
  std::vector<float> seen(2 * 2);
  int shown = 0;  // where copies come at once, which is in every other cluster
  for (int cluster = 0; cluster < 4; ++cluster)
    if (run(refill_kernel, {.clusters = 1, .cluster = 2, .map = rows.map(), .out = seen.data()}) != "" || seen[2] != 1)
      ++shown;
  CHECK(shown == 2);
}

__global__ void elect_kernel(CUtensorMap, float* out) {
  if (elect_one()) out[blockIdx.x] = static_cast<float>(threadIdx.x);
}
__global__ void half_elects_kernel(CUtensorMap, float*) {
  if (threadIdx.x < 16) elect_one();
}

TEST_CASE("cluster: a warp elects not always its first lane, and only as a whole") {
  std::vector<float> elected(4);
  CHECK(run(elect_kernel, {.clusters = 4, .out = elected.data()}) == "");
  CHECK(std::count(elected.begin(), elected.end(), 0.0f) == 2);
  CHECK(contains(run(half_elects_kernel, kPairs), "the warp "));
}

void send(std::uint32_t to, int rank) {
  store_async(shared_address_in(to, rank), shared_address_in(barrier(), rank), 1, 1);
}
__global__ void no_first_barrier_kernel(CUtensorMap, float*) {
  send(room(), 1 - cluster_rank());
  cluster_barrier();
}
__global__ void no_last_barrier_kernel(CUtensorMap, float*) {
  mbarrier_init(barrier(), 1);
  cluster_barrier();
  send(room(), 1 - cluster_rank());
}
// Block 0 waits for the copy to both, block 1 does not. That is no fault where copies come at once.
__global__ void late_copy_kernel(CUtensorMap map, float*) {
  mbarrier_init(barrier(), 1);
  cluster_barrier();
  if (cluster_rank() == 1) return;
  mbarrier_arrive_expect(barrier(), kBoxBytes);
  tensor_load_multicast(room(), map, barrier(), 0b11, 0, 0, 0);
  mbarrier_wait(barrier(), 0);
}
__global__ void outside_kernel(CUtensorMap, float*) {
  cluster_barrier();
  send(room(), 2);
}
__global__ void outside_mask_kernel(CUtensorMap map, float*) {
  cluster_barrier();
  tensor_load_multicast(room(), map, barrier(), 0b110, 0, 0, 0);
}
__global__ void waits_elsewhere_kernel(CUtensorMap, float*) {
  cluster_barrier();
  mbarrier_wait(shared_address_in(barrier(), 1 - cluster_rank()), 0);
}
__global__ void misplaced_packet_kernel(CUtensorMap, float*) { send(room() + 4, cluster_rank()); }
__global__ void split_packet_kernel(CUtensorMap, float*) {
  cluster_barrier();
  store_async(shared_address_in(room(), 0), shared_address_in(barrier(), 1), 1, 1);
}

// Block 0 arrives at the barrier of block 1, which does not wait for it.
__global__ void late_arrival_kernel(CUtensorMap, float*) {
  if (threadIdx.x == 0) mbarrier_init(barrier(), 2);
  cluster_barrier();
  if (cluster_rank() == 0 && threadIdx.x == 0) mbarrier_arrive_cluster(shared_address_in(barrier(), 1));
  cluster_barrier();
}

TEST_CASE("cluster: uses of shared memory that a device would not define are reported") {
  const Rows rows;
  CHECK(contains(run(no_first_barrier_kernel, kPairs), "before a cluster barrier"));
  CHECK(contains(run(no_last_barrier_kernel, kPairs), "ended"));
  CHECK(contains(run(late_copy_kernel, {.threads = 1, .clusters = 4, .cluster = 2, .map = rows.map()}), "ended"));
  CHECK(contains(run(late_arrival_kernel, kPairs), "a block ended before 1 arrivals"));
  CHECK(contains(run(outside_kernel, kPairs), "is of block 2 of a cluster of 2"));
  CHECK(contains(run(outside_mask_kernel, {.threads = 1, .cluster = 2, .map = rows.map()}),
                 "of which a cluster of 2 has not all"));
  CHECK(contains(run(waits_elsewhere_kernel, kPairs), "where only its own will do"));
  CHECK(contains(run(misplaced_packet_kernel, kPairs), "expected a multiple of 8 in the same block"));
  CHECK(contains(run(split_packet_kernel, kPairs), "expected a multiple of 8 in the same block"));
}

__global__ void one_block_does_not_arrive_kernel(CUtensorMap, float*) {
  if (cluster_rank() == 1) {
    mbarrier_init(barrier(), 64);
    __syncthreads();
    mbarrier_wait(barrier(), 0);
  }
  cluster_barrier();
}
__global__ void half_a_warp_arrives_kernel(CUtensorMap, float*) {
  if (threadIdx.x < 16) cluster_arrive();
  __syncthreads();
}
__global__ void arrives_twice_kernel(CUtensorMap, float*) {
  cluster_arrive();
  cluster_arrive();
}
__global__ void waits_without_arrival_kernel(CUtensorMap, float*) { cluster_wait(); }
__global__ void ends_without_arrival_kernel(CUtensorMap, float*) {
  if (threadIdx.x % 2 == 0 || cluster_rank() == 1) return;
  cluster_barrier();
}

TEST_CASE("cluster: a cluster barrier that not all reach is reported with both places") {
  const std::string message = run(one_block_does_not_arrive_kernel, kPairs);
  CHECK(contains(message, "in block (0, 0, 0) the cluster barrier at tests/simt/cluster_test.cpp:"));
  CHECK(
      contains(message, "is not reached by a thread of block (1, 0, 0), which waits at tests/simt/cluster_test.cpp:"));
  CHECK(contains(run(half_a_warp_arrives_kernel, kPairs), "is reached by 16 of 32 threads"));
  CHECK(contains(run(arrives_twice_kernel, kPairs), "before it has waited for the cluster barrier"));
  CHECK(contains(run(waits_without_arrival_kernel, kPairs), "for a cluster barrier at which it has not arrived"));
  CHECK(run(ends_without_arrival_kernel, kPairs) == "");
}

TEST_CASE("cluster: launches beyond the limits of a device are refused") {
  const auto refused = [](dim3 grid, unsigned cluster) {
    CHECK_THROWS_WITH(launch("elect", elect_kernel, {grid, 32, 0, cluster}, {}, CUtensorMap{}, nullptr),
                      "kernel elect was not launched: invalid configuration argument");
  };
  refused({7, 2}, 2);
  refused(9, 9);
  refused(8, 0);
}

}  // namespace
}  // namespace damoyolo::kernels
