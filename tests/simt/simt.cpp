#include <ucontext.h>

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

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#ifdef SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

using damoyolo::Error;

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr unsigned kMaxThreads = 1024;

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, AtClusterBarrier, AtCondition, Done };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack;
  void* fake_stack = nullptr;  // AddressSanitizer's, while the fiber does not run
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
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block; ucontext_t must not move
  std::size_t running;                         // threads that have not ended
  std::vector<std::byte> memory;
  void* shared;  // from the first multiple of 128 bytes in `memory` on
};

// The one launch that runs.
struct Machine {
  ucontext_t scheduler;
  void* fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_stack_bytes = 0;
  std::array<Block, kMaxCluster> blocks;
  std::size_t cluster = 1;       // the running cluster is blocks[0, cluster)
  std::size_t threads = 0;       // of a block: fibers[0, threads)
  std::size_t shared_bytes = 0;  // of a block
  Block* block = blocks.data();  // whose thread runs
  std::size_t current = 0;       // which thread
  const std::function<void()>* thread = nullptr;
  std::exception_ptr error;
  bool falling = false;   // the order in which threads take turns in this cluster
  unsigned meetings = 0;  // of the cluster at its barrier
  unsigned clusters = 0;  // that have started so far
};
Machine machine;
constinit Engine engine{[](bool) {}, [] { return false; }, [] {}};

std::span<const std::unique_ptr<Fiber>> fibers_of(const Block& block) {
  return std::span(block.fibers).first(machine.threads);
}
std::span<Block> cluster() { return std::span(machine.blocks).first(machine.cluster); }
Fiber& current() { return *machine.block->fibers[machine.current]; }

