#include "engine/cuda/kernel_choice.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <utility>

#include "engine/core/error.h"

namespace damoyolo::cuda {
namespace {

[[noreturn]] void none_works(const std::string& node, const std::string& reason) {
  throw Error("no kernel can compute the convolution {}: {}", node, reason.empty() ? "there is no candidate" : reason);
}

// Device memory full of numbers with random signs and mantissas in [0.5, 1): zeros would be computed faster.
class Numbers {
 public:
  Numbers(Runtime& runtime, StreamHandle stream, std::int64_t elements, DType type) {
    constexpr std::size_t kPattern = 1 << 20;
    const std::size_t bytes = static_cast<std::size_t>(elements) * size_of(type);
    memory_ = device_memory(runtime, bytes);
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
      runtime.copy(memory_.get() + at, pattern.get(), std::min(kPattern, bytes - at), stream);
    runtime.synchronize(stream);  // the pattern goes away
  }
  std::byte* get() const { return memory_.get(); }

 private:
  Owned<std::byte> memory_;
};

class Stopwatch {
 public:
  Stopwatch(Runtime& runtime, StreamHandle stream)
      : runtime_(runtime), stream_(stream), begin_(make_event(runtime, true)), end_(make_event(runtime, true)) {}

  // Seconds of one run: the least mean over a few rounds.
  double measure(ConvKernel& kernel, const ConvPointers& pointers) {
    constexpr int kRounds = 3, kRuns = 10;
    for (int run = 0; run < 3; ++run) kernel.run(pointers, {stream_});
    double least = std::numeric_limits<double>::infinity();
    for (int round = 0; round < kRounds; ++round) {
      runtime_.record(begin_.get(), stream_);
      for (int run = 0; run < kRuns; ++run) kernel.run(pointers, {stream_});
      runtime_.record(end_.get(), stream_);
      runtime_.synchronize(end_.get());
      least = std::min(least, runtime_.seconds_between(begin_.get(), end_.get()) / kRuns);
    }
    return least;
  }

 private:
  Runtime& runtime_;
  StreamHandle stream_;
  Owned<CUevent_st> begin_, end_;
};

std::int64_t span_of(const Shape& shape, int pixel_stride) { return shape.pixels() * pixel_stride; }

}  // namespace

std::unique_ptr<ConvKernel> predicted_best(const std::string& node, const std::vector<ConvCandidate>& candidates,
                                           const ConvWeights& weights) {
  std::string reason;
  for (const ConvCandidate& candidate : candidates) {
    try {
      return candidate.make(weights);
    } catch (const OutOfDeviceMemory&) {
      throw;
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  none_works(node, reason);
}

std::unique_ptr<ConvKernel> named(const std::string& name, const std::vector<ConvCandidate>& candidates,
                                  const ConvWeights& weights) {
  for (const ConvCandidate& candidate : candidates) {
    if (candidate.name != name) continue;
    try {
      return candidate.make(weights);
    } catch (const OutOfDeviceMemory&) {
      throw;
    } catch (const Error&) {
      return nullptr;
    }
  }
  return nullptr;
}

std::unique_ptr<ConvKernel> measured_best(Runtime& runtime, StreamHandle stream, const std::string& node,
                                          const ConvProblem& problem, const std::vector<ConvCandidate>& candidates,
                                          const ConvWeights& weights) {
  if (candidates.size() == 1) return predicted_best(node, candidates, weights);
  const Numbers in(runtime, stream, span_of(problem.in, problem.in_pixel_stride), problem.type);
  const Numbers out(runtime, stream, span_of(problem.out, problem.out_pixel_stride), problem.out_type);
  std::optional<Numbers> residual;
  if (problem.residual != ConvProblem::Residual::None)
    residual.emplace(runtime, stream, span_of(problem.out, problem.residual_pixel_stride), problem.type);
  Stopwatch stopwatch(runtime, stream);

  std::unique_ptr<ConvKernel> best;
  double least = std::numeric_limits<double>::infinity();
  std::string reason;
  for (const ConvCandidate& candidate : candidates) {
    try {
      std::unique_ptr<ConvKernel> kernel = candidate.make(weights);
      const Owned<std::byte> workspace = device_memory(runtime, std::max<std::size_t>(kernel->workspace_bytes(), 1));
      const double seconds =
          stopwatch.measure(*kernel, {in.get(), out.get(), residual ? residual->get() : nullptr, workspace.get()});
      if (best != nullptr && seconds >= least) continue;
      least = seconds;
      best = std::move(kernel);
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  if (best == nullptr) none_works(node, reason);
  return best;
}

}  // namespace damoyolo::cuda
