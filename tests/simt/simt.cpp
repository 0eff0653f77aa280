#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "engine/core/error.h"
#include "fiber.h"

namespace simt {
namespace {

using damoyolo::Error;

constexpr unsigned kMaxThreads = 1024;

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, AtClusterBarrier, AtCondition, Done };

void run_threads();

struct Thread {
  Fiber fiber{run_threads};
  uint3 index;
  State state;
  Site site;                           // of the barrier or condition it waits at
  unsigned mask;                       // of the warp barrier it waits at
  const std::function<bool()>* ready;  // the condition it waits for, and its name
  const char* condition;
  std::uint64_t exchanged;   // what it gives to the other lanes
  void* brought;             // to the other lanes; null when they have met
  unsigned arrivals, waits;  // at the cluster's barrier
};

struct Block {
  uint3 index;
  std::vector<std::unique_ptr<Thread>> threads;  // kept from block to block, with their stacks
  std::size_t running;                           // threads that have not ended
  std::vector<std::byte> memory;
  bool waited;   // for the kernels before this one
  void* shared;  // from the first multiple of 128 bytes in `memory` on
};

// The one launch that runs.
struct Machine {
  std::array<Block, kMaxCluster> blocks;
  std::size_t cluster = 1;       // the running cluster is blocks[0, cluster)
  std::size_t threads = 0;       // of a block: threads[0, threads)
  std::size_t shared_bytes = 0;  // of a block
  Block* block = blocks.data();  // whose thread runs
  std::size_t current = 0;       // which thread
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr error;
  bool falling = false;   // the order in which threads take turns in this cluster
  unsigned meetings = 0;  // of the cluster at its barrier
  unsigned clusters = 0;  // that have started so far
  bool early = false;     // whether it may start before the kernel before it has ended
};
Machine machine;
constinit Engine engine{[](bool) {}, [] { return false; }, [] {}};

std::span<const std::unique_ptr<Thread>> threads_of(const Block& block) {
  return std::span(block.threads).first(machine.threads);
}
std::span<Block> cluster() { return std::span(machine.blocks).first(machine.cluster); }
Thread& current() { return *machine.block->threads[machine.current]; }

void resume(Block& block, std::size_t index) {
  machine.block = &block;
  machine.current = index;
  Thread& thread = current();
  blockIdx = block.index;
  threadIdx = thread.index;
  thread.fiber.resume();
}

void wait(State state, Site site) {
  Thread& thread = current();
  thread.state = state;
  thread.site = site;
  thread.fiber.pause();
}

// Of one block after another: a fiber is used again, which is cheaper than a new one.
void run_threads() {
  for (;;) {
    try {
      (*machine.kernel)();
    } catch (...) {
      machine.error = std::current_exception();
    }
    Thread& thread = current();
    thread.state = State::Done;
    --machine.block->running;
    thread.fiber.pause();
  }
}

void start(Block& block) {
  std::memset(block.memory.data(), 0xff, block.memory.size());
  block.running = machine.threads;
  block.waited = false;
  while (block.threads.size() < machine.threads) block.threads.push_back(std::make_unique<Thread>());
  for (unsigned i = 0; i < machine.threads; ++i) {
    Thread& thread = *block.threads[i];
    thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    thread.state = State::Ready;
    thread.arrivals = thread.waits = 0;
  }
}

bool wait_together(const Thread& a, const Thread& b) {
  return a.state == b.state && a.mask == b.mask && a.site == b.site;
}

// Lanes of a warp that ended before count as arrived, as on the device; lanes past the block's end do not exist.
bool warp_has_arrived(const Block& block, std::size_t waiting) {
  const Thread& thread = *block.threads[waiting];
  const std::size_t first = waiting / warpSize * warpSize, end = std::min(first + warpSize, machine.threads);
  for (std::size_t turn = first; turn < end; ++turn) {
    const std::size_t i = machine.falling ? turn : first + end - 1 - turn;  // the last to have its turn comes first
    const Thread& other = *block.threads[i];
    if (!(thread.mask >> (i - first) & 1) || other.state == State::Done) continue;
    if (!wait_together(thread, other)) return false;
  }
  return true;
}

// Makes the block's threads of every complete barrier and fulfilled condition ready again; false when none is ready.
bool release_barriers(Block& block) {
  const auto all = threads_of(block);
  // At first all are, and lanes that met are already.
  bool released =
      std::any_of(all.begin(), all.end(), [](const auto& thread) { return thread->state == State::Ready; });
  std::size_t vain = 0;  // the last one before i that still has to wait; lanes that wait with it have to as well
  for (std::size_t i = 0; i < machine.threads; ++i) {
    if (all[i]->state != State::AtWarpBarrier) continue;
    if (vain < i && vain / warpSize == i / warpSize && wait_together(*all[vain], *all[i])) continue;
    if (!warp_has_arrived(block, i)) {
      vain = i;
      continue;
    }
    const std::size_t first = i / warpSize * warpSize;
    const unsigned mask = all[i]->mask;
    for (std::size_t j = first; j < std::min(first + warpSize, machine.threads); ++j)
      if (mask >> (j - first) & 1 && all[j]->state == State::AtWarpBarrier) all[j]->state = State::Ready;
    released = true;
  }
  for (const auto& thread : all) {
    if (thread->state != State::AtCondition || !(*thread->ready)()) continue;
    thread->state = State::Ready;
    released = true;
  }
  const Site site = all[0]->site;
  if (std::all_of(all.begin(), all.end(), [&](const auto& thread) {
        return thread->state == State::AtBlockBarrier && thread->site == site;
      })) {
    for (const auto& thread : all) thread->state = State::Ready;
    released = true;
  }
  return released;
}

bool is_missing_at_cluster_barrier(const Thread& thread) {
  return thread.state != State::Done && thread.arrivals == machine.meetings;
}

// The same for the cluster's barrier.
bool release_cluster_barrier() {
  for (const Block& block : cluster())
    for (const auto& thread : threads_of(block))
      if (is_missing_at_cluster_barrier(*thread)) return false;
  ++machine.meetings;
  for (const Block& block : cluster())
    for (const auto& thread : threads_of(block))
      if (thread->state == State::AtClusterBarrier) thread->state = State::Ready;
  return true;
}

// Says where the first thread that has not ended waits.
[[noreturn]] void throw_stuck() {
  const Block& block =
      *std::find_if(cluster().begin(), cluster().end(), [](const Block& block) { return block.running > 0; });
  const auto all = threads_of(block);
  const Thread& waiting =
      **std::find_if(all.begin(), all.end(), [](const auto& thread) { return thread->state != State::Done; });
  const auto [x, y, z] = block.index;
  const auto arrived = std::count_if(all.begin(), all.end(), [&](const auto& thread) {
    return thread->state == waiting.state && thread->site == waiting.site;
  });
  if (waiting.state == State::AtCondition)
    throw Error("in block ({}, {}, {}) {} of {} threads wait at {}:{} for {}, which never comes", x, y, z, arrived,
                machine.threads, waiting.site.file, waiting.site.line, waiting.condition);
  if (waiting.state == State::AtClusterBarrier)
    for (const Block& other : cluster())
      for (const auto& thread : threads_of(other))
        if (is_missing_at_cluster_barrier(*thread))
          throw Error(
              "in block ({}, {}, {}) the cluster barrier at {}:{} is not reached by a thread of block "
              "({}, {}, {}), which waits at {}:{}",
              x, y, z, waiting.site.file, waiting.site.line, other.index.x, other.index.y, other.index.z,
              thread->site.file, thread->site.line);
  throw Error("in block ({}, {}, {}) the {} barrier at {}:{} is reached by {} of {} threads, expected all", x, y, z,
              waiting.state == State::AtWarpBarrier ? "warp" : "block", waiting.site.file, waiting.site.line, arrived,
              machine.threads);
}

// Rounds in which every thread of the block that can go on runs to its next barrier. Whether there was any.
bool run_rounds(Block& block) {
  bool ran = false;
  for (; release_barriers(block); ran = true)
    for (std::size_t i = 0; i < machine.threads; ++i) {
      const std::size_t turn = machine.falling ? machine.threads - 1 - i : i;
      if (block.threads[turn]->state == State::Ready) resume(block, turn);
      if (machine.error) std::rethrow_exception(std::exchange(machine.error, nullptr));
    }
  return ran;
}

void run_cluster() {
  ++machine.clusters;
  machine.falling = machine.clusters % 2 == 1;
  const bool last_block_first = machine.clusters / 2 % 2 == 1;
  machine.meetings = 0;
  for (Block& block : cluster()) start(block);
  engine.start(machine.falling);
  for (;;) {
    bool ran = false;
    for (std::size_t i = 0; i < machine.cluster; ++i)
      ran |= run_rounds(machine.blocks[last_block_first ? machine.cluster - 1 - i : i]);
    if (std::all_of(cluster().begin(), cluster().end(), [](const Block& block) { return block.running == 0; })) {
      for (const Block& block : cluster())
        if (machine.early && !block.waited)
          throw Error("block ({}, {}, {}) ends without having waited for the kernels before it", block.index.x,
                      block.index.y, block.index.z);
      return engine.finish();
    }
    // One block may have let another go on, but a single one is now where it can not.
    if (ran && machine.cluster > 1) continue;
    if (!release_cluster_barrier() && !engine.advance()) throw_stuck();
  }
}

// Throws Error for the faults that cuda_runtime.h names.
void run(dim3 grid, dim3 block, unsigned cluster_size, std::size_t shared_bytes, const std::function<void()>& kernel) {
  machine.kernel = &kernel;
  machine.cluster = cluster_size;
  machine.threads = std::size_t{block.x} * block.y * block.z;
  machine.shared_bytes = shared_bytes;
  for (Block& one : cluster()) {
    one.memory.resize(shared_bytes + 127);
    std::size_t room = one.memory.size();
    one.shared = one.memory.data();
    std::align(128, 0, one.shared, room);
  }
  blockDim = block;
  gridDim = grid;
  try {
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; x += cluster_size) {
          for (unsigned i = 0; i < cluster_size; ++i) machine.blocks[i].index = {x + i, y, z};
          run_cluster();
        }
  } catch (...) {
    for (Block& one : cluster())
      one.threads.clear();  // some stopped in the middle; their stacks must not be used again
    throw;
  }
}

