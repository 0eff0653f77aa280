// The library calls behind convolutions, without a GPU: how problems are divided, packed, described and ranked.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "engine/core/error.h"
#include "engine/cuda/conv_methods.h"
#include "engine/cuda/conv_packing.h"
#include "engine/cuda/conv_split.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/cublaslt_convolution.h"
#include "engine/cuda/cudnn_convolution.h"
#include "tests/conv_problems.h"
#include "tests/fake_cublaslt.h"
#include "tests/fake_cudnn.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;
using namespace damoyolo::cuda;
using cuda::test::FakeCublasLt;
using cuda::test::FakeCudnn;
using cuda::test::FakeDescriptor;
using cuda::test::FakeEngine;
using cuda::test::FakeLayout;
using Kind = ConvMethod::Kind;
using Residual = ConvProblem::Residual;

namespace {

// 64 of 128 channels into 32 of 96.
ConvProblem slices() { return convolution_of_slices({2, 20, 30, 64}, 128, {2, 20, 30, 32}, 96); }

ConvProblem pointwise() {
  ConvProblem problem = slices();
  problem.kernel = 1;
  return problem;
}

ConvProblem depthwise() {
  ConvProblem problem = slices();
  problem.kernel = 5;
  problem.out.c = problem.groups = problem.in.c;
  problem.act = Activation::Silu;
  return problem;
}

ConvProblem with_residual(ConvProblem problem, Residual residual, bool first = true) {
  problem.residual = residual;
  problem.residual_pixel_stride = 48;
  problem.residual_first = first;
  return problem;
}

std::vector<Kind> kinds(const std::vector<ConvMethod>& methods) {
  std::vector<Kind> result;
  for (const ConvMethod& method : methods) result.push_back(method.kind);
  return result;
}

double finish(double sum, double residual, Activation act, bool first) {
  return first ? activated(sum + residual, act) : activated(sum, act) + residual;
}

using Sizes = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("a divided convolution computes what the whole one does") {
  const double sum = -1.5, bias = 2.25, residual = -0.5;
  for (const Activation act : {Activation::None, Activation::Relu, Activation::Silu})
    for (const Residual kind : {Residual::None, Residual::Same, Residual::Half})
      for (const bool first : {false, true})
        for (const DType out_type : {DType::BF16, DType::F32})
          for (const bool dense : {false, true}) {
            ConvProblem problem = with_residual(slices(), kind, first);
            problem.act = act;
            problem.out_type = out_type;
            const double r = kind == Residual::None ? 0 : residual;
            for (std::size_t fused = 0; fused <= steps_of(problem).size(); ++fused) {
              CAPTURE(fused);
              const ConvSplit parts = split(problem, fused, dense);
              const float device_bias = 0;
              const auto rest = remaining_epilogue(problem, parts, &device_bias, &residual);
              const double y = finish(sum + (parts.bias_first ? bias : 0),
                                      parts.first.residual == Residual::None ? 0 : r, parts.first.act, first);
              const double x = y + (rest.bias ? bias : 0);
              CHECK(finish(x, rest.residual.data ? r : 0, rest.act, rest.residual_first) ==
                    doctest::Approx(finish(sum + bias, r, act, first)));
              // What launch_epilogue takes.
              if (rest.residual.data) CHECK(rest.residual.type == parts.first.out_type);
              CHECK((parts.first.out_type == out_type || out_type == DType::F32));
              CHECK(parts.intermediate ==
                    (parts.first.out_type != out_type || parts.first.out_pixel_stride != problem.out_pixel_stride));
              if (parts.intermediate || rest.bias || rest.residual.data || rest.act != Activation::None)
                CHECK(parts.epilogue);
              if (dense) CHECK(parts.first.out_pixel_stride == problem.out.c);
            }
          }
}

TEST_CASE("libraries fuse the steps they know") {
  const auto fuses = [](const ConvProblem& problem) {
    return std::pair(describe(split(problem, steps_in_cudnn(problem))),
                     describe(split(problem, steps_in_cublaslt(problem))));
  };
  ConvProblem problem = pointwise();
  CHECK(fuses(problem) == std::pair<std::string, std::string>("conv+bias+relu", "conv+bias+relu"));
  CHECK(fuses(with_residual(problem, Residual::Same)) ==
        std::pair<std::string, std::string>("conv+bias+residual+relu", "conv+bias+residual+relu"));
  CHECK(fuses(with_residual(problem, Residual::Same, false)) ==
        std::pair<std::string, std::string>("conv+bias+relu+residual", "conv+bias+relu"));
  CHECK(fuses(with_residual(problem, Residual::Half)) ==
        std::pair<std::string, std::string>("conv+bias", "conv+bias"));
  problem.act = Activation::Silu;
  CHECK(fuses(with_residual(problem, Residual::Same)) ==
        std::pair<std::string, std::string>("conv+bias+residual+silu", "conv+bias+residual"));
  problem.act = Activation::None;
  CHECK(fuses(with_residual(problem, Residual::Same, false)) ==
        std::pair<std::string, std::string>("conv+bias+residual", "conv+bias+residual"));
  problem.out_type = DType::F32;
  CHECK(fuses(with_residual(problem, Residual::Same)) ==
        std::pair<std::string, std::string>("conv+bias+residual", "conv+bias+store"));
}

TEST_CASE("the half-size residual is left to the epilogue, with its own size") {
  const ConvProblem problem = with_residual(slices(), Residual::Half);
  const int data = 0;
  const auto rest = remaining_epilogue(problem, split(problem, 1), nullptr, &data);
  CHECK(rest.residual.h == 10);
  CHECK(rest.residual.w == 15);
  CHECK(rest.residual.c == 32);
  CHECK(rest.residual.pixel_stride == 48);
  CHECK(rest.act == Activation::Relu);
}

TEST_CASE("weights are packed with channels last, in the type of the tensors") {
  ConvProblem problem;
  problem.in = {1, 4, 4, 2};
  problem.out = {1, 4, 4, 3};
  problem.kernel = 3;
  ConvWeights weights;
  for (int i = 0; i < 3 * 2 * 9; ++i) weights.weight.push_back(static_cast<float>(i));
  weights.bias = {1, 2, 3};

  problem.type = DType::F32;
  const auto bytes = pack_channels_last(problem, weights);
  REQUIRE(bytes.size() == weights.weight.size() * 4);
  for (int out = 0; out < 3; ++out)
    for (int tap = 0; tap < 9; ++tap)
      for (int in = 0; in < 2; ++in)
        CHECK(element_as_float(bytes.data() + ((out * 9 + tap) * 2 + in) * 4, DType::F32) ==
              static_cast<float>((out * 2 + in) * 9 + tap));
  for (const DType type : {DType::BF16, DType::F16}) {
    problem.type = type;
    const auto halves = pack_channels_last(problem, weights);
    REQUIRE(halves.size() == weights.weight.size() * 2);
    CHECK(element_as_float(halves.data() + 2 * 2, type) == 1);  // output 0, tap 1, input 0
    CHECK(element_as_float(halves.data() + 3 * 2, type) == 10);
  }

  weights.bias.pop_back();
  CHECK_THROWS_WITH_AS(pack_channels_last(problem, weights),
                       "a convolution of 3 outputs with 18 weights each was given 54 weights and 2 biases", Error);
}

TEST_CASE("depthwise weights are packed tap by tap") {
  ConvProblem problem;
  problem.in = problem.out = {1, 4, 4, 2};
  problem.groups = 2;
  problem.kernel = 3;
  ConvWeights weights{std::vector<float>(18), {0, 0}};
  for (std::size_t i = 0; i < 18; ++i) weights.weight[i] = static_cast<float>(i);
  const auto bytes = pack_taps(problem, weights);
  for (int tap = 0; tap < 9; ++tap)
    for (int channel = 0; channel < 2; ++channel)
      CHECK(element_as_float(bytes.data() + (tap * 2 + channel) * 4, DType::F32) ==
            static_cast<float>(channel * 9 + tap));
}

TEST_CASE("16-bit packing rounds to nearest even") {
  const std::vector<float> values = {1.00390625f, 1.01171875f, 1.00048828125f, -65504.f};
  const auto bf16 = pack_as(DType::BF16, values), f16 = pack_as(DType::F16, values);
  CHECK(element_as_float(bf16.data(), DType::BF16) == 1.f);
  CHECK(element_as_float(bf16.data() + 2, DType::BF16) == 1.015625f);
  CHECK(element_as_float(f16.data() + 4, DType::F16) == 1.f);
  CHECK(element_as_float(f16.data() + 6, DType::F16) == -65504.f);
}

TEST_CASE("what there is decides which methods are offered, and in which order") {
  const ConvCapabilities both{true, true, h100()}, only_cublaslt{false, true, h100()}, nothing{false, false, h100()};

  const auto dense = conv_methods(slices(), both);
  CHECK(std::ranges::count(kinds(dense), Kind::Cudnn) == 3);  // the whole, conv+bias, conv
  CHECK(dense.size() == 3);
  CHECK_FALSE(dense.front().split.epilogue);
  CHECK(conv_methods(slices(), only_cublaslt).empty());

  const auto product = conv_methods(pointwise(), both);
  CHECK(product.front().kind == Kind::CublasLt);
  CHECK_FALSE(product.front().split.epilogue);
  CHECK(kinds(conv_methods(pointwise(), only_cublaslt)) == std::vector{Kind::CublasLt});
  ConvProblem silu = pointwise();
  silu.act = Activation::Silu;
  CHECK(conv_methods(silu, both).front().kind == Kind::Cudnn);
  CHECK(describe(conv_methods(silu, only_cublaslt).front().split) == "conv+bias");

  CHECK(conv_methods(depthwise(), both).front().kind == Kind::Depthwise);
  CHECK(conv_methods(depthwise(), both).at(1).kind == Kind::Cudnn);
  CHECK(kinds(conv_methods(depthwise(), nothing)) == std::vector{Kind::Depthwise});
  CHECK(conv_methods(slices(), nothing).empty());

  // The head: F32 at once, or 16 bits that our kernel converts.
  ConvProblem head = slices();
  head.act = Activation::None;
  head.out_type = DType::F32;
  const auto types = conv_methods(head, both);
  CHECK(std::ranges::count(types, true, [](const ConvMethod& m) { return m.split.first.out_type == DType::F32; }) ==
        1);
  CHECK(std::ranges::count(types, true, [](const ConvMethod& m) { return m.split.intermediate; }) == 2);
  CHECK(describe(split(head, 1)) == "conv+bias");
  CHECK(describe(split(head, 1, true)) == "conv+bias+store");
  CHECK(std::ranges::is_sorted(types, {}, &ConvMethod::predicted_seconds));
}

TEST_CASE("device rates follow from clocks") {
  CHECK(h100().bytes_per_second == doctest::Approx(3.352e12).epsilon(0.001));
  CHECK(h100().half_flops == doctest::Approx(1.07e15).epsilon(0.01));
  CHECK(device_traits({75, 40, 1e9, 1e9, 256}).tf32_flops == 0);
  CHECK(device_traits({61, 20, 1e9, 1e9, 256}).half_flops == 0);
  CHECK(device_traits({86, 1, 1e9, 1e9, 8}).half_flops == 1024e9);
}

TEST_CASE("a device that tells neither clocks nor bus has rates, too") {
  const DeviceTraits unknown = device_traits({120, 48, 0, 0, 0});
  CHECK(unknown.clock > 1e8);
  CHECK(unknown.half_flops > unknown.float_flops);
  CHECK(unknown.float_flops > unknown.bytes_per_second);
  CHECK(unknown.bytes_per_second > 1e10);
}

TEST_CASE("cuDNN is told where slices lie") {
  FakeCudnn cudnn;
  {
    const ConvProblem problem = with_residual(slices(), Residual::Same);
    const auto graph = build_cudnn_graph(*cudnn.library, split(problem, 3));
    REQUIRE(graph);
    const auto& described = *static_cast<const FakeDescriptor*>(graph->graph().get());
    REQUIRE(described.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    REQUIRE(described.all<void*>(CUDNN_ATTR_OPERATIONGRAPH_OPS).size() == 4);

    const FakeDescriptor& conv = described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS, 0);
    const FakeDescriptor& x = conv.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
    CHECK(x.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS) == Sizes{2, 64, 20, 30});
    CHECK(x.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES) == Sizes{20 * 30 * 128, 1, 30 * 128, 128});
    CHECK(x.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_BFLOAT16);
    CHECK(x.one(CUDNN_ATTR_TENSOR_UNIQUE_ID) == kCudnnInput);
    CHECK(x.one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) == 16);
    const FakeDescriptor& w = conv.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    CHECK(w.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS) == Sizes{32, 64, 3, 3});
    CHECK(w.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES) == Sizes{9 * 64, 1, 3 * 64, 64});
    const FakeDescriptor& sum = conv.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    CHECK(sum.one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL));
    CHECK(sum.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_FLOAT);

    // Each operation reads what the one before it wrote, and the last writes the output.
    const FakeDescriptor& residual = described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS, 1);
    const FakeDescriptor& bias = described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS, 2);
    const FakeDescriptor& relu = described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS, 3);
    CHECK(&residual.child(CUDNN_ATTR_OPERATION_POINTWISE_XDESC) == &sum);
    CHECK(&bias.child(CUDNN_ATTR_OPERATION_POINTWISE_XDESC) == &residual.child(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    CHECK(&relu.child(CUDNN_ATTR_OPERATION_POINTWISE_XDESC) == &bias.child(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    const FakeDescriptor& b = bias.child(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    CHECK(b.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS) == Sizes{1, 32, 1, 1});
    CHECK(b.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_BFLOAT16);
    const FakeDescriptor& r = residual.child(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    CHECK(r.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES) == Sizes{20 * 30 * 48, 1, 30 * 48, 48});
    CHECK(relu.child(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
              .one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE) == CUDNN_POINTWISE_RELU_FWD);
    const FakeDescriptor& y = relu.child(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    CHECK(y.one(CUDNN_ATTR_TENSOR_UNIQUE_ID) == kCudnnOutput);
    CHECK(y.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES) == Sizes{20 * 30 * 96, 1, 30 * 96, 96});
    CHECK_FALSE(y.attributes.contains(CUDNN_ATTR_TENSOR_IS_VIRTUAL));
  }
  CHECK(cudnn.alive() == 0);
}

TEST_CASE("cuDNN adds a residual after the activation where the node says so") {
  FakeCudnn cudnn;
  ConvProblem problem = with_residual(slices(), Residual::Same, false);
  problem.act = Activation::Silu;
  const auto graph = build_cudnn_graph(*cudnn.library, split(problem, 3));
  const auto& described = *static_cast<const FakeDescriptor*>(graph->graph().get());
  const auto mode = [&](std::size_t operation) {
    return described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation)
        .child(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
        .one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
  };
  CHECK(mode(1) == CUDNN_POINTWISE_ADD);
  CHECK(mode(2) == CUDNN_POINTWISE_SWISH_FWD);
  CHECK(mode(3) == CUDNN_POINTWISE_ADD);
  const FakeDescriptor& last = described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS, 3);
  CHECK(last.child(CUDNN_ATTR_OPERATION_POINTWISE_BDESC).one(CUDNN_ATTR_TENSOR_UNIQUE_ID) == kCudnnResidual);
  CHECK(last.child(CUDNN_ATTR_OPERATION_POINTWISE_YDESC).one(CUDNN_ATTR_TENSOR_UNIQUE_ID) == kCudnnOutput);
}

TEST_CASE("cuDNN's windows give the sizes of the graph") {
  FakeCudnn cudnn;
  for (const int size : {20, 21})
    for (const int kernel : {1, 3, 5})
      for (const int stride : {1, 2}) {
        ConvProblem problem = slices();
        problem.kernel = kernel;
        problem.stride = stride;
        problem.in.h = problem.in.w = size;
        problem.out.h = problem.out.w = (size + stride - 1) / stride;
        const auto graph = build_cudnn_graph(*cudnn.library, split(problem, 0));
        const auto& described = *static_cast<const FakeDescriptor*>(graph->graph().get());
        const FakeDescriptor& operation = described.child(CUDNN_ATTR_OPERATIONGRAPH_OPS);
        const FakeDescriptor& conv = operation.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
        const Sizes before = conv.all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS),
                    after = conv.all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
        CHECK(before == Sizes{kernel / 2, kernel / 2});
        CHECK(conv.all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES) == Sizes{stride, stride});
        // cuDNN's formula for the size of the output.
        CHECK(1 + (size + before[0] + after[0] - kernel) / stride == problem.out.h);
        CHECK(operation.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y).one(CUDNN_ATTR_TENSOR_UNIQUE_ID) ==
              kCudnnOutput);
      }
}

