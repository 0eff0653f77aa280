#include "bench/layers/layer_check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>

#include "engine/cuda/conv_packing.h"
#include "engine/cuda/conv_split.h"

namespace damoyolo::cuda {
namespace {

using Residual = ConvProblem::Residual;

// Random signs and mantissas in [0.5, 1), in 16 bits. They repeat after a prime number of elements, which no row or
// image has.
std::vector<std::byte> random_bytes(std::int64_t elements, DType type, unsigned seed) {
  constexpr std::size_t kPeriod = 1000003 * sizeof(std::uint16_t);
  std::vector<std::byte> bytes(static_cast<std::size_t>(elements) * sizeof(std::uint16_t));
  std::mt19937 generator(seed);
  for (std::size_t at = 0; at < std::min(kPeriod, bytes.size()); at += sizeof(std::uint16_t)) {
    const auto random = static_cast<unsigned>(generator());
    const auto bits =
        static_cast<std::uint16_t>(type == DType::F16 ? (random & 0x83ffu) | 0x3800u : (random & 0x807fu) | 0x3f00u);
    std::memcpy(&bytes[at], &bits, sizeof bits);
  }
  for (std::size_t at = kPeriod; at < bytes.size(); at += kPeriod)
    std::memcpy(&bytes[at], bytes.data(), std::min(kPeriod, bytes.size() - at));
  return bytes;
}

float element(const std::vector<std::byte>& tensor, std::int64_t index, DType type) {
  return element_as_float(tensor.data() + static_cast<std::size_t>(index) * size_of(type), type);
}

Owned<std::byte> on_device(Runtime& runtime, StreamHandle stream, const std::vector<std::byte>& bytes) {
  Owned<std::byte> memory = device_memory(runtime, bytes.size());
  runtime.copy(memory.get(), bytes.data(), bytes.size(), stream);
  runtime.synchronize(stream);
  return memory;
}

// Fills in random weights and biases, so large that sums have about the size of one input.
void fill_random(std::vector<float>& weights, std::vector<float>& biases, int out, int terms,
                 std::mt19937& generator) {
  std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(terms)));
  weights.resize(static_cast<std::size_t>(out) * static_cast<std::size_t>(terms));
  biases.resize(static_cast<std::size_t>(out));
  for (float& weight : weights) weight = normal(generator);
  for (float& bias : biases) bias = normal(generator);
}

// [terms, out] of packed weights [out, terms], as floats.
std::vector<float> terms_first(const std::vector<std::byte>& packed, int out, int terms, DType type) {
  std::vector<float> rounded(static_cast<std::size_t>(out) * static_cast<std::size_t>(terms));
  for (int c = 0; c < out; ++c)
    for (int term = 0; term < terms; ++term)
      rounded[static_cast<std::size_t>(term) * static_cast<std::size_t>(out) + static_cast<std::size_t>(c)] =
          element(packed, std::int64_t{c} * terms + term, type);
  return rounded;
}

}  // namespace

LayerCheck::LayerCheck(Runtime& runtime, StreamHandle stream, const ConvProblem& problem, int pixels)
    : runtime_(runtime),
      stream_(stream),
      problem_(problem),
      in_(random_bytes(problem.in.pixels() * problem.in_pixel_stride, problem.type, 1)),
      out_bytes_(problem.keep ? static_cast<std::size_t>(problem.out.pixels() * problem.out_pixel_stride) *
                                    size_of(problem.out_type)
                              : 0),
      then_bytes_(static_cast<std::size_t>(problem.out.pixels() * problem.then.pixel_stride) * size_of(problem.type)) {
  const Shape& out = problem.out;
  const int scale = problem.residual == Residual::Half ? 2 : 1;
  if (problem.residual != Residual::None)
    residual_ = random_bytes(out.pixels() / (scale * scale) * problem.residual_pixel_stride, problem.type, 2);

  const int terms = problem.kernel * problem.kernel * problem.in.c;
  std::mt19937 generator(3);
  fill_random(weights_.weight, weights_.bias, out.c, terms, generator);
  rounded_weights_ = terms_first(pack_channels_last(problem, weights_), out.c, terms, problem.type);
  if (problem.then.c > 0) {
    fill_random(weights_.then_weight, weights_.then_bias, problem.then.c, out.c, generator);
    rounded_second_ = terms_first(pack_channels_last(second_of(problem), {weights_.then_weight, weights_.then_bias}),
                                  problem.then.c, out.c, problem.type);
  }

  const auto all = static_cast<int>(out.pixels());
  const int image = out.h * out.w;
  for (const int first : {0, all - image})
    for (const int corner : {0, out.w - 1, image - out.w, image - 1}) pixels_.push_back(first + corner);
  for (int i = 0; i < pixels; ++i) pixels_.push_back(static_cast<int>(std::int64_t{all} * i / pixels));
  std::ranges::sort(pixels_);
  pixels_.erase(std::unique(pixels_.begin(), pixels_.end()), pixels_.end());
  for (const int pixel : pixels_) append_reference(pixel);

  device_in_ = on_device(runtime, stream, in_);
  if (!residual_.empty()) device_residual_ = on_device(runtime, stream, residual_);
  device_out_ = device_memory(runtime, out_bytes_ + then_bytes_);
}

