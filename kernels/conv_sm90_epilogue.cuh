// The ends of conv_sm90's sums. Three ways lead from registers to the output:
//
// - through a tile in shared memory that bulk copies bring and take away, where the output and a residual of its size
//   have the input's type and are aligned: no addresses, and no masks;
// - piece by piece, each warp on its own, for any other output;
// - over a cluster whose blocks each hold a share of the sums: every block gets a part of the pieces from all.
#pragma once

#include "kernels/conv_epilogue.cuh"
#include "kernels/conv_sm90_layout.cuh"
#include "kernels/ptx_sm90.cuh"

namespace damoyolo::kernels {

// Two neighbouring channels.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

template <typename T>
__device__ __forceinline__ unsigned pack(float first, float second) {
  const Pair<T> pair{from_float<T>(first), from_float<T>(second)};
  unsigned word;
  __builtin_memcpy(&word, &pair, sizeof word);
  return word;
}

template <typename T>
__device__ __forceinline__ void unpack(unsigned word, float& first, float& second) {
  Pair<T> pair;
  __builtin_memcpy(&pair, &word, sizeof word);
  first = to_float(pair.first);
  second = to_float(pair.second);
}

// Moves the fragments after the first four to the front: loops over parts of the sums always use the first registers,
// and so are compiled once, and not as often as there are registers.
template <int N>
__device__ __forceinline__ void drop_four(float (&fragments)[N][4]) {
#pragma unroll
  for (int i = 0; i + 4 < N; ++i)
#pragma unroll
    for (int k = 0; k < 4; ++k) fragments[i][k] = fragments[i + 4][k];
}

// 16 pixels × 32 channels of a tile, from pixel 16·row and channel 32·column on.
struct Piece {
  int row, column;
};

// The warp's i-th piece.
template <Tile kTile>
__device__ __forceinline__ Piece piece_of_warp(int warp, int i) {
  constexpr int kAcross = kTile.n / 32;
  const int group = kTile.groups() == 1 ? 0 : i / kAcross;
  return {(warp / 4 * kTile.groups() + group) * 4 + warp % 4, i - group * kAcross};
}

// put_sums() into the memory of another block of the cluster, whose barrier hears of it.
__device__ __forceinline__ void send_sums(std::uint32_t block, std::uint32_t barrier, const float (*fragments)[4]) {
  for_each_pair(fragments,
                [&](int place, float first, float second) { store_async(block + place * 4, barrier, first, second); });
}

// Where every block of a cluster has a share of the tile's sums, block r ends the pieces r, r + split, and so on, row
// by row. Sends each piece to the memory of the block that ends it, and waits until those of this block have come from
// all.
template <Tile kTile>
__device__ __forceinline__ void exchange_shares(const Tiling& tiling, const Stages& stages, int share, int warp,
                                                float (&sums)[kTile.fragments()][4]) {
  cluster_wait();  // the others are there, and their barriers
#pragma unroll 1
  for (int i = 0; i < kTile.fragments() / 4; ++i, drop_four(sums)) {
    const Piece piece = piece_of_warp<kTile>(warp, i);
    const int number = piece.row * (kTile.n / 32) + piece.column, place = tiling.by_split.divide(number);
    const int owner = number - place * tiling.split;
    send_sums(shared_address_in(stages.end(0) + (place * tiling.split + share) * kSumsBlock * 4, owner),
              shared_address_in(stages.end_full(0), owner), sums);
  }
  mbarrier_wait_cluster(stages.end_full(0), 0);
}

// Ends the sums piece by piece, each warp on its own: its own pieces, through a block of shared memory, or some of
// those that have come from a cluster.
template <Tile kTile, typename T>
__device__ __forceinline__ void store_pieces(const Tiling& tiling, const ConvResult<T>& result, const Work& work,
                                             int warp, float* blocks, float (&sums)[kTile.fragments()][4]) {
  const int split = tiling.split, lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll 1
  for (int i = 0;; ++i, drop_four(sums)) {
    Piece piece;
    const float* from;
    if (split > 1) {
      const int place = i * kTile.warps() + warp, number = place * split + work.share;
      if (number >= kTile.pieces()) break;
      piece = {number / (kTile.n / 32), number % (kTile.n / 32)};
      from = blocks + place * split * kSumsBlock;
    } else {
      if (i == kTile.fragments() / 4) break;
      piece = piece_of_warp<kTile>(warp, i);
      from = blocks + warp * kSumsBlock;
      __syncwarp();  // all have read what was here before
      put_sums(blocks + warp * kSumsBlock, sums);
      __syncwarp();
    }
    float values[2][8] = {};
#pragma unroll 1
    for (int share = 0; share < split; ++share, from += kSumsBlock)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float more[8];
        get_sums(from, lane / 4 + 8 * half, lane % 4, more);
#pragma unroll
        for (int k = 0; k < 8; ++k) values[half][k] += more[k];
      }
    const int pixel = piece.row * 16 + lane / 4, channel = piece.column * 32 + lane % 4 * 8;
    const ConvPixel pixels[2] = {output_pixel(tiling, work, pixel), output_pixel(tiling, work, pixel + 8)};
    finish_and_store(result, pixels, work.channel + channel, values);
  }
}

