#include <algorithm>

#include "kernels/conv_checks.h"
#include "kernels/launch.h"

namespace damoyolo::kernels {
namespace {

constexpr std::int64_t kMaxCount = 0x7fffffff;  // so that kernels can count in an int

bool lies_at(const void* pointer, std::uintptr_t alignment) {
  return pointer != nullptr && reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

bool has_sizes(const TensorView& view) {
  return view.n > 0 && view.h > 0 && view.w > 0 && view.c > 0 && view.channel_offset >= 0 &&
         view.c <= view.pixel_stride - view.channel_offset;
}

std::int64_t pixels(const TensorView& view) { return std::int64_t{view.n} * view.h * view.w; }

bool is_countable(const TensorView& view) { return pixels(view) <= kMaxCount / view.pixel_stride; }

// What bulk copies can take from a tile, pointers aside.
bool is_whole(const TensorView& view) {
  return view.c % 8 == 0 && view.pixel_stride % 8 == 0 && view.channel_offset % 8 == 0;
}

const char* unmet_of_pair(const Convolution& convolution, const ConvConfig& config) {
  const TensorView &y = convolution.y, &z = convolution.then.y, &r = convolution.epilogue.residual;
  if (config.then == 0) {
    if (z.c != 0) return "no convolution behind it, or a configuration for one";
    return convolution.keep ? nullptr : "an output that is kept";
  }
  if (!has_sizes(z) || z.n != y.n || z.h != y.h || z.w != y.w || y.type != convolution.x.type || z.type != y.type)
    return "a convolution behind it whose output has its size and the input's type, for this configuration";
  if (y.c > config.n || z.c > config.then) return "all channels of a pixel in one tile, of both convolutions";
  if (!is_whole(y) || !is_whole(z)) return "outputs of a pair whose channels and places are multiples of 8";
  if (!is_countable(z)) return "tensors of less than 2^31 elements";
  if (convolution.then.epilogue.residual.data != nullptr) return "no residual for the second convolution of a pair";
  if (r.data != nullptr && (r.h != y.h || !is_whole(r)))
    return "a residual of the output's size, whose channels and places are multiples of 8, for a pair";
  return nullptr;
}

}  // namespace

const char* unmet_expectation(const Convolution& convolution, const ConvConfig& config) {
  const TensorView &x = convolution.x, &y = convolution.y, &r = convolution.epilogue.residual;
  const int stride = convolution.stride;
  if (!has_sizes(x) || !has_sizes(y)) return "tensors with positive sizes and channels inside their buffers";
  if (x.type != DType::F16 && x.type != DType::BF16) return "an input of type F16 or BF16";
  if (y.type != x.type && y.type != DType::F32) return "an output of the input's type or F32";
  if (x.c % 8 != 0 || x.pixel_stride % 8 != 0 || x.channel_offset % 8 != 0)
    return "an input whose channels and places are multiples of 8";
  if (convolution.kernel != 1 && convolution.kernel != 3) return "a kernel of 1 or 3";
  if (stride != 1 && stride != 2) return "a stride of 1 or 2";
  if (y.n != x.n || y.h != (x.h + stride - 1) / stride || y.w != (x.w + stride - 1) / stride)
    return "an output of the input's size over the stride";
  if (!is_countable(x) || !is_countable(y)) return "tensors of less than 2^31 elements";
  if (r.data == nullptr) return unmet_of_pair(convolution, config);
  const int factor = r.h == y.h && r.w == y.w ? 1 : 2;
  if (!has_sizes(r) || r.type != x.type || r.n != y.n || r.c != y.c || r.h * factor != y.h || r.w * factor != y.w)
    return "a residual of the input's type and of the output's size or half of it";
  return is_countable(r) ? unmet_of_pair(convolution, config) : "tensors of less than 2^31 elements";
}

bool is_listed(const ConvConfig& config, std::span<const ConvConfig> configs, int most) {
  ConvConfig whole = config;
  whole.split = whole.sharing = 1;
  return config.split >= 1 && config.split <= most &&
         std::find(configs.begin(), configs.end(), whole) != configs.end();
}

ConvMemory memory_of_shares(const ConvConfig& config, std::int64_t tiles) {
  if (config.split == 1) return {};
  const auto count = static_cast<std::size_t>(tiles);
  const auto split = static_cast<std::size_t>(config.split), sums = static_cast<std::size_t>(config.m * config.n);
  return {count * split * sums * sizeof(float), count};
}

void require_convolution(const Convolution& convolution, const ConvConfig& config, const ConvMemory& memory,
                         const char* kernel) {
  const char* unmet = unmet_expectation(convolution, config);
  require(unmet == nullptr, kernel, unmet);
  require(lies_at(convolution.x.data, 16), kernel, "an input at a multiple of 16 bytes");
  require(lies_at(convolution.weights, 16), kernel, "weights at a multiple of 16 bytes");
  require(convolution.y.data != nullptr || !convolution.keep, kernel, "an output with data");
  if (config.then > 0) {
    require(lies_at(convolution.then.weights, 16), kernel, "weights of both convolutions at a multiple of 16 bytes");
    require(convolution.then.y.data != nullptr, kernel, "outputs with data of both convolutions");
  }
  require(lies_at(convolution.next, 16) || convolution.next_bytes == 0, kernel,
          "what is next at a multiple of 16 bytes");
  require(convolution.next_bytes % 16 == 0 && convolution.next_bytes >> 31 == 0, kernel,
          "a multiple of 16 bytes that is next, below 2 GiB");
  if (memory.workspace_bytes > 0)
    require(lies_at(convolution.workspace, 256), kernel, "a workspace at a multiple of 256 bytes for a split");
  if (memory.tickets > 0) require(convolution.tickets != nullptr, kernel, "tickets for a split");
}

}  // namespace damoyolo::kernels
