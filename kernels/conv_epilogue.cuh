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

// Ends the sums of 8 channels of pixel (n, y, x), from `channel` on; those past the output's last do not count.
template <typename T>
__device__ __forceinline__ void finish_and_store(const ConvResult<T>& result, int n, int y, int x, int channel,
                                                 float (&sums)[8]) {
  const int count = result.c - channel;
  if (count <= 0) return;
  finish(result.epilogue, n, y, x, channel, count, sums);
  if (result.y_f32.data != nullptr)
    store(result.y_f32.pixel(n, y, x) + channel, count, result.y_f32.aligned, sums);
  else
    store(result.y.pixel(n, y, x) + channel, count, result.y.aligned, sums);
}

// Shared memory in which a warp turns 16 pixels × 32 channels of sums around.
constexpr int kTurnedFloats = 16 * 32;

// A warp has the sums of 16 pixels × 32 channels as four mma.sync leave them: lane l has channels 8·i + 2·(l % 4) and
// the next one, of pixel l / 4 in fragments[i][0, 1] and of pixel l / 4 + 8 in fragments[i][2, 3]. Through `shared`,
// at a multiple of 16 bytes and the warp's own, each lane gets 8 neighbouring channels at a time, which fill a store:
// calls use(pixel, channel, sums) twice. All lanes take part.
//
// Pixels are rows of 128 bytes, all banks once, in units of 16. A unit's place in its row is its number with some bits
// flipped by the row: two bits so that 16 lanes writing two neighbouring units of four rows meet in no bank, and the
// lowest one so that 8 lanes reading every other unit of two rows do not either.
template <typename Use>
__device__ __forceinline__ void turn_around(float* shared, const float (*fragments)[4], Use use) {
  struct alignas(8) Pair {
    float first, second;
  };
  const auto flips = [](int row) { return (row & 3) << 1 | (row & 1); };
  const int lane = static_cast<int>(threadIdx.x) % warpSize;
  __syncwarp();  // all have read what was here before
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4, unit = (2 * i + lane % 4 / 2) ^ flips(row);
    float* to = shared + row * 32 + unit * 4 + lane % 2 * 2;
    *reinterpret_cast<Pair*>(to) = {fragments[i][0], fragments[i][1]};
    *reinterpret_cast<Pair*>(to + 8 * 32) = {fragments[i][2], fragments[i][3]};
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i, unit = 2 * (lane % 4) ^ flips(row);
    float sums[8];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto packet = *reinterpret_cast<const Packet<float>*>(shared + row * 32 + (unit ^ half) * 4);
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[4 * half + k] = packet.values[k];
    }
    use(row, 8 * (lane % 4), sums);
  }
}

// Adds up a tile's sums over the `split` blocks of T threads that share it, this one being number `share`, in the
// order of their numbers. True in the block that comes last, which then has all; the others have nothing left to do.
// All threads of the block take part. workspace: the tile's [split][N][T][4]; ticket: the tile's, 0 before and after.
template <int T, int N>
__device__ __forceinline__ bool add_shares(float* workspace, unsigned* ticket, int share, int split,
                                           float (&sums)[N][4]) {
  __shared__ bool last;
  auto* packets = reinterpret_cast<Packet<float>*>(workspace) + threadIdx.x;
  const int mine = share * N;
#pragma unroll
  for (int i = 0; i < N; ++i) packets[(mine + i) * T] = {{sums[i][0], sums[i][1], sums[i][2], sums[i][3]}};
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the block's sums are seen before its ticket, and the others' tickets before their sums
    last = atomicInc(ticket, static_cast<unsigned>(split - 1)) == static_cast<unsigned>(split - 1);
    __threadfence();
  }
  __syncthreads();
  if (!last) return false;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[i][k] = 0.0f;
#pragma unroll 1
  for (int other = 0; other < split; ++other)
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Packet<float> packet = packets[(other * N + i) * T];
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[i][k] += packet.values[k];
    }
  return true;
}

}  // namespace damoyolo::kernels