// 0 when it has more dimensions than x.
unsigned cluster_of(const cudaLaunchConfig_t& config) {
  unsigned size = 1;
  for (const cudaLaunchAttribute& attribute : std::span(config.attrs, config.numAttrs)) {
    if (attribute.id != cudaLaunchAttributeClusterDimension) continue;
    const auto& dimensions = attribute.val.clusterDim;
    size = dimensions.y == 1 && dimensions.z == 1 ? dimensions.x : 0;
  }
  return size;
}

bool starts_early(const cudaLaunchConfig_t& config) {
  return std::ranges::any_of(std::span(config.attrs, config.numAttrs), [](const cudaLaunchAttribute& attribute) {
    return attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization &&
           attribute.val.programmaticStreamSerializationAllowed != 0;
  });
}

std::string last_failure;

}  // namespace

void wait_for_predecessors() { machine.block->waited = true; }

void* dynamic_shared() { return machine.block->shared; }

std::size_t shared_bytes() { return machine.shared_bytes; }

void* dynamic_shared_of(int rank) {
  const Block& block = machine.blocks[static_cast<std::size_t>(rank)];
  if (block.running == 0)
    throw Error("the shared memory of block ({}, {}, {}) is used when it has ended", block.index.x, block.index.y,
                block.index.z);
  return block.shared;
}

