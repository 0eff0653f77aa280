#include "hopper.h"

#include <array>
#include <deque>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/error.h"

namespace simt {
namespace {

using damoyolo::Error;

constexpr int kMaxRank = 5;
constexpr int kWarpgroup = 128;
constexpr int kRows = 64, kDepth = 16;  // of a product's first factor
constexpr int kElement = 2;             // bytes
constexpr int kPiece = 8;               // elements of the 16 bytes that swizzling keeps together

// What a CUtensorMap holds here.
struct Map {
  const std::byte* data;
  std::uint64_t size[kMaxRank];
  std::uint64_t strides[kMaxRank];  // bytes, of every dimension
  std::uint16_t box[kMaxRank];      // elements that arrive
  std::uint8_t steps[kMaxRank];
  std::uint8_t rank, span;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap));

struct Barrier {
  std::uint16_t count;
  std::uint16_t pending : 15;
  std::uint16_t phase : 1;
  std::int32_t bytes;  // announced and not come
};
static_assert(sizeof(Barrier) == 8);

struct Copy {
  Map map;
  std::uint32_t to, barrier;
  std::array<int, kMaxRank> start;
};

struct Product {
  std::uint64_t a, b;
  int n;
  bool bf16;
  std::array<float (*)[4], kWarpgroup> sums;
  int threads;  // that have issued it
};

struct Warpgroup {
  std::deque<Product> products;     // issued and not computed
  std::size_t computed = 0;         // how many were before them
  std::vector<std::size_t> groups;  // products issued when each group was committed
  std::array<std::size_t, kWarpgroup> issued{}, committed{};
  std::array<bool, kWarpgroup> fenced{};
  int waiting = 0, pending = 0;  // threads that wait, and for all groups but how many
  std::size_t waits = 0;         // that have ended
};

struct NamedBarrier {
  int threads = 0, arrived = 0;
  bool any = false, result = false;
  std::size_t phase = 0;
};

// What goes on in the running block.
struct {
  bool copy_at_once = false;
  std::deque<Copy> copies;
  std::array<Warpgroup, 1024 / kWarpgroup> warpgroups;
  std::array<NamedBarrier, 16> named;
} block;

Barrier& barrier_at(std::uint32_t address) {
  if (address % 8 != 0) throw Error("the barrier at shared address {} is not at a multiple of 8 bytes", address);
  return *static_cast<Barrier*>(shared_pointer(address, sizeof(Barrier)));
}

void end_phase_when_complete(Barrier& barrier, std::uint32_t address) {
  if (barrier.pending != 0) return;
  if (barrier.bytes < 0)
    throw Error("{} bytes more than announced have come to the barrier at shared address {}", -barrier.bytes, address);
  if (barrier.bytes > 0) return;
  barrier.pending = barrier.count & 0x7fff;
  barrier.phase = !barrier.phase;
}

void arrive(std::uint32_t address, unsigned bytes) {
  Barrier& barrier = barrier_at(address);
  if (barrier.pending == 0)
    throw Error("one more arrives at the barrier at shared address {} than the {} it was made for", address,
                unsigned{barrier.count});
  barrier.bytes += static_cast<std::int32_t>(bytes);
  barrier.pending = (barrier.pending - 1) & 0x7fff;
  end_phase_when_complete(barrier, address);
}

void deliver(const Copy& copy) {
  const Map& map = copy.map;
  std::size_t rows = 1;
  for (int i = 1; i < map.rank; ++i) rows *= map.box[i];
  const std::size_t row_bytes = map.box[0] * kElement;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::byte* from = map.data;
    bool inside = true;
    std::size_t rest = row;
    for (int i = 1; i < map.rank; ++i) {
      const std::int64_t at = copy.start[i] + static_cast<std::int64_t>(rest % map.box[i]) * map.steps[i];
      rest /= map.box[i];
      inside = inside && at >= 0 && at < static_cast<std::int64_t>(map.size[i]);
      if (inside) from += static_cast<std::uint64_t>(at) * map.strides[i];
    }
    for (std::size_t first = 0; first < map.box[0]; first += kPiece) {
      const auto address = static_cast<std::uint32_t>(copy.to + row * row_bytes + first * kElement);
      auto* to = static_cast<std::byte*>(shared_pointer(swizzled(address, map.span), kPiece * kElement));
      std::memset(to, 0, kPiece * kElement);
      const std::int64_t at = copy.start[0] + static_cast<std::int64_t>(first), end = at + kPiece;
      const std::int64_t begin = std::max<std::int64_t>(at, 0);
      const std::int64_t count = std::min(end, static_cast<std::int64_t>(map.size[0])) - begin;
      if (inside && count > 0)
        std::memcpy(to + (begin - at) * kElement, from + begin * kElement, static_cast<std::size_t>(count) * kElement);
    }
  }
  Barrier& barrier = barrier_at(copy.barrier);
  barrier.bytes -= static_cast<std::int32_t>(rows * row_bytes);
  end_phase_when_complete(barrier, copy.barrier);
}

