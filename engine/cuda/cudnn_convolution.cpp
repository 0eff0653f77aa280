#include "engine/cuda/cudnn_convolution.h"

#include <algorithm>
#include <array>
#include <optional>

#include "engine/core/error.h"
#include "engine/cuda/conv_packing.h"
#include "engine/cuda/uploaded.h"

namespace damoyolo::cuda {
namespace {

// Where only the likely ones are wanted: how many a heuristic is asked for, and how many of all that need not be
// compiled are kept. Those to compile come last, however early they are proposed.
constexpr std::size_t kAsked = 64, kKept = 8;

cudnnDataType_t type_of(DType type) {
  switch (type) {
    case DType::F16: return CUDNN_DATA_HALF;
    case DType::BF16: return CUDNN_DATA_BFLOAT16;
    default: return CUDNN_DATA_FLOAT;
  }
}

// The largest alignment up to 16 bytes of every pixel, when the first one has `alignment`.
std::int64_t pixel_alignment(std::int64_t alignment, std::int64_t pixel_stride, DType type) {
  const std::int64_t both = alignment | (pixel_stride * static_cast<std::int64_t>(size_of(type)));
  return std::min<std::int64_t>(16, both & -both);
}

class GraphBuilder {
 public:
  GraphBuilder(const Cudnn& cudnn, const ConvSplit& split) : cudnn_(cudnn), problem_(split.first), split_(split) {}

  std::shared_ptr<const CudnnGraph> build() {
    // Descriptors are referred to by address while the graph is built.
    graph_.descriptors.reserve(32);
    std::vector<ConvStep> steps = steps_of(problem_);
    if (!split_.bias_first)
      steps.erase(steps.begin());
    else if (steps.size() > 1 && steps[1] == ConvStep::Residual)
      std::swap(steps[0], steps[1]);

    const Shape& out = problem_.out;
    const CudnnDescriptor* sum = steps.empty() ? output() : intermediate();
    operations_.push_back(&convolution(*sum));
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const CudnnDescriptor* result = i + 1 == steps.size() ? output() : intermediate();
      switch (steps[i]) {
        case ConvStep::Bias:
          add(*sum, tensor(kCudnnBias, {1, 1, 1, out.c}, problem_.out_type, out.c, kUploadedAlignment), *result);
          break;
        case ConvStep::Residual:
          add(*sum, tensor(kCudnnResidual, out, problem_.type, problem_.residual_pixel_stride, problem_.alignment),
              *result);
          break;
        case ConvStep::Activation: activate(*sum, *result); break;
      }
      sum = result;
    }

