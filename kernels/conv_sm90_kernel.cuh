// The kernel of conv_sm90: how a block computes its tiles.
#pragma once

#include <type_traits>

#include "kernels/conv_next.cuh"
#include "kernels/conv_sm90_epilogue.cuh"
#include "kernels/conv_sm90_layout.cuh"
#include "kernels/conv_sm90_tiling.cuh"
#include "kernels/ptx_sm90.cuh"

namespace damoyolo::kernels::conv_sm90 {

template <typename T>
struct Arguments {
  Tiling tiling;
  ConvResult<T> result;
  NextWeights next;
  int stages = 0, stage_bytes = 0, pixel_bytes = 0;
  // The tile lies in shared memory at last, where bulk copies bring the residual and take it away, unless a pair's
  // first output is not kept.
  bool staged = false, staged_residual = false, stored = false;
};

// How boxes of the tensors are found.
struct Maps {
  CUtensorMap x, weights, y, residual;
};

// Of a pair: its second convolution.
template <typename T>
struct Second {
  CUtensorMap weights, y;
  EpilogueArguments<T> epilogue;
  int c;
};
struct Nothing {};
template <typename T, int Then>
using SecondOrNothing = std::conditional_t<(Then > 0), Second<T>, Nothing>;

// One thread keeps the stages full. Weights are no other kernel's work, so that the first ones are on their way before
// the kernels in front have ended.
template <Tile kTile, typename T>
__device__ __forceinline__ void load_stages(const Maps& maps, const Arguments<T>& arguments,
                                            const SecondOrNothing<T, kTile.then>& second, const Stages& stages) {
  const Tiling& tiling = arguments.tiling;
  const int padding = tiling.kernel / 2;
  constexpr int kHalo = kTile.taps - 1;
  const unsigned bytes = ((tiling.rows + kHalo) * tiling.columns + kTile.taps * kTile.n) * kTile.span();
  // Where two blocks share weights, half of their channels, for both.
  const int channels = tiling.sharing == 1 ? kTile.n : kTile.n / 2;
  const int first_channel = tiling.sharing == 1 ? 0 : cluster_rank() * channels;
  const auto load_weights = [&](int stage, const Work& work, const Step& step, unsigned more_bytes = 0) {
    mbarrier_arrive_expect(stages.full(stage), bytes + more_bytes);
#pragma unroll
    for (int tap = 0; tap < kTile.taps; ++tap) {
      const std::uint32_t to = stages.weights(stage) + (tap * kTile.n + first_channel) * kTile.span();
      const int channel = work.channel + first_channel, ky = step.ky + tap;
      if (tiling.sharing == 1)
        tensor_load(to, maps.weights, stages.full(stage), step.channel, step.kx, ky, channel);
      else
        tensor_load_multicast(to, maps.weights, stages.full(stage), 0b11, step.channel, step.kx, ky, channel);
    }
  };
  const auto load_pixels = [&](int stage, const Work& work, const Step& step) {
    tensor_load(stages.pixels(stage), maps.x, stages.full(stage), step.channel,
                work.column * tiling.stride - padding + step.kx, work.row * tiling.stride - padding + step.ky,
                work.image);
  };

  int item = static_cast<int>(blockIdx.x);
  Work work = work_of(tiling, item, kTile.n);
  const Step start(tiling, work.first, kTile.k);
  const int ahead = min(stages.count, work.last - work.first);
  Step step = start;
#pragma unroll 1
  for (int stage = 0; stage < ahead; ++stage, step.advance<kTile.taps>(tiling, kTile.k))
    load_weights(stage, work, step, stage == ahead - 1 ? kTile.second_weights_bytes() : 0);
  if constexpr (kTile.then > 0) {
    // They come with the last of these stages: nobody needs them before, and they need no barrier of their own.
    const std::uint32_t to = stages.end(kTile.teams());
#pragma unroll
    for (int chunk = 0; chunk < kTile.n / kTile.chunk(); ++chunk)
      tensor_load(to + chunk * kTile.then * Staged<kTile>::kSpan, second.weights, stages.full(ahead - 1),
                  chunk * kTile.chunk(), 0, 0, 0);
  }
  wait_for_predecessors();
  let_successors_start();
  step = start;
#pragma unroll 1
  for (int stage = 0; stage < ahead; ++stage, step.advance<kTile.taps>(tiling, kTile.k))
    load_pixels(stage, work, step);
  arguments.next.prefetch(blockIdx.x, 0, 1);

  int left = work.last - work.first - ahead;
  Turn turn{ahead == stages.count ? 0 : ahead, ahead == stages.count ? 1u : 0u};
  Turn end;  // its stage is the team whose tile it is
#pragma unroll 1
  for (;;) {
#pragma unroll 1
    for (; left > 0; --left, step.advance<kTile.taps>(tiling, kTile.k), turn.advance(stages.count)) {
      mbarrier_wait(stages.empty(turn.stage), turn.parity ^ 1);
      load_weights(turn.stage, work, step);
      load_pixels(turn.stage, work, step);
    }
    if (arguments.staged_residual) {
      mbarrier_wait(stages.end_empty(end.stage), end.parity);
      mbarrier_arrive_expect(stages.end_full(end.stage), tiling.rows * tiling.columns * kTile.n * 2);
#pragma unroll
      for (int chunk = 0; chunk < kTile.n / kTile.chunk(); ++chunk)
        tensor_load(stages.end(end.stage) + chunk * Staged<kTile>::kChunkBytes, maps.residual,
                    stages.end_full(end.stage), work.channel + chunk * kTile.chunk(), work.column, work.row,
                    work.image);
      end.advance(kTile.teams());
    }
    item += static_cast<int>(gridDim.x);
    if (item >= tiling.items) break;
    work = work_of(tiling, item, kTile.n);
    step = Step(tiling, work.first, kTile.k);
    left = work.last - work.first;
  }
  // A block must not end before the other one's last arrivals at its barriers.
  if (tiling.sharing > 1)
    for (int i = 0; i < stages.count; ++i, turn.advance(stages.count))
      mbarrier_wait(stages.empty(turn.stage), turn.parity ^ 1);
}

// A warpgroup adds up groups() × 64 pixels × n channels over some steps. One step's products are under way while the
// next one's are issued; a stage is free when its own are done. It calls `issued` when all have been issued.
template <Tile kTile, typename T, typename Issued>
__device__ __forceinline__ void multiply_stages(const Stages& stages, const Tiling& tiling, int steps, int warpgroup,
                                                Turn& turn, float (&sums)[kTile.fragments()][4], Issued issued) {
  constexpr int kDepth = 16;  // products of one instruction
  const bool first_lane = threadIdx.x % kLanes == 0;
  const int tap_bytes = tiling.columns * kTile.span();  // from one tap's pixels to the next one's
  int before = -1;                                      // the stage of the step before
  fence_registers(sums);
#pragma unroll 1
  for (; steps > 0; --steps, turn.advance(stages.count)) {
    const std::uint32_t pixels = stages.pixels(turn.stage) + warpgroup * kTile.groups() * 64 * kTile.span();
    const std::uint32_t weights = stages.weights(turn.stage);
    mbarrier_wait(stages.full(turn.stage), turn.parity);
    wgmma_fence();
#pragma unroll
    for (int tap = 0; tap < kTile.taps; ++tap) {
      const std::uint64_t a = matrix_descriptor(pixels + tap * tap_bytes, kTile.span());
      const std::uint64_t b = matrix_descriptor(weights + tap * kTile.n * kTile.span(), kTile.span());
#pragma unroll
      for (int k = 0; k < kTile.k / kDepth; ++k)
#pragma unroll
        for (int group = 0; group < kTile.groups(); ++group)
          wgmma<T, kTile.n>(&sums[group * kTile.n / 8], a + ((group * 64 * kTile.span() + k * 2 * kDepth) >> 4),
                            b + ((k * 2 * kDepth) >> 4));
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (before >= 0 && first_lane) stages.release(before);
    before = turn.stage;
  }
  issued();
  wgmma_wait<0>();
  fence_registers(sums);
  if (before >= 0 && first_lane) stages.release(before);
}

// One thread has the tile taken away from its place, when all have put their parts.
template <Tile kTile>
__device__ __forceinline__ void store_tile(const CUtensorMap& map, std::uint32_t place, const Work& work) {
#pragma unroll
  for (int chunk = 0; chunk < kTile.n / kTile.chunk(); ++chunk)
    tensor_store(map, place + chunk * Staged<kTile>::kChunkBytes, work.channel + chunk * kTile.chunk(), work.column,
                 work.row, work.image);
  store_commit();
}

// The warpgroups that multiply go through the work items; where there are two teams, each through every other one.
template <Tile kTile, typename T>
__device__ __forceinline__ void compute_tiles(const Maps& maps, const Arguments<T>& arguments,
                                              const SecondOrNothing<T, kTile.then>& second, const Stages& stages,
                                              unsigned char* end, int team, int warp) {
  wait_for_predecessors();
  let_successors_start();
  const Tiling& tiling = arguments.tiling;
  const EpilogueArguments<T>& epilogue = arguments.result.epilogue;
  constexpr int kTeam = kTile.warps() * kLanes;  // threads
  // The named barriers at which the team meets, and waits for its turn to multiply.
  const int team_barrier = 1 + team, turn_barrier = 3 + team, other_turn_barrier = 3 + (team ^ 1);
  const bool first_thread = threadIdx.x % kTeam == 0;
  const int blocks = static_cast<int>(gridDim.x);
  Turn turn;
  if (team == 1) turn.skip(tiling.steps, stages.count);
  unsigned end_parity = 0;
#pragma unroll 1
  for (int item = static_cast<int>(blockIdx.x) + team * blocks; item < tiling.items; item += kTile.teams() * blocks) {
    const Work work = work_of(tiling, item, kTile.n);
    if (arguments.staged_residual && first_thread) {
      store_wait_read<0>();
      mbarrier_arrive(stages.end_empty(team));
    }
    float sums[kTile.fragments()][4];
    start_sums<kTile>(arguments.staged ? epilogue.bias : nullptr, work.channel, arguments.result.c, sums);
    if (kTile.pingpong && item >= blocks) named_barrier(turn_barrier, kTile.consumers());
    multiply_stages<kTile, T>(stages, tiling, work.last - work.first, warp / 4, turn, sums, [&] {
      if (kTile.pingpong && item + blocks < tiling.items) named_barrier_arrive(other_turn_barrier, kTile.consumers());
    });
    if (kTile.pingpong) turn.skip(tiling.steps, stages.count);
    if constexpr (kTile.then == 0)
      if (!arguments.staged) {
        if constexpr (kTile.splits())
          if (tiling.split > 1) exchange_shares<kTile>(tiling, stages, work.share, warp, sums);
        store_pieces<kTile>(tiling, arguments.result, work, warp, reinterpret_cast<float*>(end), sums);
        continue;
      }
    if (arguments.staged_residual) {
      mbarrier_wait(stages.end_full(team), end_parity);
      end_parity ^= 1;
    } else {
      if (first_thread) store_wait_read<0>();
      named_barrier(team_barrier, kTeam);
    }
    put_tile<kTile>(epilogue, warp, end, sums);
    fence_async_shared();
    named_barrier(team_barrier, kTeam);
    if constexpr (kTile.then == 0) {
      if (first_thread) store_tile<kTile>(maps.y, stages.end(team), work);
    } else {
      constexpr Tile kSecond = kTile.second();
      if (first_thread && arguments.stored) store_tile<kTile>(maps.y, stages.end(team), work);
      float second_sums[kSecond.fragments()][4];
      start_sums<kSecond>(second.epilogue.bias, 0, second.c, second_sums);
      multiply_tile<kTile, T>(stages, team, warp / 4, second_sums);
      if (first_thread) store_wait_read<0>();
      named_barrier(team_barrier, kTeam);
      put_tile<kSecond>(second.epilogue, warp, end, second_sums);
      fence_async_shared();
      named_barrier(team_barrier, kTeam);
      if (first_thread) store_tile<kSecond>(second.y, stages.end(team), work);
    }
  }
  if (arguments.staged && first_thread) store_wait_read<0>();
}

// y[pixel][channel] = epilogue(Σ x[pixel shifted by tap][k] · weights[channel][tap][k]).
//
// A tile is a rectangle of m pixels × n channels. A step of its sum is one tap × k input channels, and takes two bulk
// tensor copies: the rectangle of x, shifted by the tap, and the n rows of weights. Both arrive swizzled, a pixel or a
// channel in each row, which is how wgmma reads its factors. Copies give zeros outside the tensor: that is the padding
// of the convolution, and it fills tails of channels. With stride 2 the copy takes every other pixel. So the kernel
// has no address arithmetic, and no masks.
//
// A step may also be the three taps of a window's column. Then the rectangle has two rows more, and each tap's pixels
// begin one row after the last one's: where rows are whole periods of the swizzle, 8 pixels, that is only another
// start for the same descriptor. Every pixel comes 3 · (rows + 2) / rows times from L2, and not 9.
//
// One warp copies; one or two warpgroups of 128 threads multiply, each 64 to 512 of the pixels. Where two do and a
// thread has 96 sums or more, the warp is a warpgroup, which keeps 40 registers a thread and gives them 232. Blocks
// stay and take every so many-th work item: while one is in its epilogue, its next tile's stages fill up, and the
// other blocks of the multiprocessor multiply (with a residual, whose place is then taken, one tile ahead at most).
// What ends the sums is in conv_sm90_epilogue.cuh.
//
// Two warpgroups may also take turns (`pingpong`): each adds up every other one of the block's tiles alone, and ends
// it in a place of its own while the other one multiplies. A turn begins when the other has issued all products of the
// tile before. The stages, which come in this order, would not do: where a sum has no more steps than there are
// stages, both would find theirs full, multiply hand in hand and end together, with nothing hidden. And they rely on
// the turns themselves: a barrier's parity tells a phase only to those who know that the one before has ended, and a
// warpgroup does not wait for the other's stages. Turns are passed on by named barriers, at which the one who passes
// it on does not wait.
//
// Two blocks with neighbouring tiles of the same channels may share their weights: as a cluster, each brings one half
// of them to both (`sharing`).
//
// Where tiles are fewer than multiprocessors, a cluster of blocks shares each tile's sum (`split`), and each of its
// blocks ends a part of the tile.
//
// Where a tile has all channels of its pixels, a 1×1 convolution may follow (`then`): what the first one's epilogue
// leaves in shared memory, in rows of a pixel each and swizzled, for bulk copies, is just what wgmma reads. The second
// one's weights come once for each block and stay. That saves a launch and reading the first one's output, and where
// nobody else wants that, writing it. In turns, the second warpgroup waits for those weights in that it waits for its
// first turn: the first one has seen them come.
//
// The compiler must see that what a warp does is the same for its lanes, or else it guards every bulk copy with a loop
// over lanes and moves descriptors through vector registers: hence elect_one() and the shuffle of the warp's number.
//
// Floor: 2 · pixels · channels · taps · x.c operations over the tensor cores' rate at large batches, where an operand
// comes from L2 at 2 · (m + n) bytes for 2 · m · n operations: a byte for 64 of them at 128 × 128. With three taps at
// 256 × 128 it is a byte for 150, and for 212 where two blocks share weights. At batch 1 the floor is a wave's
// latency: filling the pipeline, and one tile's steps.
template <typename T, int M, int N, int K, int Taps, int Then, bool PingPong>
__global__ void __launch_bounds__(Tile{M, N, K, Taps, Then, PingPong}.threads(),
                                  Tile{M, N, K, Taps, Then, PingPong}.blocks())
    conv_kernel(const __grid_constant__ Maps maps, const __grid_constant__ Arguments<T> arguments,
                const __grid_constant__ SecondOrNothing<T, Then> second) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr Tile kTile{M, N, K, Taps, Then, PingPong};
  constexpr int kCopier = kTile.consumers() / kLanes;  // the warp that copies
  const Tiling& tiling = arguments.tiling;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = __shfl_sync(~0u, thread / kLanes, 0);  // so that the compiler knows it is the same for all lanes

  auto* const shared = dynamic_shared<unsigned char>();
  const std::uint32_t barriers = shared_address(shared);
  const std::uint32_t first = (barriers + kBarrierBytes + kStageAlignment - 1) / kStageAlignment * kStageAlignment;
  const Stages stages{barriers,
                      first,
                      arguments.stages,
                      arguments.stage_bytes,
                      arguments.pixel_bytes,
                      kTile.end_bytes(1),
                      tiling.sharing == 1 ? Stages::kNone : shared_address_in(barriers, cluster_rank() ^ 1)};
  if (warp == 0 && elect_one()) {
    for (int stage = 0; stage < stages.count; ++stage) {
      mbarrier_init(stages.full(stage), 1);
      mbarrier_init(stages.empty(stage), kTile.warps() * tiling.sharing);
    }
    for (int team = 0; team < kTile.teams(); ++team) {
      mbarrier_init(stages.end_full(team), 1);
      mbarrier_init(stages.end_empty(team), 1);
    }
    fence_mbarrier_init();
    fence_async_shared();
    if (kTile.splits() && tiling.split > 1) {
      const int share = cluster_rank();
      const int pieces = (kTile.pieces() - share + tiling.split - 1) / tiling.split;
      mbarrier_arrive_expect(stages.end_full(0), pieces * tiling.split * kSumsBlock * 4);
    }
  }
  if (warp == kCopier && elect_one()) {
    prefetch_tensor_map(maps.weights);
    prefetch_tensor_map(maps.x);
    if (arguments.stored) prefetch_tensor_map(maps.y);
    if (arguments.staged_residual) prefetch_tensor_map(maps.residual);
    if constexpr (Then > 0) {
      prefetch_tensor_map(second.weights);
      prefetch_tensor_map(second.y);
    }
  }
  __syncthreads();
  if (tiling.split * tiling.sharing > 1) cluster_arrive();
  if (tiling.sharing > 1) cluster_wait();

  if (warp >= kCopier) {
    if constexpr (kTile.lends()) give_registers<40>();
    if (warp == kCopier && elect_one()) load_stages<kTile>(maps, arguments, second, stages);
    __syncwarp();
    if (kTile.splits() && tiling.split > 1) cluster_wait();
  } else {
    if constexpr (kTile.lends()) take_registers<232>();
    const int team = kTile.pingpong ? warp / kTile.warps() : 0;
    compute_tiles<kTile>(maps, arguments, second, stages, shared + (stages.end(team) - barriers), team,
                         warp - team * kTile.warps());
  }
#else
  __trap();  // nobody launches it here
#endif
}

}  // namespace damoyolo::kernels::conv_sm90