// The factor that a descriptor names, [16][rows]: products of a sum outermost.
std::vector<float> factor(std::uint64_t descriptor, int rows, bool bf16) {
  const auto field = [&](int first, int bits) {
    return static_cast<std::uint32_t>(descriptor >> first & ((1u << bits) - 1));
  };
  const std::uint32_t start = field(0, 14) << 4, group_stride = field(32, 14) << 4;
  const std::uint32_t base_offset = field(49, 3), mode = field(62, 2);
  if (mode == 0 || base_offset != 0)
    throw Error("a wgmma descriptor has swizzle mode {} and base offset {}, expected modes 1 to 3 and offset 0", mode,
                base_offset);
  const int span = 256 >> mode;  // 1: 128 bytes, 2: 64, 3: 32
  std::vector<float> values(static_cast<std::size_t>(rows * kDepth));
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < kDepth; k += kPiece) {
      const auto offset = static_cast<std::uint32_t>(row % 8 * span + k * 2);
      const std::uint32_t address = start + static_cast<std::uint32_t>(row / 8) * group_stride + offset;
      std::uint16_t piece[kPiece];
      std::memcpy(piece, shared_pointer(swizzled(address, span), sizeof piece), sizeof piece);
      for (int i = 0; i < kPiece; ++i)
        values[static_cast<std::size_t>((k + i) * rows + row)] =
            bf16 ? damoyolo::float_from_bf16(piece[i]) : damoyolo::float_from_f16(piece[i]);
    }
  return values;
}

// Most of the time that tests take is spent in these loops.
#define SIMT_NOT_SANITIZED __attribute__((no_sanitize("address", "undefined")))

// sums[columns] += a[16] · b[16][columns], where a's elements are `stride` apart.
SIMT_NOT_SANITIZED void add_row(const float* a, int stride, const float* b, int columns, float* sums) {
  for (int k = 0; k < kDepth; ++k)
    for (int column = 0; column < columns; ++column) sums[column] += a[k * stride] * b[k * columns + column];
}

SIMT_NOT_SANITIZED void compute(const Product& product) {
  if (product.threads < kWarpgroup)
    throw Error("a wgmma is issued by {} of the {} threads of its warpgroup", product.threads, kWarpgroup);
  const std::vector<float> a = factor(product.a, kRows, product.bf16), b = factor(product.b, product.n, product.bf16);
  std::vector<float> row_sums(static_cast<std::size_t>(product.n));
  float* const sums = row_sums.data();
  for (int row = 0; row < kRows; ++row) {
    // The sums of row 16 w + 8 h + l of columns 8 i + 2 q + e are [i][2 h + e] of thread 32 w + 4 l + q.
    float(*const* threads)[4] = product.sums.data() + row / 16 * 32 + row % 8 * 4;
    const int half = row / 8 % 2 * 2;
    for (int column = 0; column < product.n; ++column)
      sums[column] = threads[column % 8 / 2][column / 8][half + column % 2];
    add_row(a.data() + row, kRows, b.data(), product.n, sums);
    for (int column = 0; column < product.n; ++column)
      threads[column % 8 / 2][column / 8][half + column % 2] = sums[column];
  }
}

// Computes what a warpgroup of which all threads wait is waiting for.
bool compute_awaited(Warpgroup& group) {
  if (group.waiting < kWarpgroup) return false;
  const auto pending = static_cast<std::size_t>(group.pending);
  const std::size_t until = group.groups.size() > pending ? group.groups[group.groups.size() - 1 - pending] : 0;
  while (group.computed < until) {
    compute(group.products.front());
    group.products.pop_front();
    ++group.computed;
  }
  group.waiting = 0;
  ++group.waits;
  return true;
}

void start_block(bool falling) {
  block = {};
  block.copy_at_once = falling;
}

bool advance_block() {
  for (Warpgroup& group : block.warpgroups)
    if (compute_awaited(group)) return true;
  if (block.copies.empty()) return false;
  deliver(block.copies.front());
  block.copies.pop_front();
  return true;
}

void finish_block() {
  if (!block.copies.empty()) throw Error("a block ended before {} of its copies had come", block.copies.size());
  for (const Warpgroup& group : block.warpgroups)
    if (!group.products.empty()) throw Error("a block ended before {} of its products", group.products.size());
}

[[maybe_unused]] const bool attached = (attach({start_block, advance_block, finish_block}), true);

Warpgroup& my_warpgroup() { return block.warpgroups[static_cast<std::size_t>(thread() / kWarpgroup)]; }
std::size_t my_rank() { return static_cast<std::size_t>(thread() % kWarpgroup); }

}  // namespace

std::uint32_t shared_address(const void* pointer) {
  const auto offset = static_cast<const std::byte*>(pointer) - static_cast<const std::byte*>(dynamic_shared());
  return kSharedBase + static_cast<std::uint32_t>(offset);
}

