// Which writes of threads to shared memory bulk copies and wgmma may come behind: those that their writers have fenced
// since.
#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/core/error.h"
#include "hopper.h"
#include "hopper_work.h"

namespace simt {
namespace {

// The warp that wrote a unit last, by its first thread of the cluster, and which of its writes that was.
struct Write {
  int warp;
  std::size_t number;
};

// Of the running cluster.
struct {
  std::unordered_map<const void*, Write> writes;  // by unit of 16 bytes
  std::vector<std::size_t> written, fenced;       // by thread: how often its warp has written, and when it fenced
} proxies;

std::size_t& count(std::vector<std::size_t>& counts, int thread) {
  const auto index = static_cast<std::size_t>(thread);
  if (counts.size() <= index) counts.resize(index + 1);
  return counts[index];
}

int first_of_warp() { return thread_of_cluster() / warpSize * warpSize; }

}  // namespace

void start_writes() { proxies = {}; }

void note_write(const void* unit) {
  const int warp = first_of_warp();
  proxies.writes[unit] = {warp, ++count(proxies.written, warp)};
}

void fence_writes() { count(proxies.fenced, thread_of_cluster()) = count(proxies.written, first_of_warp()); }

void require_fenced(const void* unit) {
  const auto found = proxies.writes.find(unit);
  if (found == proxies.writes.end()) return;
  const auto [warp, number] = found->second;
  for (int lane = 0; lane < warpSize; ++lane)
    if (count(proxies.fenced, warp + lane) < number)
      throw damoyolo::Error("thread {} has written to shared memory and not fenced it before it is used past threads",
                            warp + lane);
  proxies.writes.erase(found);
}

}  // namespace simt