TEST_CASE("cuDNN sees groups, the head's F32 and odd channels") {
  FakeCudnn cudnn;
  const auto tensor = [](const std::shared_ptr<const CudnnGraph>& graph, cudnnBackendAttributeName_t name) {
    return static_cast<const FakeDescriptor*>(graph->graph().get())->child(CUDNN_ATTR_OPERATIONGRAPH_OPS).child(name);
  };
  const auto grouped = build_cudnn_graph(*cudnn.library, split(depthwise(), 0));
  CHECK(tensor(grouped, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W).all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS) ==
        Sizes{64, 1, 5, 5});

  ConvProblem head = slices();
  head.act = Activation::None;
  head.out.c = head.out_pixel_stride = 17;
  head.out_type = DType::F32;
  const FakeDescriptor y =
      tensor(build_cudnn_graph(*cudnn.library, split(head, 0)), CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
  CHECK(y.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_FLOAT);
  CHECK(y.one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) == 4);

  ConvProblem shifted = slices();
  shifted.alignment = 8;
  CHECK(tensor(build_cudnn_graph(*cudnn.library, split(shifted, 0)), CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X)
            .one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) == 8);
}

TEST_CASE("only cuDNN engines that are repeatable and as exact as asked are offered") {
  FakeCudnn cudnn;
  cudnn.proposals = {{1, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}, {}, 0},
                     {2, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, {{CUDNN_KNOB_TYPE_STAGES, 3}}, 0},
                     {2, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, {{CUDNN_KNOB_TYPE_STAGES, 4}}, 0},
                     {3, {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, {}, {}, 0},
                     {4, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, {}, 0}};
  cudnn.fallbacks = {
      {4, {}, {}, {}, 0}, {5, {CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13}, {}, {}, 0}, {6, {}, {}, {}, 0}};
  const auto names = [&](DType type, bool tf32) {
    ConvProblem problem = slices();
    problem.type = problem.out_type = type;
    problem.allow_tf32 = tf32;
    std::string text;
    for (const auto& config : cudnn_configs(*cudnn.library, split(problem, 0)))
      text += config->name + (config->compiled ? " compiled; " : "; ");
    return text;
  };
  const std::string all = "cudnn:conv:2:14=3; cudnn:conv:2:14=4; cudnn:conv:3; cudnn:conv:4 compiled; cudnn:conv:6; ";
  CHECK(names(DType::BF16, false) == all);
  CHECK(names(DType::F32, true) == all);
  CHECK(names(DType::F32, false) == "cudnn:conv:4 compiled; cudnn:conv:6; ");
  CHECK(cudnn.alive() == 0);
}

