#include "tensor_core.h"

#include <vector>

#include "engine/core/error.h"
#include "hopper_work.h"
#include "products.h"

namespace simt {
namespace {

std::size_t conflicts = 0;
thread_local std::size_t prefetched = 0;

// One lane's part of ldmatrix and stmatrix: its words, and the row it gives the place of.
struct Matrices {
  unsigned* words;
  unsigned char* row;
};

// Calls move(words of lane i for one matrix, its 4 bytes of the row they are in) for every lane and matrix.
template <typename Move>
void move_matrices(void* const* lanes, Move move) {
  const auto lane = [&](int i) -> Matrices& { return *static_cast<Matrices*>(lanes[i]); };
  for (int matrix = 0; matrix < 4; ++matrix) {
    unsigned units = 0;
    for (int row = 0; row < 8; ++row) {
      const auto place = reinterpret_cast<std::uintptr_t>(lane(8 * matrix + row).row);
      if (place % 16 != 0) throw damoyolo::Error("a row of a matrix is not at a multiple of 16 bytes");
      units |= 1u << place / 16 % 8;
    }
    conflicts += static_cast<std::size_t>(8 - std::popcount(units));
    for (int i = 0; i < warpSize; ++i) move(lane(i).words + matrix, lane(8 * matrix + i / 4).row + 4 * (i % 4));
  }
}

void load_matrices(void* const* lanes) {
  move_matrices(lanes, [](unsigned* word, const unsigned char* place) { std::memcpy(word, place, 4); });
}
void store_matrices(void* const* lanes) {
  move_matrices(lanes, [](const unsigned* word, unsigned char* place) { std::memcpy(place, word, 4); });
  for (int i = 0; i < warpSize; ++i) note_write(static_cast<Matrices*>(lanes[i])->row);
}

// Register `word` of a fragment holds two elements, the one of the lower column (of A) or row (of B) in the lower
// half.
float element(const Mma& mma, unsigned word, int k) {
  return mma.to_float(static_cast<std::uint16_t>(k % 2 == 0 ? word : word >> 16));
}

// What a thread has started to copy in the running block and is still under way, the oldest first.
struct Copies {
  struct Copy {
    void* to;
    const void* from;
    bool valid;
    void run() const { valid ? std::memcpy(to, from, 16) : std::memset(to, 0, 16); }
  };
  unsigned cluster = 0;
  std::vector<Copy> copies;
  std::vector<std::size_t> groups;  // how many copies had been started when each was committed
};

Copies& copies_of_thread() {
  static std::vector<Copies> all;
  const auto thread = static_cast<std::size_t>(simt::thread_of_cluster());
  if (all.size() <= thread) all.resize(thread + 1);
  if (all[thread].cluster != cluster_number()) all[thread] = {cluster_number(), {}, {}};
  return all[thread];
}

// Fragments' layouts, with g = lane / 4 and t = lane % 4: A's register r holds row g + 8·(r % 2) and columns
// 2·t + 8·(r / 2) and the next one; B's register r rows 2·t + 8·r and the next one of column g; the sums' register r
// row g + 8·(r / 2) of column 2·t + r % 2.
void multiply_fragments(void* const* lanes) {
  const auto lane = [&](int i) -> Mma& { return *static_cast<Mma*>(lanes[i]); };
  const int m = lane(0).rows * 16, n = lane(0).columns * 8;
  std::vector<float> a(static_cast<std::size_t>(m * 16)), b(static_cast<std::size_t>(n * 16));
  std::vector<float> sums(static_cast<std::size_t>(m * n));
  const auto each_sum = [&](auto function) {
    for (int i = 0; i < warpSize; ++i)
      for (int row = 0; row < lane(i).rows; ++row)
        for (int column = 0; column < lane(i).columns; ++column)
          for (int r = 0; r < 4; ++r)
            function(lane(i).sums[row * lane(i).columns + column][r],
                     sums[static_cast<std::size_t>((row * 16 + i / 4 + 8 * (r / 2)) * n + column * 8 + 2 * (i % 4) +
                                                   r % 2)]);
  };
  for (int i = 0; i < warpSize; ++i) {
    for (int row = 0; row < lane(i).rows; ++row)
      for (int k = 0; k < 8; ++k) {
        const int r = k / 2;
        a[static_cast<std::size_t>((row * 16 + i / 4 + 8 * (r % 2)) * 16 + 2 * (i % 4) + 8 * (r / 2) + k % 2)] =
            element(lane(i), lane(i).a[row][r], k);
      }
    for (int column = 0; column < lane(i).columns; ++column)
      for (int k = 0; k < 4; ++k)
        b[static_cast<std::size_t>((2 * (i % 4) + 8 * (k / 2) + k % 2) * n + column * 8 + i / 4)] =
            element(lane(i), lane(i).b[column][k / 2], k);
  }
  each_sum([](float& mine, float& sum) { sum = mine; });
  for (int row = 0; row < m; ++row) add_products(a.data() + row * 16, 1, b.data(), n, sums.data() + row * n);
  each_sum([](float& mine, float& sum) { mine = sum; });
}

}  // namespace

void ldmatrix_x4(unsigned (&to)[4], const void* row, Site site) {
  Matrices mine{to, static_cast<unsigned char*>(const_cast<void*>(row))};
  meet(&mine, load_matrices, site);
}

void stmatrix_x4(void* row, const unsigned (&from)[4], Site site) {
  Matrices mine{const_cast<unsigned*>(from), static_cast<unsigned char*>(row)};
  meet(&mine, store_matrices, site);
}

std::size_t bank_conflicts() { return conflicts; }

void copy_16(void* to, const void* from, bool valid) {
  const Copies::Copy copy{to, from, valid};
  if (cluster_number() / 2 % 2 == 0)
    copy.run();
  else
    copies_of_thread().copies.push_back(copy);
}

void commit_copies() {
  Copies& mine = copies_of_thread();
  mine.groups.push_back(mine.copies.size());
}

void wait_for_copies(int groups_left) {
  Copies& mine = copies_of_thread();
  const auto left = static_cast<std::size_t>(groups_left);
  if (mine.groups.size() <= left) return;
  const std::size_t ended = mine.groups.size() - left, count = mine.groups[ended - 1];
  for (std::size_t i = 0; i < count; ++i) mine.copies[i].run();
  mine.copies.erase(mine.copies.begin(), mine.copies.begin() + static_cast<std::ptrdiff_t>(count));
  mine.groups.erase(mine.groups.begin(), mine.groups.begin() + static_cast<std::ptrdiff_t>(ended));
  for (std::size_t& group : mine.groups) group -= count;
}

void prefetch_l2(const void* from, std::size_t bytes, int thread) {
  constexpr std::size_t kTooMany = 1 << 20;  // sizes are 16 bits of units in the machine's instruction
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0 || bytes % 16 != 0 || bytes >= kTooMany)
    throw damoyolo::Error("a prefetch is not of whole units of 16 bytes, less than 1 MiB of them");
  if (thread != 0) return;
  const auto* const first = static_cast<const volatile unsigned char*>(from);
  for (std::size_t i = 0; i < bytes; ++i) static_cast<void>(first[i]);
  prefetched += bytes;
}

std::size_t prefetched_bytes() { return prefetched; }

void mma_16x8x16(Mma& mma, Site site) { meet(&mma, multiply_fragments, site); }

}  // namespace simt