    CudnnDescriptor& graph = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (!cudnn_.device) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, cudnn_.handle);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, std::span<const CudnnDescriptor* const>(operations_));
    if (!graph.finalize_if_supported()) return nullptr;
    return std::make_shared<const CudnnGraph>(std::move(graph_));
  }

 private:
  static constexpr int kUploadedAlignment = 256;

  CudnnDescriptor& make(cudnnBackendDescriptorType_t type) {
    return graph_.descriptors.emplace_back(cudnn_.functions, type);
  }

  CudnnDescriptor& describe_tensor(std::int64_t id, const Shape& shape, DType type, std::int64_t pixel_stride,
                                   int alignment) {
    // The graph API orders dimensions n, c, h, w, whatever order they lie in.
    const std::array<std::int64_t, 4> sizes = {shape.n, shape.c, shape.h, shape.w},
                                      strides = {shape.h * shape.w * pixel_stride, 1, shape.w * pixel_stride,
                                                 pixel_stride};
    return make(CUDNN_BACKEND_TENSOR_DESCRIPTOR)
        .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
        .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type_of(type))
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes)
        .set(CUDNN_ATTR_TENSOR_STRIDES, strides)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, pixel_alignment(alignment, pixel_stride, type));
  }

  CudnnDescriptor& tensor(CudnnTensor id, const Shape& shape, DType type, int pixel_stride, int alignment) {
    return describe_tensor(id, shape, type, pixel_stride, alignment).finalize();
  }

  // A result that stays inside the engine.
  CudnnDescriptor* intermediate() {
    const Shape& out = problem_.out;
    return &describe_tensor(next_intermediate_++, out, DType::F32, out.c, kUploadedAlignment)
                .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true)
                .finalize();
  }

  CudnnDescriptor* output() {
    return &tensor(kCudnnOutput, problem_.out, problem_.out_type, problem_.out_pixel_stride, problem_.alignment);
  }

  CudnnDescriptor& convolution(const CudnnDescriptor& result) {
    const ConvProblem& p = problem_;
    const std::int64_t pad = (p.kernel - 1) / 2, stride = p.stride;
    using Pair = std::array<std::int64_t, 2>;
    // cuDNN rounds the number of windows down, so that the padding is the same on all sides also where the last
    // window ends before it; more engines support that.
    CudnnDescriptor& convolution = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)
                                       .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2})
                                       .set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
                                       .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION)
                                       .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, Pair{1, 1})
                                       .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, Pair{stride, stride})
                                       .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, Pair{pad, pad})
                                       .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, Pair{pad, pad})
                                       .finalize();
    const CudnnDescriptor& input = tensor(kCudnnInput, p.in, p.type, p.in_pixel_stride, p.alignment);
    const Shape filters{p.out.c, p.kernel, p.kernel, p.in.c / p.groups};
    const CudnnDescriptor& weights = tensor(kCudnnWeights, filters, p.type, filters.c, kUploadedAlignment);
    return make(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, input)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weights)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, result)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.f)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.f)
        .finalize();
  }

  CudnnDescriptor& pointwise(cudnnPointwiseMode_t mode) {
    return make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR)
        .set(CUDNN_ATTR_POINTWISE_MODE, mode)
        .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT)
        .finalize();
  }

  void add(const CudnnDescriptor& a, const CudnnDescriptor& b, const CudnnDescriptor& result) {
    const CudnnDescriptor& mode = pointwise(CUDNN_POINTWISE_ADD);
    operations_.push_back(&make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result)
                               .finalize());
  }

  static cudnnPointwiseMode_t mode_of(Activation act) {
    switch (act) {
      case Activation::None: break;
      case Activation::Relu: return CUDNN_POINTWISE_RELU_FWD;
      case Activation::Silu: return CUDNN_POINTWISE_SWISH_FWD;
    }
    return CUDNN_POINTWISE_IDENTITY;
  }

  void activate(const CudnnDescriptor& x, const CudnnDescriptor& result) {
    const CudnnDescriptor& mode = pointwise(mode_of(problem_.act));
    operations_.push_back(&make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
                               .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result)
                               .finalize());
  }

  const Cudnn& cudnn_;
  const ConvProblem& problem_;
  const ConvSplit& split_;
  CudnnGraph graph_;
  std::vector<const CudnnDescriptor*> operations_;
  std::int64_t next_intermediate_ = kCudnnOutput + 1;
};

bool is_allowed(const CudnnDescriptor& engine, const ConvProblem& problem) {
  const bool exact = problem.type == DType::F32 && !problem.allow_tf32;
  const auto notes =
      engine.get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  return std::none_of(notes.begin(), notes.end(), [&](cudnnBackendNumericalNote_t note) {
    switch (note) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      // Large tiles of Winograd's algorithm lose several digits.
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13: return true;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS: return exact;
      default: return false;
    }
  });
}

std::string name_of(const ConvSplit& split, const CudnnDescriptor& engine, const CudnnDescriptor& config) {
  std::string name =
      fmt::format("cudnn:{}:{}", describe(split), engine.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  char separator = ':';
  for (const CudnnDescriptor& knob : config.get_descriptors(
           CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS)) {
    name += fmt::format("{}{}={}", separator,
                        static_cast<int>(knob.get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE)),
                        knob.get<std::int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
    separator = ',';
  }
  return name;
}

class CudnnKernel : public ConvKernel {
 public:
  CudnnKernel(const Cudnn& cudnn, const ConvSplit& split, std::shared_ptr<const CudnnConfig> config,
              const ConvWeights& weights)
      : cudnn_(cudnn), split_(split), config_(std::move(config)), plan_(cudnn_plan(cudnn, *config_)) {
    workspace_bytes_ = static_cast<std::size_t>(plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
    weights_ = Uploaded(pack_channels_last(split.first, weights));
    if (split.bias_first) bias_ = Uploaded(pack_as(split.first.out_type, weights.bias));
  }

  std::string name() const override { return config_->name; }
  std::size_t workspace_bytes() const override { return workspace_bytes_; }

  void run(const ConvPointers& given, kernels::Stream stream) override {
    ConvPointers pointers = given;
    pointers.next = {};  // nothing that cuDNN is told
    if (!arguments_ || pointers != bound_) bind(pointers);
    const CudnnFunctions& functions = cudnn_.functions;
    check(functions, functions.cudnnSetStream(cudnn_.handle, stream.handle), "cudnnSetStream");
    check(functions, functions.cudnnBackendExecute(cudnn_.handle, plan_.get(), arguments_->get()),
          "cudnnBackendExecute");
  }

 private:
  void bind(const ConvPointers& pointers) {
    require_aligned(split_.first, pointers);
    std::vector<std::int64_t> ids = {kCudnnInput, kCudnnWeights, kCudnnOutput};
    std::vector<void*> addresses = {const_cast<void*>(pointers.in), const_cast<void*>(weights_.data()), pointers.out};
    if (split_.bias_first) {
      ids.push_back(kCudnnBias);
      addresses.push_back(const_cast<void*>(bias_.data()));
    }
    if (split_.first.residual != ConvProblem::Residual::None) {
      ids.push_back(kCudnnResidual);
      addresses.push_back(const_cast<void*>(pointers.residual));
    }
    arguments_.emplace(cudnn_.functions, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    arguments_->set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids)
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, addresses)
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, pointers.workspace)
        .finalize();
    bound_ = pointers;
  }

  const Cudnn& cudnn_;
  ConvSplit split_;
  std::shared_ptr<const CudnnConfig> config_;
  CudnnDescriptor plan_;
  std::size_t workspace_bytes_ = 0;
  Uploaded weights_, bias_;
  std::optional<CudnnDescriptor> arguments_;  // for the addresses in bound_
  ConvPointers bound_;
};

}  // namespace