void LayerCheck::append_reference(int pixel) {
  const ConvProblem& p = problem_;
  const int n = pixel / (p.out.h * p.out.w), y = pixel / p.out.w % p.out.h, x = pixel % p.out.w;
  std::vector<float> sums(weights_.bias);
  for (int i = 0; i < p.kernel; ++i)
    for (int j = 0; j < p.kernel; ++j) {
      const int row = y * p.stride + i - (p.kernel - 1) / 2, column = x * p.stride + j - (p.kernel - 1) / 2;
      if (row < 0 || row >= p.in.h || column < 0 || column >= p.in.w) continue;
      const std::int64_t at = ((std::int64_t{n} * p.in.h + row) * p.in.w + column) * p.in_pixel_stride;
      const float* weights = &rounded_weights_[static_cast<std::size_t>((i * p.kernel + j) * p.in.c) * sums.size()];
      for (int k = 0; k < p.in.c; ++k, weights += sums.size()) {
        const float value = element(in_, at + k, p.type);
        for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += value * weights[c];
      }
    }
  const int scale = p.residual == Residual::Half ? 2 : 1;
  const std::int64_t at =
      ((std::int64_t{n} * (p.out.h / scale) + y / scale) * (p.out.w / scale) + x / scale) * p.residual_pixel_stride;
  for (std::size_t c = 0; c < sums.size(); ++c) {
    const float residual =
        p.residual == Residual::None ? 0 : element(residual_, at + static_cast<std::int64_t>(c), p.type);
    sums[c] = p.residual_first ? activated(sums[c] + residual, p.act) : activated(sums[c], p.act) + residual;
  }
  if (p.keep) expected_.insert(expected_.end(), sums.begin(), sums.end());
  if (p.then.c == 0) return;
  std::vector<float> second(weights_.then_bias);
  for (std::size_t k = 0; k < sums.size(); ++k)
    for (std::size_t c = 0; c < second.size(); ++c) second[c] += sums[k] * rounded_second_[k * second.size() + c];
  for (const float sum : second) expected_.push_back(activated(sum, p.then.act));
}

double LayerCheck::relative_error(ConvKernel& kernel) {
  const Owned<std::byte> workspace = device_memory(runtime_, std::max<std::size_t>(kernel.workspace_bytes(), 1));
  runtime_.fill_zero(device_out_.get(), out_bytes_ + then_bytes_, stream_);  // what is not written is wrong
  ConvPointers pointers{device_in_.get(), problem_.keep ? device_out_.get() : nullptr,
                        problem_.residual == Residual::None ? nullptr : device_residual_.get(), workspace.get()};
  if (problem_.then.c > 0) pointers.then_out = device_out_.get() + out_bytes_;
  kernel.run(pointers, {stream_});
  runtime_.synchronize(stream_);

  // Pixels of one output into those of both.
  const std::size_t element_bytes = size_of(problem_.out_type);
  const std::size_t pixel_bytes = static_cast<std::size_t>(channels()) * element_bytes;
  std::vector<std::byte> found(pixels_.size() * pixel_bytes);
  const auto read = [&](const std::byte* from, int pixel_stride, int first_channel, int channels) {
    for (std::size_t i = 0; i < pixels_.size(); ++i)
      runtime_.copy(&found[i * pixel_bytes + static_cast<std::size_t>(first_channel) * element_bytes],
                    from + static_cast<std::size_t>(std::int64_t{pixels_[i]} * pixel_stride) * element_bytes,
                    static_cast<std::size_t>(channels) * element_bytes, stream_);
  };
  if (problem_.keep) read(device_out_.get(), problem_.out_pixel_stride, 0, problem_.out.c);
  if (problem_.then.c > 0)
    read(device_out_.get() + out_bytes_, problem_.then.pixel_stride, kept_channels(), problem_.then.c);
  runtime_.synchronize(stream_);
  found_.resize(expected_.size());
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected_.size(); ++i) {
    found_[i] = element(found, static_cast<std::int64_t>(i), problem_.out_type);
    const double exact = expected_[i], got = found_[i];
    difference += (got - exact) * (got - exact);
    norm += exact * exact;
  }
  return std::sqrt(difference / norm);
}

std::vector<std::byte> LayerCheck::output() {
  std::vector<std::byte> bytes(out_bytes_ + then_bytes_);
  runtime_.copy(bytes.data(), device_out_.get(), bytes.size(), stream_);
  runtime_.synchronize(stream_);
  return bytes;
}

}  // namespace damoyolo::cuda
