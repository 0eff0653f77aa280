// The end of a convolution on tensor cores: from sums in registers, in the order in which mma.sync and wgmma leave
// them, to the output.
#pragma once

#include "kernels/conv.h"
#include "kernels/divisor.cuh"
#include "kernels/epilogue.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {

// What becomes of the sums and where they go: to one of the two slices, the other has no data. Branches on it are the
// same for a whole grid and stand outside of every sum, so that they cost nothing that shows; one compiled kernel
// serves all epilogues.
template <typename T>
struct ConvResult {
  EpilogueArguments<T> epilogue;
  Slice<T> y;
  Slice<float> y_f32;
  int c;
  bool aligned;  // bias, residual and output, so that 8 channels can be moved at once
  Divisor by_width;
};

template <typename T>
ConvResult<T> conv_result(const Convolution& convolution, const char* kernel) {
  const TensorView& y = convolution.y;
  const bool f32 = y.type == DType::F32;
  ConvResult<T> result{epilogue_arguments<T>(convolution.epilogue, y, convolution.x.type, kernel),
                       slice<T>(f32 ? TensorView{} : y),
                       slice<float>(f32 ? y : TensorView{}),
                       y.c,
                       false,
                       Divisor(y.w)};
  const Slice<T>& residual = result.epilogue.residual;
  result.aligned = result.epilogue.bias_aligned && (residual.data == nullptr || residual.aligned) &&
                   (result.y.aligned || result.y_f32.aligned);
  return result;
}

// A pixel of the output, counted through rows and images, or none.
struct ConvPixel {
  int index;
  bool exists;
};

// x / (1 + e^−x) by the approximations of the special function unit: their error, a few units of fp32's last place, is
// far below what 16-bit inputs have been rounded by. Far below zero the reciprocal becomes 0, as it should.
__device__ __forceinline__ float silu_approximately(float x) {
  constexpr float kLog2E = 1.44269504f;
  return x * reciprocal_approximately(1.0f + exp2_approximately(-kLog2E * x));
}

// Where `Whole`, all of the 8 channels exist and everything is aligned: then every access is of 16 bytes, and there is
// no branch but those that are the same for the whole grid. Pixels that do not exist read the first one's residual.
template <bool Whole, int Pixels, typename T>
__device__ __forceinline__ void finish_and_store_channels(const ConvResult<T>& result,
                                                          const ConvPixel (&pixels)[Pixels], int channel, int count,
                                                          float (&sums)[Pixels][8]) {
  const auto for_each_sum = [&](auto change) {
#pragma unroll
    for (int i = 0; i < Pixels; ++i)
#pragma unroll
      for (int k = 0; k < 8; ++k) change(sums[i][k], i, k);
  };
  const EpilogueArguments<T>& epilogue = result.epilogue;
  const Slice<T>& from = epilogue.residual;
  float residual[Pixels][8];
  if (from.data != nullptr) {
#pragma unroll
    for (int i = 0; i < Pixels; ++i) {
      int index = pixels[i].exists ? pixels[i].index : 0;
      if (epilogue.residual_shift != 0) {
        // Maps of even size: every other row has a row of the residual, through all images.
        const int row = result.by_width.divide(index);
        index = row / 2 * from.w + index / 2 - row * from.w;
      }
      load(from.data + (index * from.pixel_stride + channel), count, Whole, residual[i]);
    }
  }
  if (epilogue.bias != nullptr) {
    float bias[8];
    load(epilogue.bias + channel, count, Whole, bias);
    for_each_sum([&](float& sum, int, int k) { sum += bias[k]; });
  }
  activate_with_residual<silu_approximately>(epilogue, for_each_sum,
                                             [&](float& sum, int i, int k) { sum += residual[i][k]; });
  const auto store_all = [&](const auto& to) {
#pragma unroll
    for (int i = 0; i < Pixels; ++i)
      if (pixels[i].exists) store(to.data + (pixels[i].index * to.pixel_stride + channel), count, Whole, sums[i]);
  };
  if (result.y_f32.data != nullptr)
    store_all(result.y_f32);
  else
    store_all(result.y);
}

// Ends and stores sums[i], those of 8 channels from `channel` on of pixels[i]; channels past the output's last and
// pixels that do not exist are left out. All residuals are on their way before the first is needed.
template <int Pixels, typename T>
__device__ __forceinline__ void finish_and_store(const ConvResult<T>& result, const ConvPixel (&pixels)[Pixels],
                                                 int channel, float (&sums)[Pixels][8]) {
  const int count = result.c - channel;
  if (result.aligned && count >= 8)
    finish_and_store_channels<true>(result, pixels, channel, 8, sums);
  else if (count > 0)
    finish_and_store_channels<false>(result, pixels, channel, count, sums);
}

