// Our own convolutions as the backend uses them: what is offered, and that the kernels, through the SIMT shim, compute
// what a problem means.
#include "engine/cuda/own_convolution.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "engine/core/error.h"
#include "engine/cuda/conv_split.h"
#include "kernels/conv_checks.h"
#include "tests/compare.h"
#include "tests/conv_problems.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/host_runtime.h"
#include "tests/cuda/test_values.h"

using namespace damoyolo;
using namespace damoyolo::cuda;
using kernels::ConvConfig;
using kernels::Convolution;

namespace {

// A slice of 16 of 40 channels into 24 of 32.
ConvProblem slices() { return convolution_of_slices({2, 7, 10, 16}, 40, {2, 7, 10, 24}, 32); }

constexpr ConvConfig kListed[] = {{128, 64, 64, 4}, {64, 64, 64, 4, 16}, {64, 32, 64, 4}};

// A kernel of which only the launches are seen.
struct Launch {
  Convolution convolution;
  ConvConfig config;
  bool overlap = false;
};
std::vector<Launch> launches;

const OwnKernel kRecorded{ConvGeneration::Sm80,
                          "fake",
                          [] { return std::span<const ConvConfig>(kListed); },
                          [](const Convolution& convolution, const ConvConfig& config) {
                            return convolution.x.c % 8 == 0 && config.n != 32;
                          },
                          [](const Convolution&, const ConvConfig& config) {
                            return config.split > 1 ? kernels::ConvMemory{1000, 3} : kernels::ConvMemory{};
                          },
                          [](const Convolution& convolution, const ConvConfig& config, kernels::Stream stream) {
                            launches.push_back({convolution, config, stream.overlap});
                          }};

// And one that takes pairs.
constexpr ConvConfig kPairs[] = {
    {128, 64, 64, 4, 8}, {128, 64, 64, 3, 8, 1, 1, 1, 64}, {128, 64, 64, 3, 8, 1, 1, 1, 32}};
const OwnKernel kPaired{ConvGeneration::Sm90,
                        "fake",
                        [] { return std::span<const ConvConfig>(kPairs); },
                        [](const Convolution& convolution, const ConvConfig& config) {
                          return kernels::unmet_expectation(convolution, config) == nullptr;
                        },
                        [](const Convolution&, const ConvConfig&) { return kernels::ConvMemory{}; },
                        kRecorded.launch};

ConvProblem pair_of_slices() {
  ConvProblem problem = slices();
  problem.then = {48, 56, Activation::Silu};
  return problem;
}

}  // namespace

TEST_CASE("own convolutions are named by their tiles") {
  CHECK(own_name(kRecorded, {128, 64, 32, 4}) == "own:fake:128x64x32:s4");
  CHECK(own_name(kRecorded, {128, 64, 32, 4, 16, 2}) == "own:fake:128x64x32:s4,c16,split2");
  CHECK(own_name(kRecorded, {.n = 128, .taps = 3, .sharing = 2, .pingpong = true}) ==
        "own:fake:128x128x64:s4,taps3,pingpong,shared");
}

TEST_CASE("own convolutions are offered where their kernels run and take the problem") {
  const std::span<const OwnKernel> one(&kRecorded, 1);
  const auto offered = own_convolutions(slices(), h100(), one, 100);
  REQUIRE_FALSE(offered.empty());
  for (const OwnConvolution& convolution : offered) CHECK(convolution.config.n == 64);
  CHECK(std::ranges::is_sorted(offered, {}, &OwnConvolution::predicted_seconds));
  CHECK(own_convolutions(slices(), h100(), one, 1).size() == 1);
  ConvProblem deep = slices();  // so that there are splits
  deep.in.c = deep.in_pixel_stride = 256;
  CHECK(own_convolutions(deep, h100(), one, 100).size() > 4);
  const auto few = own_convolutions(deep, h100(), one, 3);
  REQUIRE(few.size() == 3);
  CHECK(std::ranges::count(few, 128, [](const OwnConvolution& o) { return o.config.m; }) <= 2);
  CHECK(std::ranges::count(few, 64, [](const OwnConvolution& o) { return o.config.m; }) <= 2);
  DeviceTraits turing = h100();
  turing.compute_capability = 75;
  CHECK(own_convolutions(slices(), turing, one, 100).empty());

  const auto refused = [&](auto change) {
    ConvProblem problem = slices();
    change(problem);
    return own_convolutions(problem, h100(), one, 100).empty();
  };
  CHECK(refused([](ConvProblem& p) { p.type = p.out_type = DType::F32; }));
  CHECK(refused([](ConvProblem& p) { p.kernel = 5; }));
  CHECK(refused([](ConvProblem& p) { p.out.c = p.groups = p.in.c; }));
  CHECK_FALSE(refused([](ConvProblem& p) { p.out_type = DType::F32; }));
  CHECK_FALSE(refused([](ConvProblem& p) { p.in.c = 12; }));
}

