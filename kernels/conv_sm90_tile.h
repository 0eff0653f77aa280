// A tile of conv_sm90: its size, and what follows from that for the block that computes it. For the device, and for
// what chooses tiles on the host.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <span>

#include "kernels/conv.h"

namespace damoyolo::kernels {

// A stage is free when the next one's products have been issued: one alone would wait for itself.
constexpr int kFewestStages = 2, kMaxStages = 7;
constexpr int kWarp = 32, kWarpgroup = 128;  // threads
constexpr int kStageAlignment = 1024;        // bytes; its swizzle repeats after as many
constexpr int kPieceBytes = 16 * 32 * 4;     // of 16 pixels × 32 channels of sums
// Of a multiprocessor, and what the system takes of it for each block.
constexpr int kMultiprocessorBytes = 228 * 1024, kReservedBytes = 1024;

// A tile's size: pixels and channels; and of a step of its sums: input channels and taps. Few input channels are for
// layers that have no more, whose wider boxes would be mostly zeros, and for steps of three taps, which are as long.
// `then`: where a tile has all channels, those of a 1×1 convolution behind it, whose tile is second(); or 0.
// `pingpong`: two teams multiply in turn, each one warpgroup with tiles of its own, and not one of up to two.
struct Tile {
  int m, n, k, taps, then = 0;
  bool pingpong = false;

  bool operator==(const Tile&) const = default;

  // Whether blocks may share its sums.
  __host__ __device__ constexpr bool splits() const { return then == 0 && !pingpong; }
  __host__ __device__ constexpr int teams() const { return pingpong ? 2 : 1; }
  __host__ __device__ constexpr int warpgroups() const { return m == 64 || pingpong ? 1 : 2; }  // of a team
  __host__ __device__ constexpr int warps() const { return warpgroups() * kWarpgroup / kWarp; }
  __host__ __device__ constexpr int groups() const { return m / 64 / warpgroups(); }  // of 64 pixels, for a warpgroup
  __host__ __device__ constexpr int fragments() const { return groups() * n / 8; }    // of 4 sums, for each thread
  __host__ __device__ constexpr Tile second() const { return {m, then, k, 1, 0, pingpong}; }
  __host__ __device__ constexpr int most_channels() const { return n > then ? n : then; }
  __host__ __device__ constexpr int consumers() const { return teams() * warpgroups() * kWarpgroup; }
  // More sums than the registers that all threads have alike leave room for. Then a whole warpgroup stands where one
  // warp copies, which can give its registers away. One that multiplies alone has enough.
  __host__ __device__ constexpr bool lends() const {
    return consumers() > kWarpgroup && groups() * most_channels() >= 192;
  }
  __host__ __device__ constexpr int threads() const { return consumers() + (lends() ? kWarpgroup : kWarp); }
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
  // Of a team: the tile in 16 bits, in a pair those of both in turn, or a piece of its sums for each warp; with a
  // split, the pieces that a block ends.
  __host__ __device__ constexpr int end_bytes(int split) const {
    if (split > 1) return (pieces() + split - 1) * kPieceBytes;
    return place_bytes() > warps() * kPieceBytes ? place_bytes() : warps() * kPieceBytes;
  }
  // Behind the stages: the ends of all teams, and of a pair the second's weights.
  constexpr int bytes_behind(int split) const { return teams() * end_bytes(split) + second_weights_bytes(); }
  // As many as there is room for. Where sums are shared, blocks are few and each may have a multiprocessor.
  constexpr int stages(int columns, int split) const {
    const int bytes =
        kMultiprocessorBytes / (split == 1 ? blocks() : 1) - kReservedBytes - kStageAlignment - bytes_behind(split);
    return std::min(kMaxStages + 1 - teams(), bytes / stage_bytes(columns));
  }
  constexpr int shared_bytes(int columns, int split, int stages) const {
    return kStageAlignment + stages * stage_bytes(columns) + bytes_behind(split);
  }
};

constexpr Tile tile_of(const ConvConfig& config) {
  return {config.m, config.n, config.k, config.taps, config.then, config.pingpong};
}

// The configuration with so many columns, and as many stages as there is room for.
constexpr ConvConfig config_of(const Tile& tile, int columns) {
  return {tile.m, tile.n, tile.k, tile.stages(columns, 1), columns, 1, tile.taps, 1, tile.then, tile.pingpong};
}

// What a tile's columns may be: divisors of the maps' widths, for inputs of 640 and 416 pixels, or close to one. Taps
// that share their pixels are a whole number of the swizzle's periods apart, 8 pixels. 0, for 1×1: pixels in a row, of
// which a bulk copy brings 256 at most; the windows of a pair's first are rectangles.
inline constexpr int kColumns[] = {0, 8, 13, 16, 20, 26, 40}, kColumnsOfThreeTaps[] = {8, 16, 24};
constexpr std::span<const int> columns_of(const Tile& tile) {
  if (tile.taps == 3) return kColumnsOfThreeTaps;
  return std::span<const int>(kColumns).subspan(tile.then == 0 && tile.m <= 256 ? 0 : 1);
}

}  // namespace damoyolo::kernels
