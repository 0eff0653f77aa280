#include "engine/cpu/tensor_ops.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <vector>

#include "engine/core/simd.h"

namespace damoyolo::cpu {
namespace {

// A bf16 number as stored.
struct Bf16 {
  std::uint16_t bits;
};

template <typename T>
T* pixel(const Channels& map, std::int64_t index) {
  return reinterpret_cast<T*>(map.data) + index * map.pixel_stride;
}

// Calls function with a value of the tensors' element type.
template <typename Function>
void with_type(DType dtype, Function function) {
  if (dtype == DType::BF16)
    function(Bf16{});
  else
    function(float{});
}

// With one of the target's and one of the source's.
template <typename Function>
void with_types(DType target, DType source, Function function) {
  with_type(target, [&](auto to) { with_type(source, [&](auto from) { function(to, from); }); });
}

// Every pixel value as an activation; both types hold 0..255 exactly.
template <typename T>
std::array<T, 256> pixel_values() {
  std::array<T, 256> values;
  for (int i = 0; i < 256; ++i) {
    if constexpr (std::is_same_v<T, float>)
      values[static_cast<std::size_t>(i)] = static_cast<float>(i);
    else
      values[static_cast<std::size_t>(i)] = {bf16_from_float(static_cast<float>(i))};
  }
  return values;
}

template <typename T>
void copy(T* target, const T* source, int n) {
  std::memcpy(target, source, static_cast<std::size_t>(n) * sizeof(T));
}

DAMOYOLO_SIMD void copy(float* target, const Bf16* source, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) target[i] = float_from_bf16(source[i].bits);
}

DAMOYOLO_SIMD void copy(Bf16* target, const float* source, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) target[i].bits = bf16_from_float(source[i]);
}

DAMOYOLO_SIMD void add(float* target, const float* a, const float* b, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) target[i] = a[i] + b[i];
}

DAMOYOLO_SIMD void add(Bf16* target, const Bf16* a, const Bf16* b, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i)
    target[i].bits = bf16_from_float(float_from_bf16(a[i].bits) + float_from_bf16(b[i].bits));
}

DAMOYOLO_SIMD void maximum(float* target, const float* a, const float* b, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) target[i] = a[i] < b[i] ? b[i] : a[i];
}

DAMOYOLO_SIMD void silu(float* x, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) x[i] = x[i] / (1.f + exp_of(-x[i]));
}

// Sign and magnitude, turned into an integer of the same order.
std::int16_t ordered(std::uint16_t bf16) {
  const auto bits = static_cast<std::int16_t>(bf16);
  return static_cast<std::int16_t>(bits ^ ((bits >> 15) & 0x7fff));
}

DAMOYOLO_SIMD void maximum(Bf16* target, const Bf16* a, const Bf16* b, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) {
    const std::uint16_t x = a[i].bits, y = b[i].bits;
    target[i].bits = ordered(x) < ordered(y) ? y : x;
  }
}

// A 5×5 max-pool of a dense [height][width][channels] tile in place, with `middle` of the same size. A pool along an
// axis is the maximum with neighbours at distance 1 and 2, and for a whole row of pixels that is one long loop.
template <typename T>
void pool5(std::vector<T>& tile, std::vector<T>& middle, int height, int width, int channels) {
  constexpr int kReach = 2;
  const std::ptrdiff_t row = std::ptrdiff_t{width} * channels;
  middle = tile;
  for (int y = 0; y < height; ++y)
    for (int dx = 1; dx <= std::min(kReach, width - 1); ++dx) {
      const std::ptrdiff_t shift = std::ptrdiff_t{dx} * channels;
      const int count = static_cast<int>(row - shift);
      const T* from = tile.data() + y * row;
      T* into = middle.data() + y * row;
      maximum(into, into, from + shift, count);
      maximum(into + shift, into + shift, from, count);
    }
  tile = middle;
  for (int y = 0; y < height; ++y)
    for (int dy = -kReach; dy <= kReach; ++dy) {
      if (dy == 0 || y + dy < 0 || y + dy >= height) continue;
      T* into = tile.data() + y * row;
      maximum(into, into, middle.data() + (y + dy) * row, static_cast<int>(row));
    }
}

}  // namespace

