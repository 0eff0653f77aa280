#include "hopper.h"

#include <array>
#include <utility>
#include <vector>

#include "engine/core/error.h"
#include "hopper_work.h"

namespace simt {
namespace {

using damoyolo::Error;

constexpr std::uint32_t kWindow = 1 << 24;  // addresses of each block of a cluster

struct Barrier {
  std::uint16_t count;
  std::uint16_t pending : 15;
  std::uint16_t phase : 1;
  std::int32_t bytes;  // announced and not come
};
static_assert(sizeof(Barrier) == 8);

struct NamedBarrier {
  int threads = 0, arrived = 0;
  std::size_t phase = 0;
};

std::array<std::array<NamedBarrier, 16>, kMaxCluster> named;  // of the running cluster's blocks

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

NamedBarrier& named_at(int id) {
  return named[static_cast<std::size_t>(cluster_rank())].at(static_cast<std::size_t>(id));
}

void arrive(NamedBarrier& barrier, int id, int threads, Site site) {
  if (threads <= 0 || threads % 32 != 0 || (barrier.arrived > 0 && barrier.threads != threads))
    throw Error("barrier {} is for {} threads at {}:{}, expected a multiple of 32 and the same for all", id, threads,
                site.file, site.line);
  barrier.threads = threads;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.phase;
  }
}

// At barriers of other blocks, under way.
struct {
  bool come_late = false;
  std::vector<std::uint32_t> barriers;
} arrivals;

void start(bool falling) {
  for (int rank = 0; rank < cluster_size(); ++rank) named[static_cast<std::size_t>(rank)] = {};
  arrivals = {!falling, {}};
  start_writes();
  start_products();
  start_copies(falling);
}

bool advance_arrivals() {
  for (const std::uint32_t barrier : arrivals.barriers) arrive(barrier, 0);
  return !std::exchange(arrivals.barriers, {}).empty();
}

// Products first: then those show that do not wait for the copies of their factors.
bool advance() { return advance_products() || advance_copies() || advance_arrivals(); }

void finish() {
  finish_copies();
  finish_products();
  if (!arrivals.barriers.empty())
    throw Error("a block ended before {} arrivals of another at its barriers", arrivals.barriers.size());
}

[[maybe_unused]] const bool attached = (attach({start, advance, finish}), true);

}  // namespace

void complete_bytes(std::uint32_t address, std::size_t bytes) {
  Barrier& barrier = barrier_at(address);
  barrier.bytes -= static_cast<std::int32_t>(bytes);
  end_phase_when_complete(barrier, address);
}

std::uint32_t shared_address(const void* pointer) {
  const auto offset = static_cast<const std::byte*>(pointer) - static_cast<const std::byte*>(dynamic_shared());
  return shared_address_in(kSharedBase + static_cast<std::uint32_t>(offset), cluster_rank());
}

std::uint32_t shared_address_in(std::uint32_t address, int rank) {
  return address % kWindow + static_cast<std::uint32_t>(rank) * kWindow;
}

void* shared_pointer(std::uint32_t address, std::size_t bytes) {
  const std::uint32_t rank = address / kWindow, place = address % kWindow;
  if (rank >= static_cast<std::uint32_t>(cluster_size()))
    throw Error("shared address {} is of block {} of a cluster of {}", address, rank, cluster_size());
  if (place < kSharedBase || place + bytes > kSharedBase + shared_bytes())
    throw Error("{} bytes at shared address {} are not among the block's {} bytes from {} on", bytes, place,
                shared_bytes(), kSharedBase);
  return static_cast<std::byte*>(dynamic_shared_of(static_cast<int>(rank))) + (place - kSharedBase);
}

std::uint32_t rank_of(std::uint32_t address) { return address / kWindow; }

void require_own(std::uint32_t address) {
  if (address / kWindow != static_cast<std::uint32_t>(cluster_rank()))
    throw Error("block {} of a cluster uses an address of block {} where only its own will do", cluster_rank(),
                address / kWindow);
}

void require_reachable(std::uint32_t address) {
  if (!cluster_has_met() && address / kWindow != static_cast<std::uint32_t>(cluster_rank()))
    throw Error(
        "block {} of a cluster uses the shared memory of block {} before a cluster barrier, so that it may not have "
        "started",
        cluster_rank(), address / kWindow);
}

// Pieces are numbered by address bits 4 to 6 and rows of 128 bytes by bits 7 to 9.
std::uint32_t swizzled(std::uint32_t address, int span) {
  const std::uint32_t pieces = static_cast<std::uint32_t>(span) / 16 - 1;
  return address ^ ((address >> 7 & pieces) << 4);
}

}  // namespace simt

namespace damoyolo::kernels {

using namespace simt;

void fence_async_shared() { fence_writes(); }

// The first lane in one cluster and the last in the next, because the manual names none.
bool elect_one(const char* file, int line) {
  bool elected = false;
  meet(&elected, [](void* const* lanes) { *static_cast<bool*>(lanes[cluster_number() % 2 * 31]) = true; },
       {file, line});
  return elected;
}

void mbarrier_init(std::uint32_t barrier, unsigned count) {
  if (count == 0 || count > 0x7fff) throw Error("a barrier is made for {} arrivals, expected 1 to 32767", count);
  require_own(barrier);
  barrier_at(barrier) = {static_cast<std::uint16_t>(count), static_cast<std::uint16_t>(count & 0x7fff), 0, 0};
}

void mbarrier_arrive(std::uint32_t barrier) { mbarrier_arrive_expect(barrier, 0); }
void mbarrier_arrive_expect(std::uint32_t barrier, unsigned bytes) {
  require_own(barrier);
  arrive(barrier, bytes);
}
void mbarrier_arrive_cluster(std::uint32_t barrier) {
  require_reachable(barrier);
  if (arrivals.come_late)
    arrivals.barriers.push_back(barrier);
  else
    arrive(barrier, 0);
}

void mbarrier_wait(std::uint32_t barrier, unsigned parity, const char* file, int line) {
  require_own(barrier);
  const Barrier& awaited = barrier_at(barrier);
  wait_until([&] { return awaited.phase != (parity & 1); }, "a phase of a barrier in shared memory", {file, line});
}

void named_barrier(int id, int threads, const char* file, int line) {
  NamedBarrier& barrier = named_at(id);
  const std::size_t phase = barrier.phase;
  arrive(barrier, id, threads, {file, line});
  wait_until([&barrier, phase] { return barrier.phase != phase; }, "the rest of a named barrier", {file, line});
}

void named_barrier_arrive(int id, int threads, const char* file, int line) {
  arrive(named_at(id), id, threads, {file, line});
}

}  // namespace damoyolo::kernels
