#include "engine/cpu/tensor_ops.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace damoyolo::cpu {
namespace {

struct Bf16 {
  std::uint16_t bits;
  Bf16() = default;
  Bf16(float value) : bits(bf16_from_float(value)) {}
  operator float() const { return float_from_bf16(bits); }
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

template <typename T>
void add(T* target, const T* a, const T* b, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) target[i] = static_cast<float>(a[i]) + static_cast<float>(b[i]);
}

// max(a, b) of n elements. bf16 orders as float does, so only the comparison converts.
template <typename T>
void maximum(T* target, const T* a, const T* b, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) target[i] = static_cast<float>(a[i]) < static_cast<float>(b[i]) ? b[i] : a[i];
}

// One 5×5 max-pool of [h, w, c]: rows into `middle`, then columns.
template <typename T>
void pool5(const T* source, std::int64_t source_stride, T* middle, T* target, std::int64_t target_stride, int height,
           int width, int channels) {
  constexpr int kReach = 2;
  const auto take = [&](T* into, const T* from, bool first) {
    if (first)
      std::copy_n(from, channels, into);
    else
      maximum(into, into, from, channels);
  };
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      T* into = middle + (std::int64_t{y} * width + x) * channels;
      const int begin = std::max(0, x - kReach), end = std::min(width - 1, x + kReach);
      for (int at = begin; at <= end; ++at)
        take(into, source + (std::int64_t{y} * width + at) * source_stride, at == begin);
    }
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      T* into = target + (std::int64_t{y} * width + x) * target_stride;
      const int begin = std::max(0, y - kReach), end = std::min(height - 1, y + kReach);
      for (int at = begin; at <= end; ++at)
        take(into, middle + (std::int64_t{at} * width + x) * channels, at == begin);
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
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < std::int64_t{out.n} * out.h; ++row) {
      const std::uint8_t* source = images + row * scale * row_bytes;
      for (int x = 0; x < out.w; ++x) {
        T* into = pixel<T>(target, row * out.w + x);
        for (int part = 0; part < scale * scale; ++part) {
          const std::uint8_t* from = source + (part % 2) * row_bytes + (std::int64_t{x} * scale + part / 2) * kRgb;
          for (int c = 0; c < kRgb; ++c) into[part * kRgb + c] = static_cast<float>(from[c]);
        }
      }
    }
  });
}

void upsample(const Channels& source, const Channels& target) {
  const Shape out = target.shape;
  const std::size_t bytes = static_cast<std::size_t>(out.c) * size_of(target.dtype);
  with_type(target.dtype, [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < std::int64_t{out.n} * out.h; ++row) {
      const std::int64_t source_row = row / out.h * source.shape.h + row % out.h / 2;
      for (int x = 0; x < out.w; ++x)
        std::memcpy(pixel<T>(target, row * out.w + x), pixel<T>(source, source_row * source.shape.w + x / 2), bytes);
    }
  });
}

void spp_pool(const Channels& source, const Channels& target) {
  constexpr int kChannelsAtOnce = 32;  // one to two cache lines; enough pieces for every thread
  const Shape in = source.shape;
  const int pieces = (in.c + kChannelsAtOnce - 1) / kChannelsAtOnce;
  with_type(target.dtype, [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel for collapse(2) schedule(static)
    for (int n = 0; n < in.n; ++n)
      for (int piece = 0; piece < pieces; ++piece) {
        const int first = piece * kChannelsAtOnce;
        const int channels = std::min(kChannelsAtOnce, in.c - first);
        std::vector<T> middle(static_cast<std::size_t>(in.h) * static_cast<std::size_t>(in.w) *
                              static_cast<std::size_t>(channels));
        const std::int64_t start = std::int64_t{n} * in.h * in.w;
        const T* from = pixel<T>(source, start) + first;
        std::int64_t stride = source.pixel_stride;
        for (int pool = 0; pool < 3; ++pool) {
          T* into = pixel<T>(target, start) + pool * in.c + first;
          pool5(from, stride, middle.data(), into, target.pixel_stride, in.h, in.w, channels);
          from = into;
          stride = target.pixel_stride;
        }
      }
  });
}

void assemble(const Channels& source, const Channels& residual, const Channels& target) {
  const int channels = target.shape.c;
  with_type(target.dtype, [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < target.shape.pixels(); ++i) {
      const T* from = pixel<T>(source, i);
      T* into = pixel<T>(target, i);
      if (residual.data == nullptr) {
        std::memcpy(into, from, static_cast<std::size_t>(channels) * sizeof(T));
        continue;
      }
      const T* added = pixel<T>(residual, i);
      add(into, from, added, channels);
    }
  });
}

}  // namespace damoyolo::cpu
