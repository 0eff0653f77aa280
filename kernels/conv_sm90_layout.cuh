// What lies where in a block of conv_sm90 and in its shared memory: barriers, stages, and what its epilogue needs.
#pragma once

#include <cstdint>

#include "kernels/conv_epilogue.cuh"
#include "kernels/conv_sm90_tile.h"
#include "kernels/conv_sm90_tiling.cuh"
#include "kernels/ptx_sm90.cuh"

namespace damoyolo::kernels {

// `full` and `empty` of every stage and of the end, see Stages. A second team's end has the last stage's.
constexpr int kBarrierBytes = 2 * (kMaxStages + 1) * 8;
static_assert(kBarrierBytes <= 128);  // in front of the first stage, in what aligning it takes
static_assert(kPieceBytes == kSumsBlock * 4);
static_assert(kWarp == kLanes);

// Where the stages are in shared memory, as addresses of instructions. A stage is `full` when both factors have come,
// and `empty` when every warp of the team that multiplies it has, those of a block that shares the weights included.
// The third pair of barriers, one for each team, is for the residual: its place is free, and it has come. With a
// split, it is for the other blocks' sums.
struct Stages {
  std::uint32_t barriers, first;
  int count, bytes, pixel_bytes;
  int end_bytes;  // of a team
  static constexpr std::uint32_t kNone = ~0u;
  std::uint32_t other;  // the barriers of the block that shares the weights, or kNone

  __device__ __forceinline__ std::uint32_t full(int stage) const { return barriers + stage * 16; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return barriers + stage * 16 + 8; }
  __device__ __forceinline__ std::uint32_t pixels(int stage) const { return first + stage * bytes; }
  __device__ __forceinline__ std::uint32_t weights(int stage) const { return pixels(stage) + pixel_bytes; }
  __device__ __forceinline__ std::uint32_t end_full(int team) const { return barriers + (kMaxStages - team) * 16; }
  __device__ __forceinline__ std::uint32_t end_empty(int team) const { return end_full(team) + 8; }
  __device__ __forceinline__ std::uint32_t end(int team) const { return pixels(count) + team * end_bytes; }

  // A warp is done with the stage: says one of its threads to all who fill it.
  __device__ __forceinline__ void release(int stage) const {
    mbarrier_arrive(empty(stage));
    if (other != kNone) mbarrier_arrive_cluster(empty(stage) - barriers + other);
  }
};

}  // namespace damoyolo::kernels
