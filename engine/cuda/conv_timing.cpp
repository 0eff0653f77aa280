#include "engine/cuda/conv_timing.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/timing.h"

namespace damoyolo::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::int64_t elements, DType type) {
  const std::size_t bytes = static_cast<std::size_t>(elements) * size_of(type);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::size_t bytes_of(const Shape& shape, int pixel_stride, DType type) {
  return aligned(shape.pixels() * pixel_stride, type);
}

// Numbers with random signs and mantissas in [0.5, 1): zeros would be computed faster.
void fill_random(Runtime& runtime, StreamHandle stream, std::byte* memory, std::size_t bytes, DType type) {
  constexpr std::size_t kPattern = 1 << 20;
  const Owned<std::byte> pattern = pinned_memory(runtime, kPattern);
  std::mt19937 bits(1);
  for (std::size_t at = 0; at < kPattern; at += size_of(type)) {
    const auto random = static_cast<std::uint32_t>(bits());
    const std::uint32_t wide = (random & 0x807fffffu) | 0x3f000000u;  // fp32; its upper half is bf16
    const auto half = static_cast<std::uint16_t>(type == DType::F16 ? (random & 0x83ffu) | 0x3800u : wide >> 16);
    if (type == DType::F32)
      std::memcpy(pattern.get() + at, &wide, sizeof(wide));
    else
      std::memcpy(pattern.get() + at, &half, sizeof(half));
  }
  for (std::size_t at = 0; at < bytes; at += kPattern)
    runtime.copy(memory + at, pattern.get(), std::min(kPattern, bytes - at), stream);
  runtime.synchronize(stream);  // the pattern goes away
}

// Sets of a convolution's tensors on the device.
class Tensors {
 public:
  Tensors(Runtime& runtime, StreamHandle stream, const ConvProblem& problem, std::size_t rotated_bytes)
      : in_bytes_(bytes_of(problem.in, problem.in_pixel_stride, problem.type)),
        // With the pixels of the output, enough also for a residual of half the size.
        residual_bytes_(problem.residual == ConvProblem::Residual::None
                            ? 0
                            : bytes_of(problem.out, problem.residual_pixel_stride, problem.type)),
        out_bytes_(problem.keep ? bytes_of(problem.out, problem.out_pixel_stride, problem.out_type) : 0),
        then_bytes_(bytes_of(problem.out, problem.then.pixel_stride, problem.type)),
        sets_(rotated_bytes / (in_bytes_ + residual_bytes_ + out_bytes_ + then_bytes_) + 1) {
    inputs_ = device_memory(runtime, sets_ * (in_bytes_ + residual_bytes_));
    outputs_ = device_memory(runtime, sets_ * (out_bytes_ + then_bytes_));
    fill_random(runtime, stream, inputs_.get(), sets_ * (in_bytes_ + residual_bytes_), problem.type);
    runtime.fill_zero(outputs_.get(), sets_ * (out_bytes_ + then_bytes_), stream);
  }

  std::size_t sets() const { return sets_; }
  ConvPointers set(std::size_t index, void* workspace) const {
    std::byte* const in = inputs_.get() + index * (in_bytes_ + residual_bytes_);
    std::byte* const out = outputs_.get() + index * (out_bytes_ + then_bytes_);
    ConvPointers pointers{in, out_bytes_ > 0 ? out : nullptr, residual_bytes_ > 0 ? in + in_bytes_ : nullptr,
                          workspace};
    if (then_bytes_ > 0) pointers.then_out = out + out_bytes_;
    return pointers;
  }

 private:
  std::size_t in_bytes_, residual_bytes_, out_bytes_, then_bytes_, sets_;
  Owned<std::byte> inputs_, outputs_;
};

// Of one run.
double seconds_of(Runtime& runtime, StreamHandle stream, ConvKernel& kernel, const Tensors& tensors, bool overlap) {
  constexpr std::size_t kRuns = 10;
  const Owned<std::byte> workspace = device_memory(runtime, std::max<std::size_t>(kernel.workspace_bytes(), 1));
  return least_seconds(runtime, stream, std::max(kRuns, tensors.sets()), [&](std::size_t run) {
    const bool follows = run > 0;  // a kernel, of the same capture
    kernel.run(tensors.set(run % tensors.sets(), workspace.get()), {stream, overlap && follows});
  });
}

// A kernel that reads what is not its own takes the device along: whatever comes after it fails with its error.
void require_usable(Runtime& runtime, StreamHandle stream, const std::string& kernel) {
  try {
    runtime.synchronize(stream);
  } catch (const Error& error) {
    throw Error("the kernel {} has left the device unusable: {}", kernel, error.what());
  }
}

}  // namespace

std::vector<CandidateTime> time_candidates(Runtime& runtime, StreamHandle stream, const ConvProblem& problem,
                                           const std::vector<ConvCandidate>& candidates, const ConvWeights& weights,
                                           const TimingOptions& options, std::unique_ptr<ConvKernel>* fastest) {
  const Tensors tensors(runtime, stream, problem, options.rotated_bytes);
  std::vector<CandidateTime> times;
  double least = std::numeric_limits<double>::infinity();
  for (const ConvCandidate& candidate : candidates) {
    CandidateTime& time = times.emplace_back();
    time.name = candidate.name;
    if (std::chrono::steady_clock::now() >= options.deadline) {
      time.error = "there was no time left for it";
      time.had_turn = false;
      continue;
    }
    try {
      std::unique_ptr<ConvKernel> kernel = candidate.make(weights);
      options.check(*kernel);
      time.seconds = seconds_of(runtime, stream, *kernel, tensors, options.overlap);
      if (fastest == nullptr || time.seconds >= least) continue;
      least = time.seconds;
      *fastest = std::move(kernel);
    } catch (const Error& error) {
      time.error = error.what();
      require_usable(runtime, stream, candidate.name);
    }
  }
  return times;
}

}  // namespace damoyolo::cuda