void* shared_pointer(std::uint32_t address, std::size_t bytes) {
  if (address < kSharedBase || address + bytes > kSharedBase + shared_bytes())
    throw Error("{} bytes at shared address {} are not among the block's {} bytes from {} on", bytes, address,
                shared_bytes(), kSharedBase);
  return static_cast<std::byte*>(dynamic_shared()) + (address - kSharedBase);
}

// Pieces are numbered by address bits 4 to 6 and rows of 128 bytes by bits 7 to 9.
std::uint32_t swizzled(std::uint32_t address, int span) {
  const std::uint32_t pieces = static_cast<std::uint32_t>(span) / 16 - 1;
  return address ^ ((address >> 7 & pieces) << 4);
}

void tensor_load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, int rank, const int* start) {
  Copy copy{{}, to, barrier, {}};
  std::memcpy(static_cast<void*>(&copy.map), &map, sizeof(Map));
  if (copy.map.rank != rank)
    throw Error("a copy of {} dimensions uses a tensor map of {}", rank, unsigned{copy.map.rank});
  const std::uint32_t alignment = copy.map.span * 8u;
  if (to % alignment != 0)
    throw Error("a copy goes to shared address {}, expected a multiple of {} for its swizzle", to, alignment);
  std::copy(start, start + rank, copy.start.begin());
  if (block.copy_at_once)
    deliver(copy);
  else
    block.copies.push_back(copy);
}

void wgmma(float (*sums)[4], int n, std::uint64_t a, std::uint64_t b, bool bf16) {
  Warpgroup& group = my_warpgroup();
  if (!group.fenced[my_rank()]) throw Error("thread {} uses its registers in wgmma without a fence", thread());
  const std::size_t index = group.issued[my_rank()]++ - group.computed;
  if (index == group.products.size()) group.products.push_back({a, b, n, bf16, {}, 0});
  Product& product = group.products[index];
  if (product.a != a || product.b != b || product.n != n || product.bf16 != bf16)
    throw Error("thread {} issues another wgmma than the rest of its warpgroup", thread());
  product.sums[my_rank()] = sums;
  ++product.threads;
}

void wgmma_wait(int pending, Site site) {
  Warpgroup& group = my_warpgroup();
  if (group.waiting > 0 && group.pending != pending)
    throw Error("thread {} waits for all but {} groups, the rest of its warpgroup for all but {}", thread(), pending,
                group.pending);
  group.pending = pending;
  group.fenced[my_rank()] = false;
  ++group.waiting;
  wait_until([&group, wait = group.waits] { return group.waits != wait; }, "all of its warpgroup at wgmma.wait_group",
             site);
}

}  // namespace simt

namespace damoyolo::kernels {

using namespace simt;

void mbarrier_init(std::uint32_t barrier, unsigned count) {
  if (count == 0 || count > 0x7fff) throw Error("a barrier is made for {} arrivals, expected 1 to 32767", count);
  barrier_at(barrier) = {static_cast<std::uint16_t>(count), static_cast<std::uint16_t>(count & 0x7fff), 0, 0};
}

void mbarrier_arrive(std::uint32_t barrier) { arrive(barrier, 0); }
void mbarrier_arrive_expect(std::uint32_t barrier, unsigned bytes) { arrive(barrier, bytes); }

void mbarrier_wait(std::uint32_t barrier, unsigned parity, const char* file, int line) {
  wait_until([&] { return barrier_at(barrier).phase != (parity & 1); }, "a phase of a barrier in shared memory",
             {file, line});
}

void wgmma_fence() { my_warpgroup().fenced[my_rank()] = true; }

void wgmma_commit() {
  Warpgroup& group = my_warpgroup();
  const std::size_t index = group.committed[my_rank()]++, issued = group.issued[my_rank()];
  if (index == group.groups.size()) group.groups.push_back(issued);
  if (group.groups[index] != issued)
    throw Error("thread {} commits other products than the rest of its warpgroup", thread());
}

bool named_barrier_or(int id, int threads, bool value, const char* file, int line) {
  NamedBarrier& barrier = block.named.at(static_cast<std::size_t>(id));
  if (threads <= 0 || threads % 32 != 0 || (barrier.arrived > 0 && barrier.threads != threads))
    throw Error("barrier {} is for {} threads at {}:{}, expected a multiple of 32 and the same for all", id, threads,
                file, line);
  barrier.threads = threads;
  barrier.any = barrier.any || value;
  const std::size_t phase = barrier.phase;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    barrier.result = std::exchange(barrier.any, false);
    ++barrier.phase;
  }
  wait_until([&barrier, phase] { return barrier.phase != phase; }, "the rest of a named barrier", {file, line});
  return barrier.result;
}

}  // namespace damoyolo::kernels

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
  result.data = static_cast<const std::byte*>(address);
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