TEST_CASE("all that cuDNN's heuristics propose is offered where everything is to be timed") {
  FakeCudnn cudnn;
  const auto engines = [](std::int64_t first, std::int64_t last) {
    std::vector<FakeEngine> result;
    for (std::int64_t index = first; index <= last; ++index) result.push_back({index, {}, {}, {}, 0});
    return result;
  };
  cudnn.proposals = engines(1, 90);
  cudnn.proposals_b = engines(85, 100);
  cudnn.fallbacks = engines(100, 101);
  const auto names = [&](Proposals proposals) {
    std::vector<std::string> result;
    for (const auto& config : cudnn_configs(*cudnn.library, split(slices(), 0), proposals))
      result.push_back(config->name);
    return result;
  };
  std::vector<std::string> all;
  for (int index = 1; index <= 101; ++index) all.push_back(fmt::format("cudnn:conv:{}", index));
  CHECK(names(Proposals::All) == all);
  CHECK(names(Proposals::Likely) == std::vector<std::string>(all.begin(), all.begin() + 8));
  cudnn.proposals = engines(1, 2);
  CHECK(names(Proposals::Likely) == std::vector<std::string>{"cudnn:conv:1", "cudnn:conv:2", all[99], all[100]});
  CHECK(cudnn.alive() == 0);
}

