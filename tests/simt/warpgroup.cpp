// Products of warpgroups, computed when their wait begins to hold everybody up.
#include <array>
#include <deque>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/error.h"
#include "hopper.h"
#include "hopper_work.h"
#include "products.h"

namespace simt {
namespace {

using damoyolo::Error;

constexpr int kWarpgroup = 128;
constexpr int kRows = 64;  // of a product's first factor
constexpr int kPiece = 8;  // elements of the 16 bytes that swizzling keeps together

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

using Warpgroups = std::array<Warpgroup, 1024 / kWarpgroup>;
std::array<Warpgroups, kMaxCluster> blocks;  // of the running cluster

// Calls piece(row, k, its place) for the 16 bytes from each row's products 0 and 8 on, of the factor that a descriptor
// of block `rank` names.
template <typename Function>
void for_each_piece(std::uint64_t descriptor, int rank, int rows, Function piece) {
  const auto field = [&](int first, int bits) {
    return static_cast<std::uint32_t>(descriptor >> first & ((1u << bits) - 1));
  };
  const std::uint32_t start = shared_address_in(field(0, 14) << 4, rank), group_stride = field(32, 14) << 4;
  const std::uint32_t base_offset = field(49, 3), mode = field(62, 2);
  if (mode == 0 || base_offset != 0)
    throw Error("a wgmma descriptor has swizzle mode {} and base offset {}, expected modes 1 to 3 and offset 0", mode,
                base_offset);
  const int span = 256 >> mode;  // 1: 128 bytes, 2: 64, 3: 32
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < kDepth; k += kPiece) {
      const auto offset = static_cast<std::uint32_t>(row % 8 * span + k * 2);
      const std::uint32_t address = start + static_cast<std::uint32_t>(row / 8) * group_stride + offset;
      piece(row, k, shared_pointer(swizzled(address, span), kPiece * sizeof(std::uint16_t)));
    }
}

// [16][rows]: products of a sum outermost.
std::vector<float> factor(std::uint64_t descriptor, int rank, int rows, bool bf16) {
  std::vector<float> values(static_cast<std::size_t>(rows * kDepth));
  for_each_piece(descriptor, rank, rows, [&](int row, int k, const void* place) {
    std::uint16_t piece[kPiece];
    std::memcpy(piece, place, sizeof piece);
    for (int i = 0; i < kPiece; ++i)
      values[static_cast<std::size_t>((k + i) * rows + row)] =
          bf16 ? damoyolo::float_from_bf16(piece[i]) : damoyolo::float_from_f16(piece[i]);
  });
  return values;
}

void require_fenced_factor(std::uint64_t descriptor, int rows) {
  for_each_piece(descriptor, cluster_rank(), rows, [](int, int, const void* place) { require_fenced(place); });
}

// Not sanitized because its loops take much of the time of the tests.
__attribute__((no_sanitize("address", "undefined"))) void compute(const Product& product, int rank) {
  if (product.threads < kWarpgroup)
    throw Error("a wgmma is issued by {} of the {} threads of its warpgroup", product.threads, kWarpgroup);
  const std::vector<float> a = factor(product.a, rank, kRows, product.bf16),
                           b = factor(product.b, rank, product.n, product.bf16);
  std::vector<float> row_sums(static_cast<std::size_t>(product.n));
  float* const sums = row_sums.data();
  for (int row = 0; row < kRows; ++row) {
    // The sums of row 16 w + 8 h + l of columns 8 i + 2 q + e are [i][2 h + e] of thread 32 w + 4 l + q.
    float(*const* threads)[4] = product.sums.data() + row / 16 * 32 + row % 8 * 4;
    const int half = row / 8 % 2 * 2;
    for (int column = 0; column < product.n; ++column)
      sums[column] = threads[column % 8 / 2][column / 8][half + column % 2];
    add_products(a.data() + row, kRows, b.data(), product.n, sums);
    for (int column = 0; column < product.n; ++column)
      threads[column % 8 / 2][column / 8][half + column % 2] = sums[column];
  }
}

// Computes what a warpgroup of which all threads wait is waiting for.
bool compute_awaited(Warpgroup& group, int rank) {
  if (group.waiting < kWarpgroup) return false;
  const auto pending = static_cast<std::size_t>(group.pending);
  const std::size_t until = group.groups.size() > pending ? group.groups[group.groups.size() - 1 - pending] : 0;
  while (group.computed < until) {
    compute(group.products.front(), rank);
    group.products.pop_front();
    ++group.computed;
  }
  group.waiting = 0;
  ++group.waits;
  return true;
}

Warpgroup& my_warpgroup() {
  return blocks[static_cast<std::size_t>(cluster_rank())][static_cast<std::size_t>(thread() / kWarpgroup)];
}
std::size_t my_rank() { return static_cast<std::size_t>(thread() % kWarpgroup); }

}  // namespace

void start_products() {
  for (int rank = 0; rank < cluster_size(); ++rank) blocks[static_cast<std::size_t>(rank)] = {};
}

bool advance_products() {
  for (int rank = 0; rank < cluster_size(); ++rank)
    for (Warpgroup& group : blocks[static_cast<std::size_t>(rank)])
      if (compute_awaited(group, rank)) return true;
  return false;
}

void finish_products() {
  for (int rank = 0; rank < cluster_size(); ++rank)
    for (const Warpgroup& group : blocks[static_cast<std::size_t>(rank)])
      if (!group.products.empty()) throw Error("a block ended before {} of its products", group.products.size());
}

void wgmma(float (*sums)[4], int n, std::uint64_t a, std::uint64_t b, bool bf16) {
  Warpgroup& group = my_warpgroup();
  if (!group.fenced[my_rank()]) throw Error("thread {} uses its registers in wgmma without a fence", thread());
  const std::size_t index = group.issued[my_rank()]++ - group.computed;
  if (index == group.products.size()) {
    require_fenced_factor(a, kRows);
    require_fenced_factor(b, n);
    group.products.push_back({a, b, n, bf16, {}, 0});
  }
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

void wgmma_fence() { my_warpgroup().fenced[my_rank()] = true; }

void wgmma_commit() {
  Warpgroup& group = my_warpgroup();
  const std::size_t index = group.committed[my_rank()]++, issued = group.issued[my_rank()];
  if (index == group.groups.size()) group.groups.push_back(issued);
  if (group.groups[index] != issued)
    throw Error("thread {} commits other products than the rest of its warpgroup", thread());
}

}  // namespace damoyolo::kernels
