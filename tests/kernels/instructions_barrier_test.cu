// Barriers of threads and of copies, and what else a block of conv_sm90 begins with.
#include "tests/kernels/instructions.cuh"

namespace damoyolo::kernels {
namespace {

// All threads arrive in four phases, and count between them: out[phase] is how many had counted before anybody went
// on.
struct Phases {
  static constexpr int kCapability = 90, kThreads = 96, kPhases = 4;
  unsigned *counters, *out;  // of each block and phase

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    make_barriers(shared, kThreads);
    for (unsigned phase = 0; phase < kPhases; ++phase) {
      const unsigned i = blockIdx.x * kPhases + phase;
      mbarrier_wait(shared.barrier(), phase % 2 ^ 1);  // the phase before has ended, also before the first
      atomicAdd(counters + i, 1u);
      __threadfence();
      mbarrier_arrive(shared.barrier());
      mbarrier_wait(shared.barrier(), phase % 2);
      const unsigned counted = atomicAdd(counters + i, 0u);
      if (counted != kThreads || threadIdx.x == 0) out[i] = counted;
    }
  }
};

KERNEL_TEST_CASE("instructions: a barrier's phase ends when all have arrived, and its parity tells phases apart") {
  if (!can_run(90)) return;
  const DeviceArray<unsigned> counters(kBlocks * Phases::kPhases), out(kBlocks * Phases::kPhases);
  run(Phases{counters.data(), out.data()});
  check_elements(out.download(), std::vector<unsigned>(Phases::kPhases, Phases::kThreads), Phases::kPhases);
}

// Each thread reads what another of its half has written before the barrier. Half 1 comes once more than half 0.
struct NamedBarriers {
  static constexpr int kCapability = 90, kThreads = 256;
  int* out;

  __device__ __forceinline__ void operator()() const {
    const int thread = static_cast<int>(threadIdx.x), half = thread / 128;
    auto* const shared = dynamic_shared<int>();
    if (half == 1) named_barrier(2, 128);
    shared[thread] = thread;
    named_barrier(1 + half, 128);
    out[blockIdx.x * kThreads + thread] = shared[thread ^ 127];
  }
};

KERNEL_TEST_CASE("instructions: a named barrier is its threads' alone") {
  if (!can_run(90)) return;
  const DeviceArray<int> out(kBlocks * NamedBarriers::kThreads);
  run(NamedBarriers{out.data()});
  std::vector<int> want;
  for (int i = 0; i < NamedBarriers::kThreads; ++i) want.push_back(i ^ 127);
  check_elements(out.download(), want, 128);
}

// Halves take turns, as the two warpgroups of conv_sm90 that multiply in turn. Each appends its number to words that
// threads of the other one's other warps have written, and goes on without waiting for the next turn to begin.
struct Turns {
  static constexpr int kCapability = 90, kThreads = 256, kTurns = 7;
  unsigned* out;  // [128] of each block

  __device__ __forceinline__ void operator()() const {
    const int half = static_cast<int>(threadIdx.x) / 128, rank = static_cast<int>(threadIdx.x) % 128;
    auto* const words = dynamic_shared<unsigned>();
    unsigned& word = words[half == 0 ? rank : 127 - rank];
    for (int turn = half; turn < kTurns; turn += 2) {
      if (turn > 0) named_barrier(1 + half, kThreads);
      word = (turn == 0 ? 0 : word * 10) + half + 1;
      if (turn + 1 < kTurns) named_barrier_arrive(1 + (half ^ 1), kThreads);
    }
    if (half == (kTurns - 1) % 2) out[blockIdx.x * 128 + rank] = word;
  }
};

KERNEL_TEST_CASE("instructions: a named barrier holds up who waits, and lets go on who only arrives") {
  if (!can_run(90)) return;
  const DeviceArray<unsigned> out(kBlocks * 128);
  run(Turns{out.data()});
  check_elements(out.download(), std::vector<unsigned>(128, 1212121), 128);
}

struct Elect {
  static constexpr int kCapability = 90, kThreads = 96;
  int* out;  // of each thread: how often it was elected, and its warp

  __device__ __forceinline__ void operator()() const {
    const int thread = static_cast<int>(threadIdx.x), warp = __shfl_sync(~0u, thread / kLanes, 0);
    int* const mine = out + (blockIdx.x * kThreads + threadIdx.x) * 2;
    mine[0] = 0;
    mine[1] = warp;
    if (warp == 1 && elect_one()) mine[0] += 1;
    __syncwarp();
    if (elect_one()) mine[0] += 1;
  }
};

KERNEL_TEST_CASE("instructions: a warp elects one lane, always the same, and a shuffle tells the warp's number") {
  if (!can_run(90)) return;
  const DeviceArray<int> out(kBlocks * Elect::kThreads * 2);
  run(Elect{out.data()});
  const std::vector<int> got = out.download();
  for (std::size_t warp = 0; warp < kBlocks * 3; ++warp) {
    CAPTURE(warp);
    int lanes = 0, times = 0;
    for (std::size_t i = warp * 32; i < warp * 32 + 32; ++i) {
      lanes += got[2 * i] > 0;
      times += got[2 * i];
      CHECK(got[2 * i + 1] == static_cast<int>(warp % 3));
    }
    CHECK(lanes == 1);
    CHECK(times == (warp % 3 == 1 ? 2 : 1));
  }
}

// The launch of the tiles that lend registers: two warpgroups take what a third gives, and hold `kValues` numbers each
// thread, more than they could before. Numbers change places in each turn, so that all stay in registers.
struct LendRegisters {
  static constexpr int kCapability = 90, kThreads = 384, kValues = 192;
  const float* in;  // [kValues]
  int turns;
  float* out;  // of each thread: Σ value[i] · (i + 1)

  __device__ __forceinline__ void operator()() const {
    float* const mine = out + blockIdx.x * kThreads + threadIdx.x;
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kLanes, 0);
    const auto before = static_cast<float>(threadIdx.x);
    __syncthreads();
    if (warp >= 8) {
      give_registers<40>();
      *mine = before;
    } else {
      take_registers<232>();
      float values[kValues];
#pragma unroll
      for (int i = 0; i < kValues; ++i) values[i] = in[i] + before;
#pragma unroll 1
      for (int turn = 0; turn < turns; ++turn) {
        const float first = values[0];
#pragma unroll
        for (int i = 0; i + 1 < kValues; ++i) values[i] = values[i + 1];
        values[kValues - 1] = first;
      }
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kValues; ++i) sum += values[i] * static_cast<float>(i + 1);
      *mine = sum;
    }
  }
};

KERNEL_TEST_CASE("instructions: warpgroups take the registers that another gives, and values outlast it") {
  if (!can_run(90)) return;
  constexpr int kValues = LendRegisters::kValues, kTurns = 100;
  const std::vector<float> numbers = whole_numbers(kValues, 1);
  const DeviceArray<float> in(numbers), out(kBlocks * LendRegisters::kThreads);
  run(LendRegisters{in.data(), kTurns, out.data()});
  std::vector<float> want;
  for (int thread = 0; thread < LendRegisters::kThreads; ++thread) {
    const auto before = static_cast<float>(thread);
    want.push_back(thread >= 256 ? before : 0);
    if (thread >= 256) continue;
    for (int i = 0; i < kValues; ++i)
      want.back() += (numbers[(i + kTurns) % kValues] + before) * static_cast<float>(i + 1);
  }
  check_elements(out.download(), want, 128);
}

}  // namespace
}  // namespace damoyolo::kernels
