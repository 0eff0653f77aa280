// What lies where in a block of conv_sm90 and in its shared memory: barriers, stages, and what its epilogue needs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/conv_epilogue.cuh"
#include "kernels/conv_sm90_tiling.cuh"
#include "kernels/ptx_sm90.cuh"

namespace damoyolo::kernels {

constexpr int kMaxStages = 7;
constexpr int kWarpgroup = 128;        // threads
constexpr int kStageAlignment = 1024;  // bytes; its swizzle repeats after as many
// `full` and `empty` of every stage and of the end, see Stages. A second team's end has the last stage's.
constexpr int kBarrierBytes = 2 * (kMaxStages + 1) * 8;
static_assert(kBarrierBytes <= 128);  // in front of the first stage, in what aligning it takes
// Of a multiprocessor, and what the system takes of it for each block.
constexpr int kMultiprocessorBytes = 228 * 1024, kReservedBytes = 1024;

// A tile's size: pixels and channels; and of a step of its sums: input channels and taps. Few input channels are for
// layers that have no more, whose wider boxes would be mostly zeros, and for steps of three taps, which are as long.
// `then`: where a tile has all channels, those of a 1×1 convolution behind it, whose tile is second(); or 0.
// `pingpong`: two teams multiply in turn, each one warpgroup with tiles of its own, and not one of up to two; not for
// pairs.
struct Tile {
  int m, n, k, taps, then = 0;
  bool pingpong = false;

  bool operator==(const Tile&) const = default;

  // Whether blocks may share its sums.
  __host__ __device__ constexpr bool splits() const { return then == 0 && !pingpong; }
  __host__ __device__ constexpr int teams() const { return pingpong ? 2 : 1; }
  __host__ __device__ constexpr int warpgroups() const { return m == 64 || pingpong ? 1 : 2; }  // of a team
  __host__ __device__ constexpr int warps() const { return warpgroups() * kWarpgroup / kLanes; }
  __host__ __device__ constexpr int groups() const { return m / 64 / warpgroups(); }  // of 64 pixels, for a warpgroup
  __host__ __device__ constexpr int fragments() const { return groups() * n / 8; }    // of 4 sums, for each thread
  __host__ __device__ constexpr Tile second() const { return {m, then, k, 1}; }
  __host__ __device__ constexpr int most_channels() const { return n > then ? n : then; }
  __host__ __device__ constexpr int consumers() const { return teams() * warpgroups() * kWarpgroup; }
  // More sums than the registers that all threads have alike leave room for. Then a whole warpgroup stands where one
  // warp copies, which can give its registers away. One that multiplies alone has enough.
  __host__ __device__ constexpr bool lends() const {
    return consumers() > kWarpgroup && groups() * most_channels() >= 192;
  }
  __host__ __device__ constexpr int threads() const { return consumers() + (lends() ? kWarpgroup : kLanes); }
  // On a multiprocessor at a time: as many as the registers allow, or, in a pair, the second's weights.
  __host__ __device__ constexpr int blocks() const {
    if (second_weights_bytes() > 16 * 1024) return 1;
    return (groups() * most_channels() > 64 ? 1 : 2) + (consumers() == kWarpgroup ? 1 : 0);
  }

  __host__ __device__ constexpr int span() const { return 2 * k; }                // bytes of a row of either factor
  __host__ __device__ constexpr int pieces() const { return m / 16 * (n / 32); }  // of 16 pixels × 32 channels
  // Channels of one bulk copy between shared memory and y or a residual.
  __host__ __device__ constexpr int chunk() const { return n % 64 == 0 ? 64 : 32; }

  __host__ __device__ constexpr int place_bytes() const { return m * most_channels() * 2; }  // of a tile in 16 bits
  __host__ __device__ constexpr int second_weights_bytes() const { return n * then * 2; }

  constexpr int pixel_bytes(int columns) const {
    // The last tap's begin some rows of the rectangle later, and are m as well, though a rectangle may have fewer.
    const int bytes = (m + (taps - 1) * columns) * span();
    return (bytes + kStageAlignment - 1) / kStageAlignment * kStageAlignment;
  }
  constexpr int stage_bytes(int columns) const { return pixel_bytes(columns) + taps * n * span(); }
  // Of a team: the tile in 16 bits, or a piece of its sums for each warp; with a split, the pieces that a block ends.
  // In a pair, a place for the tiles of both in turn, and the second's weights.
  __host__ __device__ constexpr int end_bytes(int split) const {
    constexpr int kPieceBytes = kSumsBlock * 4;
    if (then > 0) return place_bytes() + second_weights_bytes();
    if (split > 1) return (pieces() + split - 1) * kPieceBytes;
    return place_bytes() > warps() * kPieceBytes ? place_bytes() : warps() * kPieceBytes;
  }
  // As many as there is room for. Where sums are shared, blocks are few and each may have a multiprocessor.
  constexpr int stages(int columns, int split) const {
    const int bytes = kMultiprocessorBytes / (split == 1 ? blocks() : 1) - kReservedBytes - kStageAlignment -
                      teams() * end_bytes(split);
    return std::min(kMaxStages + 1 - teams(), bytes / stage_bytes(columns));
  }
  constexpr int shared_bytes(int columns, int split, int stages) const {
    return kStageAlignment + stages * stage_bytes(columns) + teams() * end_bytes(split);
  }
};

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