std::shared_ptr<const CudnnGraph> build_cudnn_graph(const Cudnn& cudnn, const ConvSplit& split) {
  return GraphBuilder(cudnn, split).build();
}

std::vector<std::shared_ptr<const CudnnConfig>> cudnn_configs(const Cudnn& cudnn, const ConvSplit& split,
                                                              Proposals proposals) {
  const bool all = proposals == Proposals::All, knows_workspace = cudnn.functions.cudnnGetVersion() >= 90200;
  std::vector<std::shared_ptr<const CudnnConfig>> configs;
  std::size_t ready_made = 0;
  const auto graph = build_cudnn_graph(cudnn, split);
  if (!graph) return configs;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK}) {
    if (mode == CUDNN_HEUR_MODE_B && !all) continue;  // it takes longer than A
    CudnnDescriptor heuristic(cudnn.functions, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph->graph()).set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
    if (cudnn.device) heuristic.set(kCudnnHeuristicDevice, *cudnn.device);
    if (!heuristic.finalize_if_supported()) continue;
    const std::size_t asked = all ? heuristic.count_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS) : kAsked;
    for (CudnnDescriptor& config :
         heuristic.get_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, asked)) {
      if (!all && ready_made == kKept) return configs;
      const CudnnDescriptor engine =
          config.get_descriptor(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
      if (!is_allowed(engine, split.first)) continue;
      std::string name = name_of(split, engine, config);
      const bool known = std::any_of(configs.begin(), configs.end(), [&](const auto& c) { return c->name == name; });
      if (known) continue;
      const auto behaviour =
          engine.get_all<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
      const bool compiled = std::ranges::count(behaviour, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) > 0;
      ready_made += compiled ? 0 : 1;
      const auto workspace = compiled || !knows_workspace ? 0 : config.get<std::int64_t>(kCudnnConfigWorkspace);
      configs.push_back(std::make_shared<const CudnnConfig>(
          CudnnConfig{graph, std::move(config), std::move(name), compiled, workspace}));
    }
  }
  return configs;
}

const CudnnConfig* first_ready_made(const std::vector<std::shared_ptr<const CudnnConfig>>& configs) {
  const auto found = std::ranges::find(configs, false, [](const auto& config) { return config->compiled; });
  return found == configs.end() ? nullptr : found->get();
}

CudnnDescriptor cudnn_plan(const Cudnn& cudnn, const CudnnConfig& config) {
  CudnnDescriptor plan(cudnn.functions, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  if (cudnn.device)
    plan.set(kCudnnPlanDevice, *cudnn.device);
  else
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, cudnn.handle);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config.config).finalize();
  return plan;
}

std::unique_ptr<ConvKernel> make_cudnn_kernel(const Cudnn& cudnn, const ConvSplit& split,
                                              std::shared_ptr<const CudnnConfig> config, const ConvWeights& weights) {
  return std::make_unique<CudnnKernel>(cudnn, split, std::move(config), weights);
}

}  // namespace damoyolo::cuda