// AddressSanitizer must hear of every change of stacks: where it goes before, and that it has come after.
// `keep` is null when the fiber that leaves is finished.
void leave([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack, [[maybe_unused]] std::size_t bytes) {
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(keep, stack, bytes);
#endif
}
void arrive([[maybe_unused]] void* kept, [[maybe_unused]] const void** from, [[maybe_unused]] std::size_t* bytes) {
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(kept, from, bytes);
#endif
}

void resume(Block& block, std::size_t index) {
  machine.block = &block;
  machine.current = index;
  Fiber& fiber = current();
  blockIdx = block.index;
  threadIdx = fiber.index;
  leave(&machine.fake_stack, fiber.stack.get(), kStackBytes);
  swapcontext(&machine.scheduler, &fiber.context);
  arrive(machine.fake_stack, nullptr, nullptr);
}

void wait(State state, Site site) {
  Fiber& fiber = current();
  fiber.state = state;
  fiber.site = site;
  leave(&fiber.fake_stack, machine.scheduler_stack, machine.scheduler_stack_bytes);
  swapcontext(&fiber.context, &machine.scheduler);
  arrive(fiber.fake_stack, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
}

void fiber_main() {
  arrive(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
  try {
    (*machine.thread)();
  } catch (...) {
    machine.error = std::current_exception();
  }
  current().state = State::Done;
  --machine.block->running;
  leave(nullptr, machine.scheduler_stack, machine.scheduler_stack_bytes);
  setcontext(&machine.scheduler);
}

void start(Block& block) {
  std::fill(block.memory.begin(), block.memory.end(), std::byte{0xff});
  block.running = machine.threads;
  while (block.fibers.size() < machine.threads) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack.reset(new std::byte[kStackBytes]);
    block.fibers.push_back(std::move(fiber));
  }
  for (unsigned i = 0; i < machine.threads; ++i) {
    Fiber& fiber = *block.fibers[i];
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    fiber.state = State::Ready;
    fiber.arrivals = fiber.waits = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
}

// Lanes of a warp that ended before count as arrived, as on the device; lanes past the block's end do not exist.
bool warp_has_arrived(const Block& block, std::size_t waiting) {
  const Fiber& fiber = *block.fibers[waiting];
  const std::size_t first = waiting / warpSize * warpSize;
  for (std::size_t i = first; i < std::min(first + warpSize, machine.threads); ++i) {
    const Fiber& other = *block.fibers[i];
    if (!(fiber.mask >> (i - first) & 1) || other.state == State::Done) continue;
    if (other.state != State::AtWarpBarrier || other.mask != fiber.mask || other.site != fiber.site) return false;
  }
  return true;
}

// Makes the block's fibers of every complete barrier and fulfilled condition ready again; false when none is ready.
bool release_barriers(Block& block) {
  const auto all = fibers_of(block);
  // At first all are, and lanes that met are already.
  bool released = std::any_of(all.begin(), all.end(), [](const auto& fiber) { return fiber->state == State::Ready; });
  for (std::size_t i = 0; i < machine.threads; ++i) {
    if (all[i]->state != State::AtWarpBarrier || !warp_has_arrived(block, i)) continue;
    const std::size_t first = i / warpSize * warpSize;
    const unsigned mask = all[i]->mask;
    for (std::size_t j = first; j < std::min(first + warpSize, machine.threads); ++j)
      if (mask >> (j - first) & 1 && all[j]->state == State::AtWarpBarrier) all[j]->state = State::Ready;
    released = true;
  }
  for (const auto& fiber : all) {
    if (fiber->state != State::AtCondition || !(*fiber->ready)()) continue;
    fiber->state = State::Ready;
    released = true;
  }
  const Site site = all[0]->site;
  if (std::all_of(all.begin(), all.end(),
                  [&](const auto& fiber) { return fiber->state == State::AtBlockBarrier && fiber->site == site; })) {
    for (const auto& fiber : all) fiber->state = State::Ready;
    released = true;
  }
  return released;
}

bool is_missing_at_cluster_barrier(const Fiber& fiber) {
  return fiber.state != State::Done && fiber.arrivals == machine.meetings;
}

// The same for the cluster's barrier.
bool release_cluster_barrier() {
  for (const Block& block : cluster())
    for (const auto& fiber : fibers_of(block))
      if (is_missing_at_cluster_barrier(*fiber)) return false;
  ++machine.meetings;
  for (const Block& block : cluster())
    for (const auto& fiber : fibers_of(block))
      if (fiber->state == State::AtClusterBarrier) fiber->state = State::Ready;
  return true;
}

// Says where the first thread that has not ended waits.
[[noreturn]] void throw_stuck() {
  const Block& block =
      *std::find_if(cluster().begin(), cluster().end(), [](const Block& block) { return block.running > 0; });
  const auto all = fibers_of(block);
  const Fiber& waiting =
      **std::find_if(all.begin(), all.end(), [](const auto& fiber) { return fiber->state != State::Done; });
  const auto [x, y, z] = block.index;
  const auto arrived = std::count_if(all.begin(), all.end(), [&](const auto& fiber) {
    return fiber->state == waiting.state && fiber->site == waiting.site;
  });
  if (waiting.state == State::AtCondition)
    throw Error("in block ({}, {}, {}) {} of {} threads wait at {}:{} for {}, which never comes", x, y, z, arrived,
                machine.threads, waiting.site.file, waiting.site.line, waiting.condition);
  if (waiting.state == State::AtClusterBarrier)
    for (const Block& other : cluster())
      for (const auto& fiber : fibers_of(other))
        if (is_missing_at_cluster_barrier(*fiber))
          throw Error(
              "in block ({}, {}, {}) the cluster barrier at {}:{} is not reached by a thread of block "
              "({}, {}, {}), which waits at {}:{}",
              x, y, z, waiting.site.file, waiting.site.line, other.index.x, other.index.y, other.index.z,
              fiber->site.file, fiber->site.line);
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
      if (block.fibers[turn]->state == State::Ready) resume(block, turn);
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
    if (std::all_of(cluster().begin(), cluster().end(), [](const Block& block) { return block.running == 0; }))
      return engine.finish();
    // One block may have let another go on, but a single one is now where it can not.
    if (ran && machine.cluster > 1) continue;
    if (!release_cluster_barrier() && !engine.advance()) throw_stuck();
  }
}

// Throws Error for the faults that cuda_runtime.h names.
void run(dim3 grid, dim3 block, unsigned cluster_size, std::size_t shared_bytes, const std::function<void()>& thread) {
  machine.thread = &thread;
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
      one.fibers.clear();  // some stopped in the middle; their stacks must not be used again
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

std::string last_failure;

}  // namespace

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
  const auto all = fibers_of(*machine.block);
  const bool any = std::any_of(all.begin(), all.end(), [](const auto& fiber) { return fiber->exchanged != 0; });
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
  if (!(mask >> source & 1) || from >= machine.threads || machine.block->fibers[from]->state == State::Done)
    throw Error("lane {} reads lane {}, which takes no part in the exchange at {}:{}", lane(), source, site.file,
                site.line);
  const std::uint64_t result = machine.block->fibers[from]->exchanged;
  warp_barrier(mask, site);  // nobody gives a new value before all have read
  return result;
}

unsigned vote(unsigned mask, bool value, Site site) {
  current().exchanged = value;
  warp_barrier(mask, site);
  const std::size_t first = machine.current / warpSize * warpSize;
  unsigned votes = 0;
  for (std::size_t i = first; i < std::min(first + warpSize, machine.threads); ++i) {
    const Fiber& fiber = *machine.block->fibers[i];
    if (mask >> (i - first) & 1 && fiber.state != State::Done && fiber.exchanged) votes |= 1u << (i - first);
  }
  warp_barrier(mask, site);
  return votes;
}

void meet(void* mine, void (*work)(void* const* lanes), Site site) {
  Fiber& fiber = current();
  const std::size_t first = machine.current / warpSize * warpSize;
  fiber.brought = mine;
  fiber.mask = ~0u;
  fiber.state = State::AtWarpBarrier;
  fiber.site = site;
  if (first + warpSize <= machine.threads && warp_has_arrived(*machine.block, machine.current)) {
    void* lanes[warpSize];
    for (std::size_t i = 0; i < warpSize; ++i) {
      Fiber& other = *machine.block->fibers[first + i];
      if (other.state == State::Done)
        throw Error("lane {} has left the warp that meets at {}:{}", i, site.file, site.line);
      lanes[i] = std::exchange(other.brought, nullptr);
      other.state = State::Ready;
    }
    work(lanes);
    return;
  }
  wait(State::AtWarpBarrier, site);
  if (fiber.brought != nullptr) throw Error("not all 32 lanes of the warp meet at {}:{}", site.file, site.line);
}

cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const unsigned cluster_size = cluster_of(config);
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || config.dynamicSmemBytes > kMaxSharedBytes || cluster_size == 0 ||
      cluster_size > kMaxCluster || grid.x % cluster_size != 0)
    return cudaErrorInvalidConfiguration;
  try {
    run(grid, block, cluster_size, config.dynamicSmemBytes, thread);
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
  }
  return "unknown error";
}
