// Bulk tensor copies, both ways, and the maps that describe them.
#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <string_view>
#include <vector>

#include "engine/core/error.h"
#include "hopper.h"
#include "hopper_work.h"

namespace simt {
namespace {

using damoyolo::Error;

constexpr int kMaxRank = 5;
constexpr int kElement = 2;  // bytes
constexpr int kPiece = 8;    // elements of the 16 bytes that swizzling keeps together

// What a CUtensorMap holds here.
struct Map {
  std::byte* data;
  std::uint64_t size[kMaxRank];
  std::uint64_t strides[kMaxRank];  // bytes, of every dimension
  std::uint16_t box[kMaxRank];      // elements that arrive
  std::uint8_t steps[kMaxRank];
  std::uint8_t rank, span;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap));

struct Box {
  Map map;
  std::uint32_t shared;  // where it lies in shared memory
  std::array<int, kMaxRank> start;
};

struct Load {
  Box box;
  std::uint32_t barrier;
};

struct Store {
  Box box;
  std::vector<std::byte> data;  // that was read
  bool written;
};

struct Group {
  std::vector<Store> stores;
  bool awaited = false;  // at least until its shared memory was read
};

// Of store_async().
struct Packet {
  std::uint32_t to, barrier;
  std::array<float, 2> values;
};

// Of a thread.
struct Stores {
  std::vector<Store> uncommitted;
  std::vector<Group> groups;
};

// What goes on in the running cluster.
struct {
  bool loads_come_late = false;  // and stores read at once, or the other way round: to fill a buffer early that is
                                 // read late is the worst
  std::deque<Load> loads;
  std::vector<Packet> packets;
  std::map<int, Stores> stores;  // by thread of the cluster
} cluster;

std::size_t rows_of(const Map& map) {
  std::size_t rows = 1;
  for (int i = 1; i < map.rank; ++i) rows *= map.box[i];
  return rows;
}
std::size_t bytes_of(const Map& map) { return rows_of(map) * map.box[0] * kElement; }

// Calls piece(address, tensor, first, count) for every 16 bytes of the box: where they are in shared memory, and which
// of their elements lie inside the tensor, the first of them at `tensor`.
template <typename Function>
void for_each_piece(const Box& box, Function piece) {
  const Map& map = box.map;
  const std::size_t rows = rows_of(map), row_bytes = map.box[0] * kElement;
  for (std::size_t row = 0; row < rows; ++row) {
    std::byte* tensor = map.data;
    bool inside = true;
    std::size_t rest = row;
    for (int i = 1; i < map.rank; ++i) {
      const std::int64_t at = box.start[i] + static_cast<std::int64_t>(rest % map.box[i]) * map.steps[i];
      rest /= map.box[i];
      inside = inside && at >= 0 && at < static_cast<std::int64_t>(map.size[i]);
      if (inside) tensor += static_cast<std::uint64_t>(at) * map.strides[i];
    }
    for (std::size_t column = 0; column < map.box[0]; column += kPiece) {
      const auto address = static_cast<std::uint32_t>(box.shared + row * row_bytes + column * kElement);
      const std::int64_t at = box.start[0] + static_cast<std::int64_t>(column);
      const std::int64_t begin = std::max<std::int64_t>(at, 0);
      const std::int64_t end = std::min<std::int64_t>(at + kPiece, static_cast<std::int64_t>(map.size[0]));
      const bool any = inside && end > begin;
      piece(swizzled(address, map.span), any ? tensor + begin * kElement : nullptr,
            static_cast<std::size_t>(any ? begin - at : 0), static_cast<std::size_t>(any ? end - begin : 0));
    }
  }
}

std::byte* piece_at(std::uint32_t address) {
  return static_cast<std::byte*>(shared_pointer(address, kPiece * kElement));
}

void require_all_fenced(const Box& box) {
  for_each_piece(
      box, [](std::uint32_t address, std::byte*, std::size_t, std::size_t) { require_fenced(piece_at(address)); });
}

void deliver(const Load& load) {
  for_each_piece(load.box, [](std::uint32_t address, const std::byte* tensor, std::size_t first, std::size_t count) {
    std::byte* const shared = piece_at(address);
    std::memset(shared, 0, kPiece * kElement);
    if (count > 0) std::memcpy(shared + first * kElement, tensor, count * kElement);
  });
  complete_bytes(load.barrier, bytes_of(load.box.map));
}

void deliver(const Packet& packet) {
  std::memcpy(shared_pointer(packet.to, sizeof packet.values), packet.values.data(), sizeof packet.values);
  complete_bytes(packet.barrier, sizeof packet.values);
}

void read(Store& store) {
  if (store.written || !store.data.empty()) return;
  store.data.reserve(bytes_of(store.box.map));
  for_each_piece(store.box, [&](std::uint32_t address, std::byte*, std::size_t, std::size_t) {
    const std::byte* const shared = piece_at(address);
    store.data.insert(store.data.end(), shared, shared + kPiece * kElement);
  });
}

void write(Store& store) {
  if (std::exchange(store.written, true)) return;
  const std::byte* from = store.data.data();
  for_each_piece(store.box, [&](std::uint32_t, std::byte* tensor, std::size_t first, std::size_t count) {
    if (count > 0) std::memcpy(tensor, from + first * kElement, count * kElement);
    from += kPiece * kElement;
  });
  store.data = {};
}

// Throws Error unless the place in shared memory is the block's own and the map fits.
Box box_at(std::uint32_t shared, const CUtensorMap& map, int rank, const int* start) {
  Box box{{}, shared, {}};
  std::memcpy(static_cast<void*>(&box.map), &map, sizeof(Map));
  if (box.map.rank != rank)
    throw Error("a copy of {} dimensions uses a tensor map of {}", rank, unsigned{box.map.rank});
  require_own(shared);
  const std::uint32_t alignment = box.map.span * 8u;
  if (shared % alignment != 0)
    throw Error("a copy uses shared address {}, expected a multiple of {} for its swizzle", shared, alignment);
  std::copy(start, start + rank, box.start.begin());
  return box;
}

}  // namespace