void cast(const std::uint8_t* images, const Channels& target, bool space_to_depth) {
  constexpr int kRgb = 3;
  const Shape out = target.shape;
  const int scale = space_to_depth ? 2 : 1;
  const std::int64_t row_bytes = std::int64_t{out.w} * scale * kRgb;
  with_type(target.dtype, [&](auto zero) {
    using T = decltype(zero);
    static const std::array<T, 256> values = pixel_values<T>();
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < std::int64_t{out.n} * out.h; ++row) {
      const std::uint8_t* source = images + row * scale * row_bytes;
      for (int x = 0; x < out.w; ++x) {
        T* into = pixel<T>(target, row * out.w + x);
        for (int part = 0; part < scale * scale; ++part) {
          const std::uint8_t* from = source + (part % 2) * row_bytes + (std::int64_t{x} * scale + part / 2) * kRgb;
          for (int c = 0; c < kRgb; ++c) into[part * kRgb + c] = values[from[c]];
        }
      }
    }
  });
}

void upsample(const Channels& source, const Channels& target) {
  const Shape out = target.shape;
  with_types(target.dtype, source.dtype, [&](auto to, auto from) {
    using T = decltype(to);
    using S = decltype(from);
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < std::int64_t{out.n} * out.h; ++row) {
      const std::int64_t source_row = row / out.h * source.shape.h + row % out.h / 2;
      for (int x = 0; x < out.w; ++x)
        copy(pixel<T>(target, row * out.w + x), pixel<const S>(source, source_row * source.shape.w + x / 2), out.c);
    }
  });
}

void spp_pool(const Channels& source, const Channels& target) {
  constexpr int kChannelsAtOnce = 32;  // one to two cache lines; enough pieces for every thread
  const Shape in = source.shape;
  const int pieces = (in.c + kChannelsAtOnce - 1) / kChannelsAtOnce;
  const int pixels = in.h * in.w;
  with_type(target.dtype, [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel for collapse(2) schedule(static)
    for (int n = 0; n < in.n; ++n)
      for (int piece = 0; piece < pieces; ++piece) {
        const int first = piece * kChannelsAtOnce;
        const int channels = std::min(kChannelsAtOnce, in.c - first);
        const std::int64_t start = std::int64_t{n} * pixels;
        std::vector<T> tile(static_cast<std::size_t>(pixels) * static_cast<std::size_t>(channels)), middle;
        for (int i = 0; i < pixels; ++i)
          std::copy_n(pixel<T>(source, start + i) + first, channels, tile.data() + std::ptrdiff_t{i} * channels);
        for (int pool = 0; pool < 3; ++pool) {
          pool5(tile, middle, in.h, in.w, channels);
          for (int i = 0; i < pixels; ++i)
            std::copy_n(tile.data() + std::ptrdiff_t{i} * channels, channels,
                        pixel<T>(target, start + i) + pool * in.c + first);
        }
      }
  });
}

void silu(const Channels& target) {
  constexpr std::int64_t kAtOnce = 2048;
  const std::int64_t elements = target.shape.elements();
  auto* const values = reinterpret_cast<float*>(target.data);
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < elements; i += kAtOnce)
    silu(values + i, static_cast<int>(std::min(kAtOnce, elements - i)));
}

void assemble(const Channels& source, const Channels& residual, const Channels& target) {
  const int channels = target.shape.c;
  if (residual.data == nullptr) {
    with_types(target.dtype, source.dtype, [&](auto to, auto from) {
      using T = decltype(to);
      using S = decltype(from);
#pragma omp parallel for schedule(static)
      for (std::int64_t i = 0; i < target.shape.pixels(); ++i)
        copy(pixel<T>(target, i), pixel<const S>(source, i), channels);
    });
    return;
  }
  with_type(target.dtype, [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < target.shape.pixels(); ++i)
      add(pixel<T>(target, i), pixel<const T>(source, i), pixel<const T>(residual, i), channels);
  });
}

}  // namespace damoyolo::cpu