TEST_CASE("an own convolution is one launch of all of the problem") {
  ConvProblem problem = slices();
  problem.residual = ConvProblem::Residual::Half;
  problem.residual_pixel_stride = 64;
  problem.residual_first = false;
  problem.in.h = problem.out.h = 8;
  const ConvConfig config{128, 64, 64, 4, 0, 2};
  const auto kernel = make_own_kernel(problem, kRecorded, config, weights_for(problem));
  CHECK(kernel->name() == "own:fake:128x64x64:s4,split2");
  CHECK(kernel->workspace_bytes() == 1000);
  launches.clear();
  alignas(256) std::byte in{}, out{}, residual{}, workspace{};
  const ConvPointers pointers{&in, &out, &residual, &workspace, kernel->weights()};
  kernel->run(pointers, {nullptr, true});
  REQUIRE(launches.size() == 1);
  const Convolution& launched = launches[0].convolution;
  CHECK(launches[0].config == config);
  CHECK(launches[0].overlap);
  CHECK(launched.x.data == &in);
  CHECK(launched.x.c == 16);
  CHECK(launched.x.pixel_stride == 40);
  CHECK(launched.y.data == &out);
  CHECK(launched.y.pixel_stride == 32);
  CHECK(launched.kernel == 3);
  CHECK(launched.epilogue.act == Activation::Relu);
  CHECK_FALSE(launched.epilogue.residual_first);
  CHECK(launched.epilogue.residual.data == &residual);
  CHECK(launched.epilogue.residual.h == 4);
  CHECK(launched.epilogue.residual.pixel_stride == 64);
  CHECK(launched.epilogue.bias != nullptr);
  CHECK(launched.workspace == &workspace);
  CHECK(kernel->weights() == DeviceBytes{launched.weights, 24 * 9 * 16 * 2});
  CHECK(launched.next == pointers.next.data);
  CHECK(launched.next_bytes == pointers.next.size);
  for (int i = 0; i < 3; ++i) CHECK(launched.tickets[i] == 0);
}

TEST_CASE("a pair is offered where its configurations hold all channels of both, and bulk copies can store them") {
  const std::span<const OwnKernel> one(&kPaired, 1);
  const auto offered = own_convolutions(pair_of_slices(), h100(), one, 100);
  REQUIRE_FALSE(offered.empty());
  for (const OwnConvolution& convolution : offered) {
    CHECK(convolution.config.then >= 48);
    CHECK(convolution.config.split == 1);
  }
  for (const OwnConvolution& convolution : own_convolutions(slices(), h100(), one, 100))
    CHECK(convolution.config.then == 0);
  const auto refused = [&](auto change) {
    ConvProblem problem = pair_of_slices();
    change(problem);
    return own_convolutions(problem, h100(), one, 100).empty();
  };
  CHECK_FALSE(refused([](ConvProblem& p) { p.keep = false; }));
  CHECK_FALSE(refused([](ConvProblem& p) { p.then.c = p.then.pixel_stride = 64; }));
  CHECK(refused([](ConvProblem& p) { p.then.c = p.then.pixel_stride = 72; }));
  CHECK(refused([](ConvProblem& p) { p.out.c = p.out_pixel_stride = 72; }));
  CHECK(refused([](ConvProblem& p) { p.then.pixel_stride = 52; }));
  CHECK(refused([](ConvProblem& p) { p.out_pixel_stride = 28; }));
  CHECK(refused([](ConvProblem& p) { p.alignment = 8; }));
  CHECK(refused([](ConvProblem& p) { p.type = p.out_type = DType::F32; }));
  DeviceTraits ampere = h100();
  ampere.compute_capability = 80;
  CHECK(own_convolutions(pair_of_slices(), ampere, one, 100).empty());
}