void start_copies(bool falling) {
  cluster.loads_come_late = !falling;
  cluster.loads.clear();
  cluster.packets.clear();
  cluster.stores.clear();
}

// A load, or all packets to one block: there are thousands, and whoever waits wants all.
bool advance_copies() {
  if (!cluster.loads.empty()) {
    deliver(cluster.loads.front());
    cluster.loads.pop_front();
    return true;
  }
  if (cluster.packets.empty()) return false;
  const auto others = std::stable_partition(
      cluster.packets.begin(), cluster.packets.end(),
      [block = rank_of(cluster.packets.front().to)](const Packet& packet) { return rank_of(packet.to) == block; });
  std::for_each(cluster.packets.begin(), others, [](const Packet& packet) { deliver(packet); });
  cluster.packets.erase(cluster.packets.begin(), others);
  return true;
}

void finish_copies() {
  if (!cluster.loads.empty()) throw Error("a block ended before {} of its copies had come", cluster.loads.size());
  if (!cluster.packets.empty())
    throw Error("a block ended before {} stores to its memory had come", cluster.packets.size());
  std::size_t unread = 0;
  for (const auto& [thread, stores] : cluster.stores) {
    unread += stores.uncommitted.size();
    for (const Group& group : stores.groups) unread += group.awaited ? 0 : group.stores.size();
  }
  if (unread > 0) throw Error("a block ended before it had waited until {} of its stores had been read", unread);
  for (auto& [thread, stores] : cluster.stores)
    for (Group& group : stores.groups)
      for (Store& store : group.stores) write(store);
}

void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, unsigned blocks, int rank,
                 const int* start) {
  const Box box = box_at(to, map, rank, start);
  require_own(barrier);
  if (blocks >> cluster_size() != 0)
    throw Error("a copy goes to the blocks of mask {:#x}, of which a cluster of {} has not all", blocks,
                cluster_size());
  for (int block = 0; block < cluster_size(); ++block) {
    if (!(blocks >> block & 1)) continue;
    Load load{box, shared_address_in(barrier, block)};
    load.box.shared = shared_address_in(to, block);
    require_reachable(load.box.shared);
    require_all_fenced(load.box);
    if (cluster.loads_come_late)
      cluster.loads.push_back(load);
    else
      deliver(load);
  }
}

