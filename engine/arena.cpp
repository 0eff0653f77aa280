#include "engine/arena.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

namespace damoyolo {
namespace {

bool together(const Lifetime& a, const Lifetime& b) { return a.first <= b.last && b.first <= a.last; }

std::int64_t peak_of(std::span<const Lifetime> lifetimes) {
  std::int64_t peak = 0;
  for (const Lifetime& at : lifetimes) {  // the peak is reached when some buffer begins
    std::int64_t live = 0;
    for (const Lifetime& other : lifetimes)
      if (other.first <= at.first && at.first <= other.last) live += other.bytes;
    peak = std::max(peak, live);
  }
  return peak;
}

// Places buffers one after another, each into the tightest gap between those already placed that live with it.
ArenaLayout place(std::span<const Lifetime> lifetimes, std::span<const std::size_t> order, std::int64_t alignment) {
  ArenaLayout layout;
  layout.offsets.resize(lifetimes.size());
  std::vector<std::pair<std::int64_t, std::int64_t>> taken;  // [begin, end) of the neighbours in time
  for (std::size_t position = 0; position < order.size(); ++position) {
    const Lifetime& buffer = lifetimes[order[position]];
    taken.clear();
    for (const std::size_t other : order.first(position))
      if (together(buffer, lifetimes[other]))
        taken.emplace_back(layout.offsets[other], layout.offsets[other] + lifetimes[other].bytes);
    std::sort(taken.begin(), taken.end());

    std::int64_t best = -1, best_gap = std::numeric_limits<std::int64_t>::max(), free = 0;
    for (const auto& [begin, end] : taken) {
      const std::int64_t gap = begin - free;
      if (gap >= buffer.bytes && gap < best_gap) {
        best = free;
        best_gap = gap;
      }
      free = std::max(free, (end + alignment - 1) / alignment * alignment);
    }
    layout.offsets[order[position]] = best >= 0 ? best : free;
    layout.bytes = std::max(layout.bytes, layout.offsets[order[position]] + buffer.bytes);
  }
  return layout;
}

}  // namespace

ArenaLayout lay_out_arena(std::span<const Lifetime> lifetimes, std::int64_t alignment) {
  using Before = std::function<bool(const Lifetime&, const Lifetime&)>;
  const auto span_of = [](const Lifetime& buffer) { return std::int64_t{buffer.last} - buffer.first + 1; };
  const std::array<Before, 4> orders{
      [](const Lifetime& a, const Lifetime& b) { return a.bytes > b.bytes; },
      [&](const Lifetime& a, const Lifetime& b) { return a.bytes * span_of(a) > b.bytes * span_of(b); },
      [&](const Lifetime& a, const Lifetime& b) { return span_of(a) > span_of(b); },
      [](const Lifetime& a, const Lifetime& b) { return a.first < b.first; },
  };

  ArenaLayout best;
  best.bytes = std::numeric_limits<std::int64_t>::max();
  std::vector<std::size_t> order(lifetimes.size());
  for (const Before& before : orders) {
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return before(lifetimes[a], lifetimes[b]); });
    ArenaLayout layout = place(lifetimes, order, alignment);
    if (layout.bytes < best.bytes) best = std::move(layout);
  }
  best.peak = peak_of(lifetimes);
  return best;
}

}  // namespace damoyolo
