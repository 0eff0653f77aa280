#include "engine/cuda/convolution.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/conv_methods.h"
#include "engine/cuda/cublaslt_convolution.h"
#include "engine/cuda/cudnn_convolution.h"
#include "engine/cuda/depthwise_convolution.h"
#include "engine/cuda/own_convolution.h"
#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {
namespace {

// How much slower than the one before it a library's next proposal is taken to be: enough to keep their order.
constexpr double kNextProposal = 1.02;
// Of our own kernels, those of each generation that are worth timing.
constexpr std::size_t kOwnProposals = 6;

void require(bool holds, const char* expected) {
  if (!holds) throw Error("a convolution on the device expects {}", expected);
}

void require_valid(const ConvProblem& p) {
  const auto is_storage = [](DType type) { return type == DType::F32 || type == DType::BF16 || type == DType::F16; };
  const auto windows = [&](int size) { return (size + p.stride - 1) / p.stride; };
  require(p.in.elements() > 0 && p.out.elements() > 0, "tensors with positive sizes");
  require(p.kernel >= 1 && p.kernel % 2 == 1 && p.stride >= 1, "an odd kernel and a stride of at least 1");
  require(p.groups == 1 || (p.groups == p.in.c && p.out.c == p.in.c), "one group, or one for each channel");
  require(p.out.n == p.in.n && p.out.h == windows(p.in.h) && p.out.w == windows(p.in.w),
          "an output of the input's size over the stride");
  require(is_storage(p.type), "tensors of F32, BF16 or F16");
  require(p.out_type == p.type || p.out_type == DType::F32, "an output of the input's type or F32");
  require(p.in_pixel_stride >= p.in.c && p.out_pixel_stride >= p.out.c, "pixel strides of at least the channels");
  require(p.residual == ConvProblem::Residual::None || p.residual_pixel_stride >= p.out.c,
          "a residual whose pixel stride is at least its channels");
  require(p.residual != ConvProblem::Residual::Half || (p.out.h % 2 == 0 && p.out.w % 2 == 0),
          "an output of even height and width, when the residual has half the size");
  require(p.then.c == 0 || (p.groups == 1 && p.out_type == p.type && p.then.pixel_stride >= p.then.c),
          "one group, an output of the input's type and a pixel stride of at least the channels, of a pair");
  require(p.keep || p.then.c > 0, "an output that is kept, where nothing follows");
  require(p.alignment >= static_cast<int>(size_of(p.type)) && std::has_single_bit(static_cast<unsigned>(p.alignment)),
          "an alignment that is a power of two and holds an element");
}

// All kernels for one method, in the library's order.
std::vector<ConvCandidate> expand(const ConvProblem& problem, const ConvMethod& method, const Libraries& libraries,
                                  Proposals proposals) {
  std::vector<ConvCandidate> candidates;
  double seconds = method.predicted_seconds;
  const ConvSplit& split = method.split;
  const auto add = [&](std::string name, auto make_part, bool compiled = false) {
    candidates.push_back({std::move(name), seconds,
                          [=](const ConvWeights& weights) {
                            const bool padded = split.first.out.c != problem.out.c;
                            return with_epilogue(
                                padded ? make_part(weights_of_first(problem, split, weights)) : make_part(weights),
                                problem, split, weights);
                          },
                          compiled});
    seconds *= kNextProposal;
  };
  switch (method.kind) {
    case ConvMethod::Kind::Depthwise:
      add(kDepthwiseName, [=](const ConvWeights& weights) { return make_depthwise_kernel(problem, weights); });
      break;
    case ConvMethod::Kind::CublasLt: {
      const CublasLt& cublaslt = *libraries.cublaslt;
      for (const auto& algorithm : CublasLtProduct(cublaslt, split).algorithms())
        add(cublaslt_name(cublaslt, split, algorithm.algo), [=, &cublaslt](const ConvWeights& weights) {
          return make_cublaslt_kernel(cublaslt, split, algorithm, weights);
        });
      break;
    }
    case ConvMethod::Kind::Cudnn: {
      const Cudnn& cudnn = *libraries.cudnn;
      const auto configs = cudnn_configs(cudnn, split, proposals);
      // The heuristic has weighed the copies of its proposals against each other, so that the first one's count. Those
      // to compile, whose copies are not known, come behind the others in any case.
      if (const CudnnConfig* first = first_ready_made(configs))
        seconds += copy_seconds(first->workspace_bytes, libraries.device);
      for (const auto& config : configs)
        add(
            config->name,
            [=, &cudnn](const ConvWeights& weights) { return make_cudnn_kernel(cudnn, split, config, weights); },
            config->compiled);
      break;
    }
  }
  return candidates;
}

// What a library fails at takes nothing else along; its message goes to `failures`.
std::vector<ConvCandidate> library_candidates(const ConvProblem& problem, const Libraries& libraries,
                                              Proposals proposals, std::vector<std::string>& failures) {
  std::vector<ConvCandidate> candidates;
  for (const ConvMethod& method :
       conv_methods(problem, {libraries.cudnn != nullptr, libraries.cublaslt != nullptr, libraries.device}))
    try {
      std::ranges::move(expand(problem, method, libraries, proposals), std::back_inserter(candidates));
    } catch (const OutOfDeviceMemory&) {
      throw;
    } catch (const Error& error) {
      if (std::ranges::count(failures, error.what()) == 0) failures.emplace_back(error.what());
    }
  std::ranges::stable_sort(candidates, {}, turn_of);
  return candidates;
}

[[noreturn]] void throw_none(const ConvProblem& problem, const Libraries& libraries, KernelSource source,
                             const std::vector<std::string>& failures) {
  std::vector<std::string> reasons;
  if (source == KernelSource::Own)
    reasons = {"the libraries' kernels were ruled out"};
  else if (!failures.empty())
    reasons = failures;
  else if (libraries.cudnn)
    reasons = {"cuDNN proposes nothing for it"};
  else
    reasons = libraries.report;
  if (source != KernelSource::Library) reasons.push_back(describe_own_kernels(libraries.device.compute_capability));
  throw Error("nothing computes a convolution {0}x{0} stride {1} of {2} to {3} channels in {4} here: {5}",
              problem.kernel, problem.stride, problem.in.c, problem.out.c, name_of(problem.type),
              fmt::join(reasons, "; "));
}

}  // namespace

std::vector<ConvCandidate> own_candidates(const ConvProblem& problem, const DeviceTraits& device, std::size_t most) {
  std::vector<ConvCandidate> candidates;
  for (const OwnConvolution& one : own_convolutions(problem, device, own_kernels(), most))
    candidates.push_back(
        {own_name(*one.kernel, one.config), one.predicted_seconds, [problem, one](const ConvWeights& weights) {
           return make_own_kernel(problem, *one.kernel, one.config, weights);
         }});
  return candidates;
}

std::vector<ConvCandidate> conv_candidates(const ConvProblem& problem, Libraries& libraries, KernelSource source,
                                           Proposals proposals) {
  require_valid(problem);
  std::vector<ConvCandidate> candidates;
  std::vector<std::string> failures;
  const bool is_pair = problem.then.c > 0;
  // Depthwise convolutions are ours in any case, where cuDNN is not faster.
  if (!is_pair && (source != KernelSource::Own || problem.groups > 1))
    candidates = library_candidates(problem, libraries, proposals, failures);
  if (source != KernelSource::Library)
    std::ranges::move(own_candidates(problem, libraries.device, kOwnProposals), std::back_inserter(candidates));
  if (candidates.empty() && !is_pair) throw_none(problem, libraries, source, failures);
  return candidates;
}

}  // namespace damoyolo::cuda