void tensor_store(const CUtensorMap& map, std::uint32_t from, int rank, const int* start) {
  Store store{box_at(from, map, rank, start), {}, false};
  for (int i = 0; i < rank; ++i)
    if (store.box.map.steps[i] != 1) throw Error("a store uses a tensor map with steps, expected none");
  require_all_fenced(store.box);
  if (cluster.loads_come_late) {
    read(store);
    write(store);
  }
  cluster.stores[thread_of_cluster()].uncommitted.push_back(std::move(store));
}

void store_wait_read(int pending) {
  auto& groups = cluster.stores[thread_of_cluster()].groups;
  for (std::size_t i = 0; i + static_cast<std::size_t>(pending) < groups.size(); ++i) {
    if (std::exchange(groups[i].awaited, true)) continue;
    for (Store& store : groups[i].stores) read(store);
  }
}

}  // namespace simt

// The manual says what a prefetch is for, and not what one of something else would do.
void damoyolo::kernels::prefetch_tensor_map(const CUtensorMap& map) {
  simt::Map encoded;
  std::memcpy(static_cast<void*>(&encoded), &map, sizeof encoded);
  if (encoded.rank == 0) throw Error("a tensor map is prefetched that was never encoded");
}

void damoyolo::kernels::store_async(std::uint32_t to, std::uint32_t barrier, float first, float second) {
  simt::require_reachable(to);
  if (to % 8 != 0 || simt::rank_of(to) != simt::rank_of(barrier))
    throw Error("8 bytes go to shared address {} and count at {}, expected a multiple of 8 in the same block", to,
                barrier);
  simt::shared_pointer(to, 8);  // throws where there is none
  const simt::Packet packet{to, barrier, {first, second}};
  if (simt::cluster.loads_come_late)
    simt::cluster.packets.push_back(packet);
  else
    simt::deliver(packet);
}

void damoyolo::kernels::store_commit() {
  simt::Stores& stores = simt::cluster.stores[simt::thread_of_cluster()];
  stores.groups.push_back({std::exchange(stores.uncommitted, {})});
}

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                const cuuint64_t* size, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  constexpr cuuint64_t kElement = simt::kElement, kMaxSize = cuuint64_t{1} << 32, kMaxStride = cuuint64_t{1} << 40;
  const bool known_type = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  if (!known_type || rank < 1 || rank > simt::kMaxRank || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      swizzle == CU_TENSOR_MAP_SWIZZLE_NONE || reinterpret_cast<std::uintptr_t>(address) % 16 != 0)
    return CUDA_ERROR_INVALID_VALUE;
  simt::Map result{};
  result.data = static_cast<std::byte*>(address);
  result.rank = static_cast<std::uint8_t>(rank);
  result.span = static_cast<std::uint8_t>(16 << swizzle);
  for (cuuint32_t i = 0; i < rank; ++i) {
    const cuuint64_t stride = i == 0 ? kElement : strides[i - 1];
    if (size[i] == 0 || size[i] > kMaxSize || box[i] == 0 || box[i] > 256 || element_strides[i] == 0 ||
        element_strides[i] > 8 || stride >= kMaxStride || (i > 0 && stride % 16 != 0))
      return CUDA_ERROR_INVALID_VALUE;
    result.size[i] = size[i];
    result.strides[i] = stride;
    result.steps[i] = static_cast<std::uint8_t>(i == 0 ? 1 : element_strides[i]);
    result.box[i] = static_cast<std::uint16_t>((box[i] + result.steps[i] - 1) / result.steps[i]);
  }
  if (box[0] * kElement % 16 != 0 || box[0] * kElement > result.span) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(map, &result, sizeof result);
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::string_view(symbol) == "cuTensorMapEncodeTiled";
  *function = known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
