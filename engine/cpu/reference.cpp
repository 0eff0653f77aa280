#include "engine/cpu/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/core/error.h"

namespace damoyolo {
namespace {

// A value's pixels: `channels` floats every `stride`.
struct Map {
  float* data;
  Shape shape;
  int stride;

  float* pixel(int n, int y, int x) const {
    return data + ((std::int64_t{n} * shape.h + y) * shape.w + x) * std::int64_t{stride};
  }
};

template <typename Function>
void for_each_pixel(const Shape& shape, Function function) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int n = 0; n < shape.n; ++n)
    for (int y = 0; y < shape.h; ++y)
      for (int x = 0; x < shape.w; ++x) function(n, y, x);
}

// [out, in, k, k] → [k, k, in, out]
std::vector<float> outputs_last(const std::vector<float>& weight, std::size_t out, std::size_t in, std::size_t taps) {
  std::vector<float> result(weight.size());
  for (std::size_t o = 0; o < out; ++o)
    for (std::size_t i = 0; i < in; ++i)
      for (std::size_t t = 0; t < taps; ++t) result[(t * in + i) * out + o] = weight[(o * in + i) * taps + t];
  return result;
}

// sum[c] += x · weight[c]
void accumulate(float* __restrict sum, const float* __restrict weight, float x, int channels) {
#pragma omp simd
  for (int c = 0; c < channels; ++c) sum[c] += x * weight[c];
}

void convolve(const Node& node, const ConvWeights& weights, const Map& in, const Map& out, const Map* residual) {
  const int pad = (node.kernel - 1) / 2;
  const int channels = out.shape.c;
  const int in_per_group = in.shape.c / node.groups;
  for_each_pixel(out.shape, [&](int n, int y, int x) {
    thread_local std::vector<float> storage;
    storage.assign(weights.bias.begin(), weights.bias.end());
    float* const sum = storage.data();
    for (int ky = 0; ky < node.kernel; ++ky) {
      const int sy = y * node.stride + ky - pad;
      if (sy < 0 || sy >= in.shape.h) continue;
      for (int kx = 0; kx < node.kernel; ++kx) {
        const int sx = x * node.stride + kx - pad;
        if (sx < 0 || sx >= in.shape.w) continue;
        const float* source = in.pixel(n, sy, sx);
        const float* weight =
            weights.weight.data() + (std::int64_t{ky} * node.kernel + kx) * std::int64_t{in_per_group} * channels;
        if (node.groups > 1)
          for (int c = 0; c < channels; ++c) sum[c] += source[c] * weight[c];
        else
          for (int i = 0; i < in_per_group; ++i)
            accumulate(sum, weight + std::int64_t{i} * channels, source[i], channels);
      }
    }
    const float* added = nullptr;
    if (residual != nullptr) {
      const int scale = out.shape.h / residual->shape.h;
      added = residual->pixel(n, y / scale, x / scale);
    }
    float* target = out.pixel(n, y, x);
    for (int c = 0; c < channels; ++c) {
      float value = sum[c];
      if (added != nullptr && node.residual_first) value += added[c];
      value = activated(value, node.act);
      if (added != nullptr && !node.residual_first) value += added[c];
      target[c] = value;
    }
  });
}

// (0,0), (1,0), (0,1), (1,1) in (row, column) steps
void space_to_depth(const Map& in, const Map& out) {
  for_each_pixel(out.shape, [&](int n, int y, int x) {
    for (int part = 0; part < 4; ++part)
      std::copy_n(in.pixel(n, 2 * y + part % 2, 2 * x + part / 2), in.shape.c, out.pixel(n, y, x) + part * in.shape.c);
  });
}

void max_pool(const Map& in, const Map& out, int kernel, int channel_offset) {
  const int reach = (kernel - 1) / 2;
  for_each_pixel(out.shape, [&](int n, int y, int x) {
    float* target = out.pixel(n, y, x) + channel_offset;
    std::fill_n(target, in.shape.c, -std::numeric_limits<float>::infinity());
    for (int sy = std::max(0, y - reach); sy <= std::min(in.shape.h - 1, y + reach); ++sy)
      for (int sx = std::max(0, x - reach); sx <= std::min(in.shape.w - 1, x + reach); ++sx) {
        const float* source = in.pixel(n, sy, sx);
        for (int c = 0; c < in.shape.c; ++c) target[c] = std::max(target[c], source[c]);
      }
  });
}

