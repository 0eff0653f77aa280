// Offsets for buffers that share one block of memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace damoyolo {

// A buffer that holds data from step `first` to step `last`, both included.
struct Lifetime {
  std::int64_t bytes = 0;
  int first = 0, last = 0;
};

struct ArenaLayout {
  std::vector<std::int64_t> offsets;  // one per lifetime, multiples of the alignment
  std::int64_t bytes = 0;             // of the arena
  std::int64_t peak = 0;              // the largest sum of simultaneously live buffers: no layout can be smaller
};

// Places the buffers so that no two that live at the same step overlap. Greedy, over several orders of placement; the
// smallest result is kept. Deterministic.
ArenaLayout lay_out_arena(std::span<const Lifetime> lifetimes, std::int64_t alignment);

}  // namespace damoyolo