// A tile in shared memory as bulk copies see it: chunks of channels, each with a row for every pixel, whose units of
// 16 bytes are swizzled over the row.
template <Tile kTile>
struct Staged {
  static constexpr int kSpan = 2 * kTile.chunk(), kUnits = kSpan / 16;
  static constexpr int kChunkBytes = kTile.m * kSpan;

  // Channels [8·unit, 8·unit + 8) of a pixel, from the tile's first byte on.
  __device__ __forceinline__ static int place(int pixel, int unit) {
    const int swizzled = unit % kUnits ^ (kUnits == 8 ? pixel : pixel / 2) % kUnits;
    return unit / kUnits * kChunkBytes + pixel * kSpan + swizzled * 16;
  }
};

// Ends the sums, which hold their bias already, in the tile's place in shared memory, where a residual may be.
template <Tile kTile, typename T>
__device__ __forceinline__ void put_tile(const EpilogueArguments<T>& epilogue, int warp, unsigned char* tile,
                                         float (&sums)[kTile.fragments()][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  // Small tiles are for small maps, whose kernels live so briefly that fetching their code shows. In large tiles,
  // moving the fragments would.
#pragma unroll(kTile.fragments() > 8 ? kTile.fragments() / 4 : 1)
  for (int i = 0; i < kTile.fragments() / 4; ++i, drop_four(sums)) {
    const Piece piece = piece_of_warp<kTile>(warp, i);
    const int pixel = piece.row * 16 + lane % 16, unit = piece.column * 4 + lane / 16;
    unsigned char* const places[2] = {tile + Staged<kTile>::place(pixel, unit),
                                      tile + Staged<kTile>::place(pixel, unit + 2)};
    float values[16], residual[16];
#pragma unroll
    for (int k = 0; k < 16; ++k) values[k] = sums[k / 4][k % 4];
    if (epilogue.residual.data != nullptr) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        unsigned words[4];
        ldmatrix_x4(words, places[half]);
#pragma unroll
        for (int k = 0; k < 4; ++k) unpack<T>(words[k], residual[8 * half + 2 * k], residual[8 * half + 2 * k + 1]);
      }
    }
    const auto for_each_value = [&](auto change) {
#pragma unroll
      for (int k = 0; k < 16; ++k) change(values[k], k);
    };
    activate_with_residual<silu_approximately>(epilogue, for_each_value,
                                               [&](float& value, int k) { value += residual[k]; });
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) words[k] = pack<T>(values[8 * half + 2 * k], values[8 * half + 2 * k + 1]);
      stmatrix_x4(places[half], words);
    }
  }
}

// The sums before the first product: zeros, or the bias, which is for whole groups of 8 channels.
template <Tile kTile>
__device__ __forceinline__ void start_sums(const float* bias, int channel, int channels,
                                           float (&sums)[kTile.fragments()][4]) {
  const int first = channel + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kTile.n / 8; ++i) {
    Pair<float> pair{0, 0};
    if (bias != nullptr && first + 8 * i < channels)
      pair = *reinterpret_cast<const Pair<float>*>(bias + first + 8 * i);
#pragma unroll
    for (int group = 0; group < kTile.groups(); ++group)
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[group * kTile.n / 8 + i][k] = k % 2 == 0 ? pair.first : pair.second;
  }
}

// The second convolution of a pair: adds up the products of the tile that put_tile() has left, every pixel of it a row
// of wgmma's first factor, and of the weights behind it. Returns when all sums are done.
template <Tile kTile, typename T>
__device__ __forceinline__ void multiply_tile(const Stages& stages, int team, int warpgroup,
                                              float (&sums)[kTile.second().fragments()][4]) {
  constexpr int kDepth = 16, kSpan = Staged<kTile>::kSpan;
  const std::uint32_t pixels = stages.end(team) + warpgroup * kTile.groups() * 64 * kSpan;
  const std::uint32_t weights = stages.end(kTile.teams());
  fence_registers(sums);
  wgmma_fence();
#pragma unroll
  for (int chunk = 0; chunk < kTile.n / kTile.chunk(); ++chunk) {
    const std::uint64_t a = matrix_descriptor(pixels + chunk * Staged<kTile>::kChunkBytes, kSpan);
    const std::uint64_t b = matrix_descriptor(weights + chunk * kTile.then * kSpan, kSpan);
#pragma unroll
    for (int k = 0; k < kTile.chunk() / kDepth; ++k)
#pragma unroll
      for (int group = 0; group < kTile.groups(); ++group)
        wgmma<T, kTile.then>(&sums[group * kTile.then / 8], a + ((group * 64 * kSpan + k * 2 * kDepth) >> 4),
                             b + ((k * 2 * kDepth) >> 4));
  }
  wgmma_commit();
  wgmma_wait<0>();
  fence_registers(sums);
}

}  // namespace damoyolo::kernels