void block_barrier(Site site) { wait(State::AtBlockBarrier, site); }

bool block_vote(bool value, Site site) {
  current().exchanged = value;
  block_barrier(site);
  const auto all = threads_of(*machine.block);
  const bool any = std::any_of(all.begin(), all.end(), [](const auto& thread) { return thread->exchanged != 0; });
  block_barrier(site);  // nobody gives a new value before all have read
  return any;
}

void warp_barrier(unsigned mask, Site site) {
  if (!(mask >> lane() & 1))
    throw Error("lane {} is not in the mask of the exchange at {}:{}", lane(), site.file, site.line);
  current().mask = mask;
  wait(State::AtWarpBarrier, site);
}

int lane() { return static_cast<int>(machine.current % warpSize); }
int thread() { return static_cast<int>(machine.current); }
int thread_of_cluster() { return cluster_rank() * static_cast<int>(machine.threads) + thread(); }
int cluster_rank() { return static_cast<int>(machine.block - machine.blocks.data()); }
int cluster_size() { return static_cast<int>(machine.cluster); }
unsigned cluster_number() { return machine.clusters; }

void cluster_arrive(Site site) {
  warp_barrier(~0u, site);
  if (current().arrivals != current().waits)
    throw Error("thread {} arrives at {}:{} before it has waited for the cluster barrier at which it has arrived",
                thread(), site.file, site.line);
  ++current().arrivals;
}