void concat(const std::vector<Map>& parts, const Map& out) {
  for_each_pixel(out.shape, [&](int n, int y, int x) {
    float* target = out.pixel(n, y, x);
    for (const Map& part : parts) target = std::copy_n(part.pixel(n, y, x), part.shape.c, target);
  });
}

}  // namespace

Reference::Reference(Graph graph, const TensorLookup& lookup) : graph_(std::move(graph)) {
  for (const Buffer& buffer : graph_.buffers) buffers_.emplace_back(static_cast<std::size_t>(buffer.shape.elements()));
  for (const Node& node : graph_.nodes) {
    ConvWeights weights;
    if (node.op == Op::Conv) {
      weights = gather_weights(node, lookup);
      const auto in = static_cast<std::size_t>(graph_.value(node.inputs[0]).shape.c / node.groups);
      weights.weight = outputs_last(weights.weight, weights.bias.size(), in,
                                    static_cast<std::size_t>(node.kernel) * static_cast<std::size_t>(node.kernel));
    }
    weights_.push_back(std::move(weights));
  }
}

void Reference::run(std::span<const std::uint8_t> images) {
  const auto map = [&](ValueId id) {
    const Value& value = graph_.value(id);
    return Map{buffers_[static_cast<std::size_t>(value.buffer)].data() + value.channel_offset, value.shape,
               graph_.buffer(value.buffer).shape.c};
  };
  auto& input = buffers_[static_cast<std::size_t>(graph_.value(graph_.input).buffer)];
  if (images.size() != input.size())
    throw Error("the network takes {} bytes of pixels and was given {}", input.size(), images.size());
  std::copy(images.begin(), images.end(), input.begin());

  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    const Map in = map(node.inputs[0]);
    const Map out = map(node.output);
    switch (node.op) {
      case Op::Cast:
        if (node.space_to_depth)
          space_to_depth(in, out);
        else
          concat({in}, out);
        break;
      case Op::SpaceToDepth: space_to_depth(in, out); break;
      case Op::Conv: {
        const Map residual = node.residual == kNone ? in : map(node.residual);
        convolve(node, weights_[i], in, out, node.residual == kNone ? nullptr : &residual);
        break;
      }
      case Op::Activate:
        for_each_pixel(out.shape, [&](int n, int y, int x) {
          std::transform(in.pixel(n, y, x), in.pixel(n, y, x) + in.shape.c, out.pixel(n, y, x),
                         [&](float value) { return activated(value, node.act); });
        });
        break;
      case Op::Add: {
        const Map other = map(node.inputs[1]);
        for_each_pixel(out.shape, [&](int n, int y, int x) {
          std::transform(in.pixel(n, y, x), in.pixel(n, y, x) + in.shape.c, other.pixel(n, y, x), out.pixel(n, y, x),
                         std::plus<>());
        });
        break;
      }
      case Op::MaxPool: max_pool(in, out, node.kernel, 0); break;
      case Op::SppPool:
        for (int pool = 0; pool < 3; ++pool) max_pool(in, out, 5 + 4 * pool, pool * in.shape.c);
        break;
      case Op::Upsample:
        for_each_pixel(out.shape, [&](int n, int y, int x) {
          std::copy_n(in.pixel(n, y / 2, x / 2), in.shape.c, out.pixel(n, y, x));
        });
        break;
      case Op::Concat: {
        std::vector<Map> parts;
        for (const ValueId id : node.inputs) parts.push_back(map(id));
        concat(parts, out);
        break;
      }
      case Op::Convert: concat({in}, out); break;
    }
  }
}

std::vector<float> Reference::read(ValueId id) const {
  const Value& value = graph_.value(id);
  const auto& buffer = buffers_[static_cast<std::size_t>(value.buffer)];
  const int stride = graph_.buffer(value.buffer).shape.c;
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(value.shape.elements()));
  for (std::int64_t pixel = 0; pixel < value.shape.pixels(); ++pixel) {
    const auto begin = buffer.begin() + pixel * stride + value.channel_offset;
    result.insert(result.end(), begin, begin + value.shape.c);
  }
  return result;
}

}  // namespace damoyolo
