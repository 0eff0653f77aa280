// Clusters: blocks that use each other's shared memory and barriers.
#include "tests/kernels/instructions.cuh"

namespace damoyolo::kernels {
namespace {

__device__ __forceinline__ void cluster_barrier() {
  __syncwarp();
  cluster_arrive();
  cluster_wait();
}

// Threads count, and each block says how many of its cluster had counted when it passed the cluster's barrier.
struct MeetInCluster {
  static constexpr int kCapability = 90, kThreads = 64;
  int size;
  unsigned* counters;  // of each cluster
  int* out;            // of each block: its rank, and what it counted

  __device__ __forceinline__ void operator()() const {
    unsigned* const counter = counters + static_cast<int>(blockIdx.x) / size;
    atomicAdd(counter, 1u);
    __threadfence();
    cluster_arrive();
    if (threadIdx.x == 0) out[2 * blockIdx.x] = cluster_rank();  // between the barrier's halves
    __syncwarp();
    cluster_wait();
    if (threadIdx.x == 0) out[2 * blockIdx.x + 1] = static_cast<int>(atomicAdd(counter, 0u));
  }
};

KERNEL_TEST_CASE("instructions: ranks count the neighbours of a cluster, and nobody passes its barrier before all") {
  if (!can_run(90)) return;
  for (const int size : {1, 2, 3, 4, 8}) {
    CAPTURE(size);
    const DeviceArray<unsigned> counters(kBlocks);
    const DeviceArray<int> out(kBlocks * 2 * static_cast<std::size_t>(size));
    run(MeetInCluster{size, counters.data(), out.data()},
        {.blocks = kBlocks * static_cast<unsigned>(size), .cluster = static_cast<unsigned>(size)});
    std::vector<int> want;
    for (int rank = 0; rank < size; ++rank) {
      want.push_back(rank);
      want.push_back(size * MeetInCluster::kThreads);
    }
    check_elements(out.download(), want, 2);
  }
}

// Every thread sends its block's number and its own to all blocks of the cluster, and adds up what it gets.
struct SendToAll {
  static constexpr int kCapability = 90, kThreads = 64;
  int size;
  float* out;  // of each thread: two sums

  __device__ __forceinline__ void operator()() const {
    wait_for_predecessors();
    const SharedMemory shared;
    make_barriers(shared, 1);
    if (threadIdx.x == 0) mbarrier_arrive_expect(shared.barrier(), size * kThreads * 8);
    cluster_barrier();
    const auto place = [&](int rank) { return (rank * kThreads + threadIdx.x) * 8; };
    for (int rank = 0; rank < size; ++rank)
      store_async(shared_address_in(shared.room + place(cluster_rank()), rank),
                  shared_address_in(shared.barrier(), rank), static_cast<float>(blockIdx.x),
                  static_cast<float>(threadIdx.x));
    mbarrier_wait_cluster(shared.barrier(), 0);
    float sums[2] = {};
    for (int rank = 0; rank < size; ++rank)
      for (int i = 0; i < 2; ++i) {
        float value;
        __builtin_memcpy(&value, shared.bytes + place(rank) + 4 * i, 4);
        sums[i] += value;
      }
    for (int i = 0; i < 2; ++i) out[(blockIdx.x * kThreads + threadIdx.x) * 2 + i] = sums[i];
  }
};

void check_send(bool overlap) {
  if (!can_run(90)) return;
  for (const int size : {1, 2, 3, 8}) {
    CAPTURE(size);
    const auto blocks = kBlocks * static_cast<unsigned>(size);
    const DeviceArray<float> out(blocks * SendToAll::kThreads * 2);
    run(SendToAll{size, out.data()}, {blocks, static_cast<unsigned>(size), overlap});
    std::vector<float> want;
    for (int block = 0; block < static_cast<int>(blocks); ++block)
      for (int thread = 0; thread < SendToAll::kThreads; ++thread) {
        want.push_back(static_cast<float>(block / size * size * size + size * (size - 1) / 2));
        want.push_back(static_cast<float>(thread * size));
      }
    check_elements(out.download(), want, SendToAll::kThreads * 2);
  }
}

KERNEL_TEST_CASE("instructions: st.async brings 8 bytes to another block and counts at its barrier") {
  check_send(false);
}
KERNEL_TEST_CASE("instructions: a launch has a cluster and overlaps its predecessor") { check_send(can_overlap()); }

// The last block of a cluster waits until all threads of all blocks have arrived at its barrier.
struct ArriveAtLast {
  static constexpr int kCapability = 90, kThreads = 64, kSize = 4;
  unsigned *counters, *out;  // of each cluster

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    const unsigned cluster = blockIdx.x / kSize;
    make_barriers(shared, kSize * kThreads);
    cluster_barrier();
    atomicAdd(counters + cluster, 1u);
    __threadfence();
    mbarrier_arrive_cluster(shared_address_in(shared.barrier(), kSize - 1));
    if (cluster_rank() == kSize - 1) {
      mbarrier_wait_cluster(shared.barrier(), 0);
      const unsigned counted = atomicAdd(counters + cluster, 0u);
      if (threadIdx.x == 0 || counted != kSize * kThreads) out[cluster] = counted;
    }
    cluster_barrier();
  }
};

KERNEL_TEST_CASE("instructions: threads arrive at the barrier of another block") {
  if (!can_run(90)) return;
  const DeviceArray<unsigned> counters(kBlocks), out(kBlocks);
  run(ArriveAtLast{counters.data(), out.data()},
      {.blocks = kBlocks * ArriveAtLast::kSize, .cluster = ArriveAtLast::kSize});
  check_elements(out.download(), std::vector<unsigned>{ArriveAtLast::kSize * ArriveAtLast::kThreads}, 1);
}

// 64 rows of `span` / 2 numbered elements, in boxes of kRows rows.
constexpr int kRows = 16;

struct Rows {
  int span;
  DeviceArray<std::uint16_t> data;