TEST_CASE("what cuDNN would compile does not crowd out what is ready-made") {
  FakeCudnn cudnn;
  for (std::int64_t index = 1; index <= 20; ++index)
    cudnn.proposals.push_back({index, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, {}, 0});
  cudnn.fallbacks = {{21, {}, {}, {}, 0}};
  const auto configs = cudnn_configs(*cudnn.library, split(slices(), 0));
  REQUIRE(first_ready_made(configs) != nullptr);
  CHECK(first_ready_made(configs)->name == "cudnn:conv:21");
}

TEST_CASE("cuDNN is asked for the workspace of a configuration since it knows, 9.2") {
  FakeCudnn cudnn;
  cudnn.proposals = {{1, {}, {}, {}, 5000}};
  const auto bytes = [&] { return cudnn_configs(*cudnn.library, split(slices(), 2)).front()->workspace_bytes; };
  CHECK(bytes() == 5000);
  cudnn.version = 90100;
  CHECK(bytes() == 0);
}

TEST_CASE("what cuDNN does not support is not offered, and its failures are named") {
  FakeCudnn cudnn;
  cudnn.proposals = {{1, {}, {}, {}, 0}};
  cudnn.graph_status = CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN;
  CHECK(cudnn_configs(*cudnn.library, split(slices(), 2)).empty());
  cudnn.graph_status = CUDNN_STATUS_INTERNAL_ERROR;
  CHECK_THROWS_WITH_AS(cudnn_configs(*cudnn.library, split(slices(), 2)),
                       "cudnnBackendFinalize failed: fake status fake reason", Error);
  CHECK(cudnn.alive() == 0);
}