TEST_CASE("a pair is one launch of both convolutions") {
  for (const bool keep : {true, false}) {
    ConvProblem problem = pair_of_slices();
    problem.keep = keep;
    const ConvWeights weights = weights_for(problem);
    const auto kernel = make_own_kernel(problem, kPaired, kPairs[1], weights);
    CHECK(kernel->name() == "own:fake:128x64x64:s3,c8,then64");
    launches.clear();
    alignas(256) std::byte in{}, out{}, then_out{};
    kernel->run({&in, keep ? &out : nullptr, nullptr, nullptr, {}, &then_out}, {nullptr});
    REQUIRE(launches.size() == 1);
    const Convolution& launched = launches[0].convolution;
    CHECK(launched.keep == keep);
    CHECK(launched.y.data == (keep ? &out : nullptr));
    CHECK(launched.y.c == 24);
    CHECK(launched.then.y.data == &then_out);
    CHECK(launched.then.y.c == 48);
    CHECK(launched.then.y.pixel_stride == 56);
    CHECK(launched.then.y.h == 7);
    CHECK(launched.then.y.type == DType::BF16);
    CHECK(launched.then.epilogue.act == Activation::Silu);
    CHECK(launched.then.epilogue.residual.data == nullptr);
    CHECK(launched.epilogue.act == Activation::Relu);
    CHECK(kernel->weights().data == launched.weights);
    const auto* packed = static_cast<const std::uint16_t*>(launched.then.weights);
    for (std::size_t i = 0; i < 48 * 24; ++i) REQUIRE(packed[i] == bf16_from_float(weights.then_weight[i]));
    for (std::size_t i = 0; i < 48; ++i) REQUIRE(launched.then.epilogue.bias[i] == weights.then_bias[i]);
  }
  ConvWeights none = weights_for(pair_of_slices());
  none.then_weight.clear();
  CHECK_THROWS_AS(make_own_kernel(pair_of_slices(), kPaired, kPairs[1], none), Error);
}

TEST_CASE("weights of own convolutions have whole vectors of channels, zeros past the problem's") {
  ConvProblem problem = slices();
  problem.in.c = 12;
  const ConvWeights weights = weights_for(problem);
  const auto kernel = make_own_kernel(problem, kRecorded, kListed[0], weights);
  const std::size_t pixels = 2 * 7 * 10;
  const std::vector<std::uint16_t> in = bf16(values("in", pixels * 40));
  std::vector<std::uint16_t> out(pixels * 32), workspace(pixels * 16, 0xffff);
  REQUIRE(kernel->workspace_bytes() >= workspace.size() * 2);
  workspace.resize(kernel->workspace_bytes() / 2);
  launches.clear();
  kernel->run({in.data(), out.data(), nullptr, workspace.data()}, {nullptr});
  REQUIRE(launches.size() == 1);
  const Convolution& launched = launches[0].convolution;
  CHECK(launched.x.data == workspace.data());
  CHECK(launched.x.c == 16);
  CHECK(launched.x.pixel_stride == 16);
  for (std::size_t pixel = 0; pixel < pixels; ++pixel)
    for (std::size_t channel = 0; channel < 16; ++channel)
      REQUIRE(workspace[pixel * 16 + channel] == (channel < 12 ? in[pixel * 40 + channel] : 0));
  const auto* packed = static_cast<const std::uint16_t*>(launched.weights);
  for (std::size_t o = 0; o < 24; ++o)
    for (std::size_t tap = 0; tap < 9; ++tap)
      for (std::size_t channel = 0; channel < 16; ++channel)
        REQUIRE(packed[(o * 9 + tap) * 16 + channel] ==
                (channel < 12 ? bf16_from_float(weights.weight[(o * 12 + channel) * 9 + tap]) : 0));
}

