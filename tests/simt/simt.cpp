#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cuda_fp16.h"
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

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, AtCondition, Done };

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
  std::uint64_t exchanged;  // what it gives to the other lanes
  void* brought;            // to the other lanes; null when they have met
};

// The one launch that runs.
struct Machine {
  ucontext_t scheduler;
  void* fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_stack_bytes = 0;
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block; ucontext_t must not move
  std::size_t threads = 0;                     // of the block: fibers[0, threads)
  std::size_t current = 0;
  const std::function<void()>* thread = nullptr;
  std::exception_ptr error;
  std::vector<std::byte> shared;
  std::size_t shared_bytes = 0;  // of the block's; `shared` has room to align them
  bool falling = false;          // the order in which threads take turns in this block
  unsigned blocks = 0;           // that have started so far
};
Machine machine;
constinit Engine engine{[](bool) {}, [] { return false; }, [] {}};

Fiber& current() { return *machine.fibers[machine.current]; }

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

void resume(std::size_t index) {
  machine.current = index;
  Fiber& fiber = current();
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
  leave(nullptr, machine.scheduler_stack, machine.scheduler_stack_bytes);
  setcontext(&machine.scheduler);
}

void start_fibers() {
  while (machine.fibers.size() < machine.threads) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack.reset(new std::byte[kStackBytes]);
    machine.fibers.push_back(std::move(fiber));
  }
  for (unsigned i = 0; i < machine.threads; ++i) {
    Fiber& fiber = *machine.fibers[i];
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    fiber.state = State::Ready;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
}

// Lanes of a warp that ended before count as arrived, as on the device; lanes past the block's end do not exist.
bool warp_has_arrived(std::size_t waiting) {
  const Fiber& fiber = *machine.fibers[waiting];
  const std::size_t first = waiting / warpSize * warpSize;
  for (std::size_t i = first; i < std::min(first + warpSize, machine.threads); ++i) {
    const Fiber& other = *machine.fibers[i];
    if (!(fiber.mask >> (i - first) & 1) || other.state == State::Done) continue;
    if (other.state != State::AtWarpBarrier || other.mask != fiber.mask || other.site != fiber.site) return false;
  }
  return true;
}

// Makes the fibers of every complete barrier and fulfilled condition ready again; false when there is none.
bool release_barriers() {
  const auto all = std::span(machine.fibers).first(machine.threads);
  // Lanes that met are ready already.
  bool released = std::any_of(all.begin(), all.end(), [](const auto& fiber) { return fiber->state == State::Ready; });
  for (std::size_t i = 0; i < machine.threads; ++i) {
    if (machine.fibers[i]->state != State::AtWarpBarrier || !warp_has_arrived(i)) continue;
    const std::size_t first = i / warpSize * warpSize;
    const unsigned mask = machine.fibers[i]->mask;
    for (std::size_t j = first; j < std::min(first + warpSize, machine.threads); ++j)
      if (mask >> (j - first) & 1 && machine.fibers[j]->state == State::AtWarpBarrier)
        machine.fibers[j]->state = State::Ready;
    released = true;
  }
  for (std::size_t i = 0; i < machine.threads; ++i) {
    Fiber& fiber = *machine.fibers[i];
    if (fiber.state != State::AtCondition || !(*fiber.ready)()) continue;
    fiber.state = State::Ready;
    released = true;
  }
  const Site site = machine.fibers[0]->site;
  const auto end = machine.fibers.begin() + static_cast<std::ptrdiff_t>(machine.threads);
  if (std::all_of(machine.fibers.begin(), end,
                  [&](const auto& fiber) { return fiber->state == State::AtBlockBarrier && fiber->site == site; })) {
    std::for_each(machine.fibers.begin(), end, [](const auto& fiber) { fiber->state = State::Ready; });
    released = true;
  }
  return released;
}

[[noreturn]] void throw_stuck() {
  const auto end = machine.fibers.begin() + static_cast<std::ptrdiff_t>(machine.threads);
  const Fiber& waiting =
      **std::find_if(machine.fibers.begin(), end, [](const auto& fiber) { return fiber->state != State::Done; });
  const auto arrived = std::count_if(machine.fibers.begin(), end, [&](const auto& fiber) {
    return fiber->state == waiting.state && fiber->site == waiting.site;
  });
  if (waiting.state == State::AtCondition)
    throw Error("in block ({}, {}, {}) {} of {} threads wait at {}:{} for {}, which never comes", blockIdx.x,
                blockIdx.y, blockIdx.z, arrived, machine.threads, waiting.site.file, waiting.site.line,
                waiting.condition);
  throw Error("in block ({}, {}, {}) the {} barrier at {}:{} is reached by {} of {} threads, expected all", blockIdx.x,
              blockIdx.y, blockIdx.z, waiting.state == State::AtWarpBarrier ? "warp" : "block", waiting.site.file,
              waiting.site.line, arrived, machine.threads);
}