TEST_CASE("a library that fails takes no other kernels along") {
  FakeCudnn cudnn;
  Libraries libraries;
  libraries.device = h100();
  libraries.cudnn = std::move(cudnn.library);
  const auto library_error = [&] {
    try {
      conv_candidates(slices(), libraries, KernelSource::Library);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string none = "nothing computes a convolution 3x3 stride 1 of 64 to 32 channels in BF16 here: ";
  CHECK(library_error() == none + "cuDNN proposes nothing for it");
  cudnn.graph_status = CUDNN_STATUS_INTERNAL_ERROR;
  CHECK(library_error() == none + "cudnnBackendFinalize failed: fake status fake reason");
  CHECK(conv_candidates(slices(), libraries).front().name.starts_with("own:sm"));
}

TEST_CASE("a 1×1 convolution is a matrix product over strided pixels") {
  FakeCublasLt cublaslt;
  cublaslt.proposals = {CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_SUCCESS};
  {
    const ConvProblem problem = with_residual(pointwise(), Residual::Same);
    CublasLtProduct product(*cublaslt.library, split(problem, steps_in_cublaslt(problem)));
    const auto algorithms = product.algorithms();
    REQUIRE(algorithms.size() == 2);
    CHECK(cublaslt.preferences[CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES] == 16);
    CHECK(cublaslt.preferences[CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK] == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);

    alignas(16) int in = 0, out = 0, residual = 0, workspace = 0, weights = 0, bias = 0;
    product.set_bias(&bias);
    product.run(algorithms[0], &weights, {&in, &out, &residual, &workspace}, nullptr);
    REQUIRE(cublaslt.calls.size() == 1);
    const auto& call = cublaslt.calls[0];
    CHECK(call.layouts[0] == FakeLayout{CUDA_R_16BF, 64, 32, 64});
    CHECK(call.layouts[1] == FakeLayout{CUDA_R_16BF, 64, 1200, 128});
    CHECK(call.layouts[2] == FakeLayout{CUDA_R_16BF, 32, 1200, 48});
    CHECK(call.layouts[3] == FakeLayout{CUDA_R_16BF, 32, 1200, 96});
    CHECK(call.tensors[0] == &weights);
    CHECK(call.tensors[1] == &in);
    CHECK(call.tensors[2] == &residual);
    CHECK(call.tensors[3] == &out);
    CHECK(call.beta == 1);
    CHECK(call.workspace_bytes == 1024);
    auto attributes = call.product->attributes;
    CHECK(attributes[CUBLASLT_MATMUL_DESC_TRANSA] == CUBLAS_OP_T);
    CHECK(attributes[CUBLASLT_MATMUL_DESC_EPILOGUE] == CUBLASLT_EPILOGUE_RELU_BIAS);
    CHECK(attributes[CUBLASLT_MATMUL_DESC_BIAS_POINTER] == reinterpret_cast<std::uintptr_t>(&bias));
  }
  {
    ConvProblem silu = pointwise();
    silu.act = Activation::Silu;
    CublasLtProduct product(*cublaslt.library, split(silu, steps_in_cublaslt(silu)));
    alignas(16) int tensor[8] = {};
    product.run(product.algorithms()[0], tensor, {tensor, tensor, nullptr, nullptr}, nullptr);
    CHECK_THROWS_AS(product.run(product.algorithms()[0], tensor, {tensor + 1, tensor, nullptr, nullptr}, nullptr),
                    Error);
    CHECK(cublaslt.calls[1].beta == 0);
    CHECK(cublaslt.calls[1].tensors[2] == tensor);
    CHECK(cublaslt.products[1].attributes[CUBLASLT_MATMUL_DESC_EPILOGUE] == CUBLASLT_EPILOGUE_BIAS);
  }
  CHECK(cublaslt.alive == 0);
}

TEST_CASE("TF32 is a choice") {
  FakeCublasLt cublaslt;
  ConvProblem problem = pointwise();
  problem.type = problem.out_type = DType::F32;
  for (const bool allowed : {false, true}) {
    problem.allow_tf32 = allowed;
    const CublasLtProduct product(*cublaslt.library, split(problem, 2));
    CHECK(cublaslt.products.back().compute == (allowed ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F));
  }
}

TEST_CASE("candidates come in the order of their predictions, those to compile last") {
  FakeCudnn cudnn;
  FakeCublasLt cublaslt;
  cudnn.proposals = {{7, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, {}, 0}, {8, {}, {}, {}, 0}};
  cublaslt.proposals = {CUBLAS_STATUS_SUCCESS};
  Libraries libraries;
  libraries.device = h100();
  libraries.cudnn = std::move(cudnn.library);
  libraries.cublaslt = std::move(cublaslt.library);
  {
    const auto candidates = conv_candidates(pointwise(), libraries);
    const auto own = std::ranges::find_if(candidates, [](const auto& c) { return c.name.starts_with("own:sm"); });
    CHECK(own - candidates.begin() == 7);
    CHECK(std::all_of(own, candidates.end(), [](const auto& c) { return c.name.starts_with("own:sm"); }));
    CHECK(candidates.size() > 7);
    CHECK(candidates[0].name.starts_with("cublaslt:conv+bias+relu:"));
    CHECK(candidates[1].name == "cudnn:conv+bias+relu:8");
    for (std::size_t i = 0; i < 7; ++i) CHECK(candidates[i].compiled == (i >= 4));
    CHECK(conv_candidates(depthwise(), libraries).front().name == "own:depthwise");
  }
  CHECK(conv_candidates(pointwise(), libraries, KernelSource::Library).size() == 7);
  const auto only_own = conv_candidates(pointwise(), libraries, KernelSource::Own);
  CHECK_FALSE(only_own.empty());
  for (const ConvCandidate& candidate : only_own) CHECK(candidate.name.starts_with("own:sm"));
  CHECK(conv_candidates(depthwise(), libraries, KernelSource::Own).front().name == "own:depthwise");
  libraries.cudnn.reset();
  libraries.report = {"cuDNN: not found"};
  CHECK_THROWS_WITH_AS(
      conv_candidates(slices(), libraries, KernelSource::Library),
      "nothing computes a convolution 3x3 stride 1 of 64 to 32 channels in BF16 here: cuDNN: not found", Error);
  CHECK(conv_candidates(slices(), libraries).front().name.starts_with("own:sm"));
  ConvProblem exact = slices();
  exact.type = exact.out_type = DType::F32;
  CHECK_THROWS_WITH_AS(
      conv_candidates(exact, libraries),
      "nothing computes a convolution 3x3 stride 1 of 64 to 32 channels in F32 here: cuDNN: not found; "
      "our own kernels compute in bf16 and fp16",
      Error);
  CHECK_THROWS_WITH_AS(conv_candidates(exact, libraries, KernelSource::Own),
                       "nothing computes a convolution 3x3 stride 1 of 64 to 32 channels in F32 here: "
                       "the libraries' kernels were ruled out; our own kernels compute in bf16 and fp16",
                       Error);
}

TEST_CASE("the copies of cuDNN's first ready-made kernel count, also behind one that it compiles") {
  const auto predicted = [](std::int64_t workspace_bytes) {
    FakeCudnn cudnn;
    cudnn.proposals = {{7, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, {}, 0}, {8, {}, {}, {}, workspace_bytes}};
    Libraries libraries;
    libraries.device = h100();
    libraries.cudnn = std::move(cudnn.library);
    const auto candidates = conv_candidates(slices(), libraries, KernelSource::Library);
    const auto ready = std::ranges::find(candidates, "cudnn:conv+bias+relu:8", &ConvCandidate::name);
    REQUIRE(ready != candidates.end());
    return ready->predicted_seconds;
  };
  CHECK((predicted(8 << 20) - predicted(0)) / copy_seconds(8 << 20, h100()) == doctest::Approx(1).epsilon(0.05));
}

TEST_CASE("problems that break the rules are refused") {
  Libraries libraries;
  libraries.device = h100();
  const auto refused = [&](auto change) {
    ConvProblem problem = depthwise();
    change(problem);
    CHECK_THROWS_AS(conv_candidates(problem, libraries), Error);
  };
  CHECK_NOTHROW(conv_candidates(depthwise(), libraries));
  refused([](ConvProblem& p) { p.out.h = 19; });
  refused([](ConvProblem& p) { p.in_pixel_stride = 63; });
  refused([](ConvProblem& p) { p.groups = 2; });
  refused([](ConvProblem& p) { p.kernel = 4; });
  refused([](ConvProblem& p) { p.stride = 0; });
  refused([](ConvProblem& p) { p.type = DType::I8; });
  refused([](ConvProblem& p) { p.out_type = DType::F16; });
  refused([](ConvProblem& p) { p.alignment = 12; });
  refused([](ConvProblem& p) { p = with_residual(p, Residual::Same); });
  refused([](ConvProblem& p) { p.then = {16, 16}; });
  refused([](ConvProblem& p) { p.keep = false; });
  const auto refused_pair = [&](auto change) {
    ConvProblem problem = slices();
    problem.then = {16, 16};
    change(problem);
    CHECK_THROWS_AS(conv_candidates(problem, libraries), Error);
  };
  refused_pair([](ConvProblem& p) { p.then.pixel_stride = 15; });
  refused_pair([](ConvProblem& p) { p.out_type = DType::F32; });
}

TEST_CASE("a pair is computed by our own kernels or by none") {
  FakeCudnn cudnn;
  cudnn.proposals = {{7, {}, {}, {}, 0}};
  Libraries libraries;
  libraries.device = h100();
  libraries.cudnn = std::move(cudnn.library);
  ConvProblem pair = slices();
  pair.then = {16, 16};
  CHECK_FALSE(conv_candidates(slices(), libraries, KernelSource::Library).empty());
  CHECK(conv_candidates(pair, libraries, KernelSource::Library).empty());
  for (const ConvCandidate& candidate : conv_candidates(pair, libraries))
    CHECK(candidate.name.find(",then") != std::string::npos);
  libraries.device.compute_capability = 75;
  CHECK(conv_candidates(pair, libraries).empty());
}

TEST_CASE("a cuDNN whose cuBLASLt is missing is not used") {
  namespace fs = std::filesystem;
  // It is built beside this program, and does not follow where that is copied to.
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path() / "faulty";
  if (!fs::exists(folder / "libcudnn.so.9"))
    return damoyolo::test::skip("there is no faulty/libcudnn.so.9 beside the program");
  const char* before = std::getenv("DAMOYOLO_CUDA_LIBRARIES");
  const std::string kept = before ? before : "";
  setenv("DAMOYOLO_CUDA_LIBRARIES", folder.c_str(), 1);
  const Libraries libraries = find_libraries();
  if (before)
    setenv("DAMOYOLO_CUDA_LIBRARIES", kept.c_str(), 1);
  else
    unsetenv("DAMOYOLO_CUDA_LIBRARIES");
  CHECK(libraries.cudnn == nullptr);
  REQUIRE(libraries.report.size() == 2);
  CHECK(libraries.report[1] ==
        fmt::format("cuDNN: {} calls libcublasLt.so.99, which was not found", (folder / "libcudnn.so.9").string()));
}

TEST_CASE("libraries are looked for in the toolkit, then in Python environments") {
  namespace fs = std::filesystem;
  const damoyolo::test::TemporaryFolder folder;
  const fs::path toolkit = folder.file("toolkit"), python = folder.file("python");
  const fs::path packages = python / "lib/python3.11/site-packages/nvidia";
  fs::create_directories(toolkit / "lib64");
  fs::create_directories(packages / "cudnn/lib");
  fs::create_directories(packages / "cublas/lib");
  fs::create_directories(packages / "cudnn_headers");
  // As Debian's and Ubuntu's pip does where it installs for all users.
  const fs::path local = python / "local/lib/python3.11/dist-packages/nvidia/cudnn/lib";
  fs::create_directories(local);
  fs::create_directories(python / "bin");
  std::ofstream(python / "bin/python3");
  std::map<std::string, std::string> environment = {{"CUDA_HOME", toolkit.string()},
                                                    {"PATH", "/nowhere::" + (python / "bin").string()}};
  const auto folders = library_folders([&](const char* name) { return environment[name]; });
  const auto place = [&](const fs::path& path) { return std::ranges::find(folders, path) - folders.begin(); };
  CHECK(place(toolkit / "lib64") == 0);
  CHECK(place(packages / "cublas/lib") < std::ssize(folders));
  CHECK(place(packages / "cudnn/lib") == place(packages / "cublas/lib") + 1);
  CHECK(std::ranges::count(folders, local) == 1);
  for (const fs::path& path : folders) CHECK(fs::is_directory(path));

  const auto beside = folders_beside(packages / "cudnn/lib/libcudnn.so.9");
  REQUIRE_FALSE(beside.empty());
  CHECK(beside.front() == packages / "cudnn/lib");
  CHECK(std::ranges::count(beside, packages / "cublas/lib") == 1);
  CHECK(folders_beside(toolkit / "lib64/libcudnn.so.9") == std::vector{toolkit / "lib64"});
  CHECK(folders_beside({}).empty());
}

#endif
