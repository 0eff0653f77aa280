// The end of a convolution on tensor cores: from sums in registers, in the order in which mma.sync and wgmma leave
// them, to the output.
#pragma once

#include "kernels/conv.h"
#include "kernels/epilogue.cuh"

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
};

template <typename T>
ConvResult<T> conv_result(const Convolution& convolution, const char* kernel) {
  const TensorView& y = convolution.y;
  const bool f32 = y.type == DType::F32;
  return {epilogue_arguments<T>(convolution.epilogue, y, convolution.x.type, kernel), slice<T>(f32 ? TensorView{} : y),
          slice<float>(f32 ? y : TensorView{}), y.c};
}

// A pixel of the output, or none.
struct ConvPixel {
  int n, y, x;
  bool exists;
};

// expf and the division of the fast kind: their error, a few units of fp32's last place, is far below what
// 16-bit inputs have been rounded by. Far below zero the quotient becomes 0, as it should.
template <int N>
__device__ __forceinline__ void activate_all(float (&values)[N], Activation act) {
  if (act == Activation::Relu) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = fmaxf(values[i], 0.0f);
  } else if (act == Activation::Silu) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = __fdividef(values[i], 1.0f + __expf(-values[i]));
  }
}

// Ends and stores sums[i], those of 8 channels from `channel` on of pixels[i]; channels past the output's last and
// pixels that do not exist are left out. All residuals are on their way before the first is needed.
template <int Pixels, typename T>
__device__ __forceinline__ void finish_and_store(const ConvResult<T>& result, const ConvPixel (&pixels)[Pixels],
                                                 int channel, float (&sums)[Pixels][8]) {
  const int count = result.c - channel;
  if (count <= 0) return;
  const EpilogueArguments<T>& epilogue = result.epilogue;
  const Slice<T>& from = epilogue.residual;
  float residual[Pixels][8];
  if (from.data != nullptr) {
    const int shift = epilogue.residual_shift;
    const auto place = [&](const ConvPixel& pixel) {
      return from.pixel(pixel.n, pixel.y >> shift, pixel.x >> shift) + channel;
    };
    if (from.aligned && count >= 8) {
      Packet<T> packets[Pixels] = {};
#pragma unroll
      for (int i = 0; i < Pixels; ++i)
        if (pixels[i].exists) packets[i] = *reinterpret_cast<const Packet<T>*>(place(pixels[i]));
#pragma unroll
      for (int i = 0; i < Pixels; ++i)
#pragma unroll
        for (int k = 0; k < 8; ++k) residual[i][k] = to_float(packets[i].values[k]);
    } else {
#pragma unroll
      for (int i = 0; i < Pixels; ++i) load(place(pixels[i]), pixels[i].exists ? count : 0, false, residual[i]);
    }
  }
  if (epilogue.bias != nullptr) {
    float bias[8];
    load(epilogue.bias + channel, count, epilogue.bias_aligned, bias);
#pragma unroll
    for (int i = 0; i < Pixels; ++i)
#pragma unroll
      for (int k = 0; k < 8; ++k) sums[i][k] += bias[k];
  }
  const auto add_residual = [&] {
#pragma unroll
    for (int i = 0; i < Pixels; ++i)
#pragma unroll
      for (int k = 0; k < 8; ++k) sums[i][k] += residual[i][k];
  };
  if (from.data != nullptr && epilogue.residual_first) add_residual();
#pragma unroll
  for (int i = 0; i < Pixels; ++i) activate_all(sums[i], epilogue.act);
  if (from.data != nullptr && !epilogue.residual_first) add_residual();
  const auto store_all = [&](const auto& to) {
#pragma unroll
    for (int i = 0; i < Pixels; ++i)
      if (pixels[i].exists)
        store(to.pixel(pixels[i].n, pixels[i].y, pixels[i].x) + channel, count, to.aligned, sums[i]);
  };
  if (result.y_f32.data != nullptr)
    store_all(result.y_f32);
  else
    store_all(result.y);
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
// fragments[i][2, 3] of pixel l / 4 + 8.
__device__ __forceinline__ void put_sums(float* block, const float (*fragments)[4]) {
  struct alignas(8) Pair {
    float first, second;
  };
  const int lane = static_cast<int>(threadIdx.x) % kLanes, row = lane / 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int unit = (2 * i + lane % 4 / 2) ^ flips_of_row(row);
    float* to = block + row * 32 + unit * 4 + lane % 2 * 2;
    *reinterpret_cast<Pair*>(to) = {fragments[i][0], fragments[i][1]};
    *reinterpret_cast<Pair*>(to + 8 * 32) = {fragments[i][2], fragments[i][3]};
  }
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
    __threadfence();  // the block's sums are seen before its ticket, and the others' tickets before their sums
    last = atomicInc(ticket, static_cast<unsigned>(split - 1)) == static_cast<unsigned>(split - 1);
    __threadfence();
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