// Through shared memory, the sums of 16 pixels × 32 channels come from the order in which mma.sync and wgmma leave
// them into rows, of which a lane can take the 8 neighbouring channels that fill a store. A warp writes such a block,
// 512 floats at a multiple of 128 bytes, with put_sums(), and reads it with get_sums() after __syncwarp().
//
// Rows are pixels, 128 bytes each: all banks once, in units of 16 bytes. A unit's place in its row is its number with
// some bits flipped by the row: two bits so that 16 lanes that write two neighbouring units of four rows meet in no
// bank, and the lowest one so that 8 lanes that read every other unit of two rows do not either.
constexpr int kSumsBlock = 16 * 32;

__device__ __forceinline__ int flips_of_row(int row) { return (row & 3) << 1 | (row & 1); }

// Lane l holds channels 8·i + 2·(l % 4) and the next one, in fragments[i][0, 1] of pixel l / 4 and in
// fragments[i][2, 3] of pixel l / 4 + 8. Calls put(place in the block, first, second) for each pair.
template <typename Put>
__device__ __forceinline__ void for_each_pair(const float (*fragments)[4], Put put) {
  const int lane = static_cast<int>(threadIdx.x % kLanes), row = lane / 4;
  const int place = row * 32 + (lane % 4 / 2 ^ flips_of_row(row)) * 4 + lane % 2 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int to = place ^ 2 * i * 4;  // 2·i units on
    put(to, fragments[i][0], fragments[i][1]);
    put(to + 8 * 32, fragments[i][2], fragments[i][3]);
  }
}

__device__ __forceinline__ void put_sums(float* block, const float (*fragments)[4]) {
  struct alignas(8) Pair {
    float first, second;
  };
  for_each_pair(fragments, [&](int place, float first, float second) {
    *reinterpret_cast<Pair*>(block + place) = {first, second};
  });
}

// Channels [8·group, 8·group + 8) of a pixel.
__device__ __forceinline__ void get_sums(const float* block, int row, int group, float (&sums)[8]) {
  const int unit = 2 * group ^ flips_of_row(row);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto packet = *reinterpret_cast<const Packet<float>*>(block + row * 32 + (unit ^ half) * 4);
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[4 * half + k] = packet.values[k];
  }
}

// A barrier of the block that tells whether one of its threads gave true.
struct AnyOfBlock {
  __device__ __forceinline__ bool operator()(bool value) const { return __syncthreads_or(value) != 0; }
};

// Adds up a tile's sums over the `split` blocks of T threads that share it, this one being number `share`, in the
// order of their numbers. True in the block that comes last, which then has all; the others have nothing left to do.
// The T threads, the block's first, all take part; any(value) is a barrier of them that tells whether one gave true.
// workspace: the tile's [split][N][T][4]; ticket: the tile's, 0 before and after.
//
// One thread takes the ticket for all: its block's sums come before it by the first barrier, and reading the others'
// after it by the second. Barriers and the ticket's order add up (PTX's causality order is transitive), and taking
// tickets is a chain of read-modify-writes, so that the last one has seen the release of each block before it.
template <int T, int N, typename Any = AnyOfBlock>
__device__ __forceinline__ bool add_shares(float* workspace, unsigned* ticket, int share, int split,
                                           float (&sums)[N][4], Any any = {}) {
  auto* packets = reinterpret_cast<Packet<float>*>(workspace) + threadIdx.x;
  const int mine = share * N;
#pragma unroll
  for (int i = 0; i < N; ++i) packets[(mine + i) * T] = {{sums[i][0], sums[i][1], sums[i][2], sums[i][3]}};
  any(false);
  bool last = false;
  if (threadIdx.x == 0) {
    const auto last_ticket = static_cast<unsigned>(split - 1);
    last = count_up_acq_rel(ticket, last_ticket) == last_ticket;
  }
  if (!any(last)) return false;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[i][k] = 0.0f;
  constexpr int kAtOnce = 16;  // on their way at a time: there are registers for no more
#pragma unroll
  for (int first = 0; first < N; first += kAtOnce)
#pragma unroll 1
    for (int other = 0; other < split; ++other)
#pragma unroll
      for (int i = first; i < first + kAtOnce && i < N; ++i) {
        const Packet<float> packet = packets[(other * N + i) * T];
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[i][k] += packet.values[k];
      }
  return true;
}

}  // namespace damoyolo::kernels