  explicit Rows(int span) : span(span), data(numbered(span)) {}
  static std::vector<std::uint16_t> numbered(int span) {
    std::vector<std::uint16_t> values(64 * static_cast<std::size_t>(span) / 2);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i + 1);
    return values;
  }
  CUtensorMap map() const {
    const auto bytes = static_cast<std::uint64_t>(span);
    TensorMap map;
    map.data = data.data();
    map.rank = 4;
    map.size = {bytes / 2, 64, 1, 1};
    map.strides = {bytes, 64 * bytes, 64 * bytes};
    map.box = {static_cast<std::uint32_t>(span) / 2, kRows, 1, 1};
    map.span = span;
    return encode(map, "test");
  }
  // So many rows from `first` on as they lie in shared memory.
  std::vector<std::uint16_t> in_memory(int first, int rows) const {
    std::vector<std::uint16_t> image(static_cast<std::size_t>(rows) * span / 2);
    for (int row = 0; row < rows; ++row)
      for (int k = 0; k < span / 2; ++k)
        image[swizzled_unit(row, k / 8, span) * 8 + k % 8] =
            static_cast<std::uint16_t>((first + row) * (span / 2) + k + 1);
    return image;
  }
};

// Block 1 of four brings a box to itself and to block 3.
struct MulticastToOdd {
  static constexpr int kCapability = 90, kThreads = 64, kSize = 4;
  CUtensorMap map;
  int elements, first_row;
  std::uint16_t* out;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    const bool receives = cluster_rank() % 2 == 1;
    fill_room(shared, nullptr, elements);
    make_barriers(shared, 1);
    if (receives && threadIdx.x == 0) mbarrier_arrive_expect(shared.barrier(), elements * 2);
    cluster_barrier();
    if (cluster_rank() == 1 && threadIdx.x == 0)
      tensor_load_multicast(shared.room, map, shared.barrier(), 0b1010, 0, first_row, 0, 0);
    if (receives) mbarrier_wait(shared.barrier(), 0);
    cluster_barrier();
    take_room(shared, out, elements);
  }
};

KERNEL_TEST_CASE("instructions: a multicast copy comes to the blocks of its mask, and to no other") {
  if (!can_run(90)) return;
  const Rows rows(128);
  constexpr int kElements = kRows * 64, kFirst = 8;
  const DeviceArray<std::uint16_t> out(kBlocks * MulticastToOdd::kSize * kElements);
  run(MulticastToOdd{rows.map(), kElements, kFirst, out.data()},
      {.blocks = kBlocks * MulticastToOdd::kSize, .cluster = MulticastToOdd::kSize});
  std::vector<std::uint16_t> want;
  for (int rank = 0; rank < MulticastToOdd::kSize; ++rank) {
    const std::vector<std::uint16_t> image =
        rank % 2 == 1 ? rows.in_memory(kFirst, kRows) : std::vector<std::uint16_t>(kElements, kNothing);
    want.insert(want.end(), image.begin(), image.end());
  }
  check_elements(out.download(), want, 64);
}