void cluster_wait(Site site) {
  warp_barrier(~0u, site);
  if (current().arrivals == current().waits)
    throw Error("thread {} waits at {}:{} for a cluster barrier at which it has not arrived", thread(), site.file,
                site.line);
  if (machine.meetings < current().arrivals) wait(State::AtClusterBarrier, site);
  ++current().waits;
}

bool cluster_has_met() { return machine.meetings > 0; }

void wait_until(const std::function<bool()>& ready, const char* what, Site site) {
  if (ready()) return;
  current().ready = &ready;
  current().condition = what;
  wait(State::AtCondition, site);
}

void attach(const Engine& work) { engine = work; }

std::uint64_t exchange(unsigned mask, std::uint64_t value, int source, Site site) {
  const std::size_t from = machine.current / warpSize * warpSize + static_cast<std::size_t>(source);
  current().exchanged = value;
  warp_barrier(mask, site);
  if (!(mask >> source & 1) || from >= machine.threads || machine.block->threads[from]->state == State::Done)
    throw Error("lane {} reads lane {}, which takes no part in the exchange at {}:{}", lane(), source, site.file,
                site.line);
  const std::uint64_t result = machine.block->threads[from]->exchanged;
  warp_barrier(mask, site);  // nobody gives a new value before all have read
  return result;
}

unsigned vote(unsigned mask, bool value, Site site) {
  current().exchanged = value;
  warp_barrier(mask, site);
  const std::size_t first = machine.current / warpSize * warpSize;
  unsigned votes = 0;
  for (std::size_t i = first; i < std::min(first + warpSize, machine.threads); ++i) {
    const Thread& thread = *machine.block->threads[i];
    if (mask >> (i - first) & 1 && thread.state != State::Done && thread.exchanged) votes |= 1u << (i - first);
  }
  warp_barrier(mask, site);
  return votes;
}

void meet(void* mine, void (*work)(void* const* lanes), Site site) {
  Thread& thread = current();
  const std::size_t first = machine.current / warpSize * warpSize;
  thread.brought = mine;
  thread.mask = ~0u;
  thread.state = State::AtWarpBarrier;
  thread.site = site;
  if (first + warpSize <= machine.threads && warp_has_arrived(*machine.block, machine.current)) {
    void* lanes[warpSize];
    for (std::size_t i = 0; i < warpSize; ++i) {
      Thread& other = *machine.block->threads[first + i];
      if (other.state == State::Done)
        throw Error("lane {} has left the warp that meets at {}:{}", i, site.file, site.line);
      lanes[i] = std::exchange(other.brought, nullptr);
      other.state = State::Ready;
    }
    work(lanes);
    return;
  }
  wait(State::AtWarpBarrier, site);
  if (thread.brought != nullptr) throw Error("not all 32 lanes of the warp meet at {}:{}", site.file, site.line);
}

cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const unsigned cluster_size = cluster_of(config);
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || config.dynamicSmemBytes > kMaxSharedBytes || cluster_size == 0 ||
      cluster_size > kMaxCluster || grid.x % cluster_size != 0)
    return cudaErrorInvalidConfiguration;
  if (capturing && starts_early(config) && !after_kernel.contains(config.stream)) return cudaErrorNotSupported;
  after_kernel.insert(config.stream);
  machine.early = starts_early(config);
  try {
    run(grid, block, cluster_size, config.dynamicSmemBytes, kernel);
  } catch (const std::exception& error) {
    last_failure = error.what();
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace simt

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorLaunchFailure: return simt::last_failure.c_str();
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
  }
  return "unknown error";
}
