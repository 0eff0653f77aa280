// How conv_sm90 divides a convolution: tiles of the output, shares of their sums, and the steps of a share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/conv.h"
#include "kernels/conv_epilogue.cuh"
#include "kernels/divisor.cuh"

namespace damoyolo::kernels {

// How the output becomes tiles, and the work items: share `i % split` of tile i / split, tiles of channels first, so
// that blocks that run at the same time read the same pixels.
struct Tiling {
  int kernel, stride;
  int taps, places;        // of a step, and steps of the same input channels: taps × places = kernel²
  int rows, columns;       // of a tile
  int down, across, deep;  // tiles of an image's height and width, and of channels
  int height, width;       // of the output
  bool in_a_row;           // the batch's pixels are one row of `pixels` of one image, from which tiles are cut
  int pixels;
  int images, sharing;  // blocks of neighbouring places that share the weights of the same channels
  int split, items, steps;
  Divisor by_places, by_split, by_deep, by_across, by_down, by_columns;
};

struct Work {
  int image, row, column, channel;  // the tile's first
  int share;
  int first, last;  // steps
};

__device__ __forceinline__ Work work_of(const Tiling& tiling, int item, int channels) {
  const int tile = tiling.by_split.divide(item), share = item - tile * tiling.split;
  const int shift = tiling.sharing - 1, group = tile >> shift;
  const int first_place = tiling.by_deep.divide(group);
  const int place = (first_place << shift) + (tile & shift), line = tiling.by_across.divide(place);
  const int image = tiling.by_down.divide(line);
  Work work;
  work.image = image;
  work.row = (line - image * tiling.down) * tiling.rows;
  work.column = (place - line * tiling.across) * tiling.columns;
  work.channel = (group - first_place * tiling.deep) * channels;
  work.share = share;
  work.first = tiling.by_split.divide(tiling.steps * share);
  work.last = tiling.by_split.divide(tiling.steps * (share + 1));
  return work;
}

// A step of a sum: K input channels and one tap, or the taps of one column of the window. All steps of these channels
// come first, so that the pixels they share are read again at once.
struct Step {
  int channel, ky, kx;

  __device__ __forceinline__ Step(const Tiling& tiling, int index, int channels) {
    const int chunk = tiling.by_places.divide(index), place = index - chunk * tiling.places;
    channel = chunk * channels;
    ky = tiling.taps == 1 ? place / 3 : 0;  // a window of 1 has one place
    kx = place - 3 * ky;
  }
  template <int Taps>
  __device__ __forceinline__ void advance(const Tiling& tiling, int channels) {
    if (++kx < tiling.kernel) return;
    kx = 0;
    if (Taps == 1 && ++ky < tiling.kernel) return;
    ky = 0;
    channel += channels;
  }
};

// Which stage is next, and the parity of the phase in which it is.
struct Turn {
  int stage = 0;
  unsigned parity = 0;

  __device__ __forceinline__ void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
  // Past so many steps, which are another's.
  __device__ __forceinline__ void skip(int steps, int stages) {
    const int to = stage + steps, rounds = to / stages;
    stage = to - rounds * stages;
    parity ^= rounds & 1;
  }
};

// Pixel `pixel` of a tile.
__device__ __forceinline__ ConvPixel output_pixel(const Tiling& tiling, const Work& work, int pixel) {
  const int row = tiling.by_columns.divide(pixel);
  const int y = work.row + row, x = work.column + pixel - row * tiling.columns;
  const bool is_image = work.image < tiling.images;
  if (tiling.in_a_row) return {x, is_image && x < tiling.pixels};
  return {(work.image * tiling.height + y) * tiling.width + x,
          is_image && row < tiling.rows && y < tiling.height && x < tiling.width};
}

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

inline Tiling tiling_of(const Convolution& convolution, const ConvConfig& config) {
  const TensorView& y = convolution.y;
  Tiling tiling{};
  tiling.kernel = convolution.kernel;
  tiling.stride = convolution.stride;
  tiling.taps = config.taps;
  tiling.places = convolution.kernel * convolution.kernel / config.taps;
  tiling.height = y.h;
  tiling.width = y.w;
  tiling.pixels = y.n * y.h * y.w;
  tiling.sharing = config.sharing;
  tiling.in_a_row = config.columns == 0;
  tiling.images = tiling.in_a_row ? 1 : y.n;
  tiling.columns = tiling.in_a_row ? config.m : config.columns;
  tiling.rows = config.m / tiling.columns;
  tiling.down = tiling.in_a_row ? 1 : ceil_div(y.h, tiling.rows);
  tiling.across = ceil_div(tiling.in_a_row ? tiling.pixels : y.w, tiling.columns);
  tiling.deep = ceil_div(y.c, config.n);
  tiling.split = config.split;
  tiling.by_places = Divisor(tiling.places);
  tiling.by_split = Divisor(tiling.split);
  tiling.by_deep = Divisor(tiling.deep);
  tiling.by_across = Divisor(tiling.across);
  tiling.by_down = Divisor(tiling.down);
  tiling.by_columns = Divisor(tiling.columns);
  tiling.steps = tiling.places * ceil_div(convolution.x.c, config.k);
  return tiling;
}

// Where places are shared out in pairs, one may lie behind the last image.
inline std::int64_t tiles_of(const Tiling& tiling) {
  const std::int64_t places = std::int64_t{tiling.images} * tiling.down * tiling.across;
  return (places + tiling.sharing - 1) / tiling.sharing * tiling.sharing * tiling.deep;
}

}  // namespace damoyolo::kernels