// Rounds in which every thread that can go on runs to its next barrier.
void run_block() {
  start_fibers();
  machine.falling = machine.blocks % 2 == 0;
  ++machine.blocks;
  engine.start(machine.falling);
  for (;;) {
    for (std::size_t i = 0; i < machine.threads; ++i) {
      const std::size_t turn = machine.falling ? machine.threads - 1 - i : i;
      if (machine.fibers[turn]->state == State::Ready) resume(turn);
      if (machine.error) std::rethrow_exception(std::exchange(machine.error, nullptr));
    }
    const auto end = machine.fibers.begin() + static_cast<std::ptrdiff_t>(machine.threads);
    if (std::all_of(machine.fibers.begin(), end, [](const auto& fiber) { return fiber->state == State::Done; }))
      return engine.finish();
    if (!release_barriers() && !engine.advance()) throw_stuck();
  }
}

// Throws Error for the faults that cuda_runtime.h names.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread) {
  machine.thread = &thread;
  machine.threads = std::size_t{block.x} * block.y * block.z;
  machine.shared.resize(shared_bytes + 127);
  machine.shared_bytes = shared_bytes;
  blockDim = block;
  gridDim = grid;
  try {
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = {x, y, z};
          std::fill(machine.shared.begin(), machine.shared.end(), std::byte{0xff});
          run_block();
        }
  } catch (...) {
    machine.fibers.clear();  // some stopped in the middle; their stacks must not be used again
    throw;
  }
}

std::string last_failure;

}  // namespace

void* dynamic_shared() {
  void* memory = machine.shared.data();
  std::size_t room = machine.shared.size();
  return std::align(128, 0, memory, room);
}

std::size_t shared_bytes() { return machine.shared_bytes; }

void block_barrier(Site site) { wait(State::AtBlockBarrier, site); }

bool block_vote(bool value, Site site) {
  current().exchanged = value;
  block_barrier(site);
  const auto end = machine.fibers.begin() + static_cast<std::ptrdiff_t>(machine.threads);
  const bool any = std::any_of(machine.fibers.begin(), end, [](const auto& fiber) { return fiber->exchanged != 0; });
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
unsigned block_number() { return machine.blocks; }

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
  if (!(mask >> source & 1) || from >= machine.threads || machine.fibers[from]->state == State::Done)
    throw Error("lane {} reads lane {}, which takes no part in the exchange at {}:{}", lane(), source, site.file,
                site.line);
  const std::uint64_t result = machine.fibers[from]->exchanged;
  warp_barrier(mask, site);  // nobody gives a new value before all have read
  return result;
}

unsigned vote(unsigned mask, bool value, Site site) {
  current().exchanged = value;
  warp_barrier(mask, site);
  const std::size_t first = machine.current / warpSize * warpSize;
  unsigned votes = 0;
  for (std::size_t i = first; i < std::min(first + warpSize, machine.threads); ++i)
    if (mask >> (i - first) & 1 && machine.fibers[i]->state != State::Done && machine.fibers[i]->exchanged)
      votes |= 1u << (i - first);
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
  if (first + warpSize <= machine.threads && warp_has_arrived(machine.current)) {
    void* lanes[warpSize];
    for (std::size_t i = 0; i < warpSize; ++i) {
      Fiber& other = *machine.fibers[first + i];
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
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || config.dynamicSmemBytes > kMaxSharedBytes)
    return cudaErrorInvalidConfiguration;
  try {
    run(grid, block, config.dynamicSmemBytes, thread);
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

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = ::operator new (bytes, std::align_val_t{256});
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  ::operator delete (memory, std::align_val_t{256});
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  constexpr int kMultiprocessors = 2, kMajor = 9, kMinor = 0;
  *value = attribute == cudaDevAttrMultiProcessorCount      ? kMultiprocessors
           : attribute == cudaDevAttrComputeCapabilityMajor ? kMajor
                                                            : kMinor;
  return cudaSuccess;
}

// Rounds to nearest, ties to even, by letting float arithmetic round at the position of the result's last bit.
__half __float2half_rn(float value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const auto half = [&](unsigned bits) { return __half{static_cast<std::uint16_t>(sign | bits)}; };
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return half(0x7e00);
  if (magnitude >= 65520.0f) return half(0x7c00);
  constexpr float kSmallestNormal = 0x1p-14f;
  if (magnitude < kSmallestNormal) return half(static_cast<unsigned>(std::nearbyint(magnitude * 0x1p24f)));
  int exponent = 0;
  const float fraction = std::frexp(magnitude, &exponent);                             // in [0.5, 1)
  const auto significand = static_cast<unsigned>(std::nearbyint(fraction * 2048.0f));  // in [1024, 2048]
  return half((static_cast<unsigned>(exponent + 13) << 10) + significand);
}