// Each of two blocks brings one half to both, in each of two turns; a block says to both when it has read them.
struct ShareHalves {
  static constexpr int kCapability = 90, kThreads = 64, kTurns = 2;
  CUtensorMap map;
  int elements;        // of a half
  std::uint16_t* out;  // of each block and turn: two halves

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    const std::uint32_t full = shared.barrier(0), empty = shared.barrier(1);
    const int rank = cluster_rank();
    make_barriers(shared, 1, 2);
    cluster_barrier();
#pragma unroll 1
    for (int turn = 0; turn < kTurns; ++turn) {
      if (threadIdx.x == 0) {
        mbarrier_wait(empty, turn % 2 ^ 1);
        mbarrier_arrive_expect(full, 2 * elements * 2);
        tensor_load_multicast(shared.room + rank * elements * 2, map, full, 0b11, 0, (2 * turn + rank) * kRows, 0, 0);
      }
      mbarrier_wait(full, turn % 2);
      for (int i = static_cast<int>(threadIdx.x); i < 2 * elements; i += kThreads)
        __builtin_memcpy(out + (static_cast<int>(blockIdx.x) * kTurns + turn) * 2 * elements + i, shared.bytes + 2 * i,
                         2);
      __syncthreads();
      if (threadIdx.x == 0)
        for (int to = 0; to < 2; ++to) mbarrier_arrive_cluster(shared_address_in(empty, to));
    }
    if (threadIdx.x == 0) mbarrier_wait(empty, (kTurns - 1) % 2);  // the other's last arrival has come
  }
};

KERNEL_TEST_CASE("instructions: each of two blocks brings one half to both, again when both have read it") {
  if (!can_run(90)) return;
  for (const int span : {32, 64, 128}) {
    CAPTURE(span);
    const Rows rows(span);
    const int elements = kRows * span / 2;
    const DeviceArray<std::uint16_t> out(kBlocks * 2 * ShareHalves::kTurns * 2 * static_cast<std::size_t>(elements));
    run(ShareHalves{rows.map(), elements, out.data()}, {.blocks = kBlocks * 2, .cluster = 2});
    std::vector<std::uint16_t> want;
    for (int turn = 0; turn < ShareHalves::kTurns; ++turn) {
      const std::vector<std::uint16_t> image = rows.in_memory(turn * 2 * kRows, 2 * kRows);
      want.insert(want.end(), image.begin(), image.end());
    }
    check_elements(out.download(), want, static_cast<std::size_t>(span) / 2);
  }
}

// Block 1 announces its bytes when block 0 has what it has brought to both.
struct AnnounceLate {
  static constexpr int kCapability = 90, kThreads = 64;
  CUtensorMap map;
  int elements;
  std::uint16_t* out;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    make_barriers(shared, 1);
    cluster_barrier();
    if (cluster_rank() == 0) {
      if (threadIdx.x == 0) {
        mbarrier_arrive_expect(shared.barrier(), elements * 2);
        tensor_load_multicast(shared.room, map, shared.barrier(), 0b11, 0, 0, 0, 0);
      }
      mbarrier_wait(shared.barrier(), 0);
    }
    cluster_barrier();
    if (cluster_rank() == 1) {
      if (threadIdx.x == 0) mbarrier_arrive_expect(shared.barrier(), elements * 2);
      mbarrier_wait(shared.barrier(), 0);
    }
    take_room(shared, out, elements);
  }
};

KERNEL_TEST_CASE("instructions: bytes that another block brings count before they are announced") {
  if (!can_run(90)) return;
  const Rows rows(128);
  constexpr int kElements = kRows * 64;
  const DeviceArray<std::uint16_t> out(kBlocks * 2 * kElements);
  run(AnnounceLate{rows.map(), kElements, out.data()}, {.blocks = kBlocks * 2, .cluster = 2});
  check_elements(out.download(), rows.in_memory(0, kRows), 64);
}

}  // namespace
}  // namespace damoyolo::kernels