TEST_CASE("own kernels give what the convolution means") {
  HostRuntime runtime;
  for (const OwnKernel& kernel : own_kernels())
    for (const int channels : {16, 12})
      for (const int kernel_size : {1, 3})
        for (const DType out_type : {DType::BF16, DType::F32}) {
          ConvProblem problem = slices();
          problem.in.c = channels;
          problem.kernel = kernel_size;
          problem.out_type = out_type;
          problem.residual = ConvProblem::Residual::Same;
          problem.residual_pixel_stride = 24;
          const ConvWeights weights = weights_for(problem);
          const std::size_t pixels = 2 * 7 * 10;
          const std::vector<std::uint16_t> in = bf16(values("in", pixels * 40));
          const std::vector<std::uint16_t> residual = bf16(values("residual", pixels * 24));
          const std::size_t out_bytes = pixels * 32 * size_of(out_type);
          const auto result = [&](ConvKernel& made) {
            std::vector<std::byte> out(out_bytes);
            const auto workspace = device_memory(runtime, made.workspace_bytes() + 1);
            made.run({in.data(), out.data(), residual.data(), workspace.get()}, {nullptr});
            std::vector<float> all;
            for (std::size_t i = 0; i < pixels * 32; ++i)
              all.push_back(element_as_float(out.data() + i * size_of(out_type), out_type));
            return all;
          };
          // Weights are rounded to the type before they are used.
          ConvWeights rounded = weights;
          for (float& weight : rounded.weight) {
            const std::uint16_t bits = bf16_from_float(weight);
            weight = element_as_float(reinterpret_cast<const std::byte*>(&bits), DType::BF16);
          }
          HostConvolution expected(problem, rounded, "host", 0);
          const std::vector<float> exact = result(expected);
          const auto offered = own_convolutions(problem, h100(), std::span(&kernel, 1), 2);
          REQUIRE_FALSE(offered.empty());
          for (const OwnConvolution& one : offered) {
            const auto made = make_own_kernel(problem, *one.kernel, one.config, weights);
            CAPTURE(made->name());
            const std::vector<float> got = result(*made);
            CHECK(relative_difference(exact, got) < 5e-3);
            CHECK(result(*made) == got);
          }
        }
}

TEST_CASE("a pair gives the bytes of two launches that add up in its order") {
  HostRuntime runtime;
  ConvProblem pair = pair_of_slices();
  pair.residual = ConvProblem::Residual::Same;
  pair.residual_pixel_stride = 24;
  const ConvWeights weights = weights_for(pair);
  const std::size_t pixels = 2 * 7 * 10;
  const std::vector<std::uint16_t> in = bf16(values("in", pixels * 40));
  const std::vector<std::uint16_t> residual = bf16(values("residual", pixels * 24));
  using Output = std::vector<std::uint16_t>;
  const auto run = [&](const ConvProblem& problem, const OwnConvolution& own, const ConvWeights& its,
                       ConvPointers at) {
    const auto kernel = make_own_kernel(problem, *own.kernel, own.config, its);
    CAPTURE(kernel->name());
    const auto workspace = device_memory(runtime, kernel->workspace_bytes() + 1);
    at.workspace = workspace.get();
    kernel->run(at, {nullptr});
  };
  const std::size_t all = ~std::size_t{0};
  ConvProblem first = pair;
  first.then = {};
  const ConvProblem second = second_of(pair);
  int pairs = 0;
  for (const OwnConvolution& both : own_convolutions(pair, h100(), own_kernels(), 4)) {
    const auto alone = own_convolutions(first, h100(), own_kernels(), all);
    const auto same = std::ranges::find_if(alone, [&](const OwnConvolution& one) {
      return one.kernel == both.kernel && one.config.k == both.config.k && one.config.taps == both.config.taps &&
             one.config.split == 1;
    });
    const auto behind = own_convolutions(second, h100(), own_kernels(), all);
    const auto whole = std::ranges::find_if(
        behind, [&](const OwnConvolution& one) { return one.kernel == both.kernel && one.config.split == 1; });
    REQUIRE(same != alone.end());
    REQUIRE(whole != behind.end());
    Output middle(pixels * 32), expected(pixels * 56);
    run(first, *same, weights, {in.data(), middle.data(), residual.data()});
    run(second, *whole, {weights.then_weight, weights.then_bias}, {middle.data(), expected.data()});
    for (const bool keep : {true, false}) {
      ConvProblem problem = pair;
      problem.keep = keep;
      Output kept(pixels * 32), behind_it(pixels * 56);
      run(problem, both, weights,
          {in.data(), keep ? kept.data() : nullptr, residual.data(), nullptr, {}, behind_it.data()});
      CHECK(behind_it == expected);
      if (keep) CHECK(kept == middle);
    }
    ++pairs;
  }
#ifndef DAMOYOLO_WITHOUT_SM90A
  CHECK(pairs == 4);
#endif
}
