// Which configurations our own convolutions would try, on devices that are only described.
#include "engine/cuda/conv_heuristics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "bench/layers/layer_table.h"
#include "engine/cuda/own_convolution.h"
#include "tests/conv_problems.h"

using namespace damoyolo;
using namespace damoyolo::cuda;
using kernels::ConvConfig;

namespace {

DeviceTraits a100() { return device_traits({80, 108, 1.41e9, 1.593e9, 5120, 40 << 20, 164 << 10}); }
DeviceTraits a10() { return device_traits({86, 72, 1.695e9, 6.251e9, 384, 6 << 20, 100 << 10}); }

// 3×3 with as many channels in as out.
ConvProblem square(int size, int channels, int batch = 1) {
  ConvProblem problem;
  problem.in = problem.out = {batch, size, size, channels};
  problem.in_pixel_stride = problem.out_pixel_stride = channels;
  problem.kernel = 3;
  problem.type = problem.out_type = DType::BF16;
  return problem;
}

// A kernel on a device it runs on.
struct Generation {
  ConvGeneration generation;
  DeviceTraits device;
  std::span<const ConvConfig> configs;
};
std::vector<Generation> generations() {
  std::vector<Generation> result;
  for (const OwnKernel& kernel : own_kernels())
    for (const DeviceTraits& device : {a100(), a10(), h100()})
      if (runs_on(kernel.generation, device)) result.push_back({kernel.generation, device, kernel.configs()});
  REQUIRE(result.size() >= 2);
  return result;
}

std::vector<ConvPrediction> predict(const ConvProblem& problem, const Generation& on) {
  return damoyolo::cuda::predict(problem, on.device, on.generation, on.configs);
}

double best(const ConvProblem& problem, const Generation& on) { return predict(problem, on).front().seconds; }

// Blocks for a problem with square().
double blocks(const ConvProblem& problem, const ConvConfig& config) {
  const auto tiles = [](int size, int of_tile) { return std::ceil(static_cast<double>(size) / of_tile); };
  const auto& [n, h, w, c] = problem.out;
  const double places = config.columns == 0 ? tiles(n * h * w, config.m)
                                            : n * tiles(h, config.m / config.columns) * tiles(w, config.columns);
  return places * tiles(c, config.n) * config.split;
}

}  // namespace

TEST_CASE("kernels run on the devices they are made for") {
  const auto device = [](int compute_capability) { return device_traits({compute_capability, 100, 1e9, 1e9, 256}); };
  CHECK_FALSE(runs_on(ConvGeneration::Sm80, device(75)));
  for (const int capability : {80, 86, 89, 90, 100, 120}) {
    CHECK(runs_on(ConvGeneration::Sm80, device(capability)));
    CHECK(runs_on(ConvGeneration::Sm90, device(capability)) == (capability == 90));
  }
}

TEST_CASE("small maps are shared by all multiprocessors, large ones are not split") {
  for (const Generation& on : generations()) {
    const ConvProblem small = square(20, 384), large = square(160, 32);
    const ConvPrediction first = predict(small, on).front();
    CHECK(blocks(small, first.config) > 0.7 * on.device.multiprocessors);
    CHECK(first.config.split > 1);
    CHECK(predict(large, on).front().config.split == 1);
    CHECK(predict(square(20, 384, 32), on).front().config.split == 1);
    // Larger tiles read less, once there are enough of them, and shared memory for two at a time.
    if (on.device.shared_bytes <= 100 << 10) continue;
    const ConvConfig many = predict(square(80, 256, 32), on).front().config;
    CHECK(many.m * many.n > first.config.m * first.config.n);
    CHECK(many.m * many.n >= 128 * 128);
  }
}

TEST_CASE("what the second-level cache limits is predicted to gain from reading less of it") {
  const DeviceTraits device = h100();
  const ConvConfig alone[] = {{128, 128, 64, 4, 8}}, columns[] = {{128, 128, 32, 4, 8, 1, 3}};
  const auto predicted = [&](std::span<const ConvConfig> configs, int sharing) {
    const auto all = damoyolo::cuda::predict(square(40, 128, 32), device, ConvGeneration::Sm90, configs);
    return std::ranges::find(all, sharing, [](const ConvPrediction& one) { return one.config.sharing; })->seconds;
  };
  CHECK(predicted(alone, 2) < predicted(alone, 1));
  CHECK(predicted(columns, 1) < predicted(alone, 1));
  CHECK(predicted(columns, 2) < predicted(columns, 1));
}

TEST_CASE("turns are predicted to hide the ends of tiles, where blocks have several") {
  const DeviceTraits device = h100();
  const ConvConfig together[] = {{128, 128, 32, 4, 8, 1, 3}},
                   turns[] = {{.m = 128, .n = 128, .k = 32, .stages = 4, .columns = 8, .taps = 3, .pingpong = true}};
  const auto predicted = [&](const ConvProblem& problem, std::span<const ConvConfig> configs) {
    return damoyolo::cuda::predict(problem, device, ConvGeneration::Sm90, configs);
  };
  const ConvProblem large = square(40, 128, 32), small = square(40, 128, 4);
  CHECK(blocks(small, turns[0]) < device.multiprocessors);
  CHECK(predicted(large, turns).front().seconds < predicted(large, together).front().seconds);
  CHECK_FALSE(predicted(small, together).empty());
  CHECK(predicted(small, turns).empty());
  for (const ConvPrediction& one : predicted(large, turns)) CHECK(one.config.split == 1);
  // Nothing is hidden behind products that there are not: a 1×1 of few channels ends each second tile late.
  ConvProblem thin = square(160, 128, 32);
  thin.kernel = 1;
  thin.in.c = thin.in_pixel_stride = 16;
  ConvConfig of_one{.m = 128, .n = 128, .k = 64, .stages = 5, .pingpong = true};
  ConvCosts slow;
  slow.block_seconds *= 10;
  const double more = predicted_seconds(thin, device, ConvGeneration::Sm90, of_one, slow) -
                      predicted_seconds(thin, device, ConvGeneration::Sm90, of_one);
  CHECK(more > 10 * slow.block_seconds);
}

TEST_CASE("more work is never predicted to take less time") {
  for (const Generation& on : generations()) {
    for (const int batch : {1, 2, 4, 8, 16}) {
      CHECK(best(square(40, 128, 2 * batch), on) >= best(square(40, 128, batch), on));
      CHECK(best(square(40, 256, batch), on) >= best(square(40, 128, batch), on));
      CHECK(best(square(80, 128, batch), on) >= best(square(40, 128, batch), on));
    }
    // In the limit it takes twice the time.
    const double twice = 2 * best(square(80, 256, 16), on);
    CHECK(best(square(80, 256, 32), on) / twice == doctest::Approx(1).epsilon(0.05));
  }
}

TEST_CASE("no prediction is faster than the device") {
  for (const Generation& on : generations())
    for (const Layer& layer : read_layers())
      for (const int batch : {1, 32}) {
        const ConvProblem problem = with_batch(layer.problem, batch);
        const double flops =
            2.0 * problem.kernel * problem.kernel * problem.in.c * static_cast<double>(problem.out.elements());
        for (const ConvPrediction& one : predict(problem, on)) REQUIRE(one.seconds > flops / on.device.half_flops);
      }
}

TEST_CASE("what is proposed is legal, best first") {
  for (const Generation& on : generations())
    for (const ConvProblem& problem : {square(20, 384), square(13, 48, 3), square(160, 32)}) {
      const auto all = predict(problem, on);
      CHECK(std::ranges::is_sorted(all, {}, &ConvPrediction::seconds));
      for (const ConvPrediction& one : all) {
        ConvConfig whole = one.config;
        whole.split = whole.sharing = 1;
        CHECK(std::ranges::count(on.configs, whole) == 1);
        CHECK(one.config.split <= kernels::kMaxConvSplit);
        CHECK((one.config.sharing == 1 || one.config.split == 1));
        CHECK(one.config.columns <= 2 * problem.out.w);
      }
    }
  // Too large for the device's shared memory.
  const ConvConfig huge[] = {{256, 256, 64, 8}}, modest[] = {{64, 64, 64, 3}};
  CHECK(damoyolo::cuda::predict(square(20, 64), a100(), ConvGeneration::Sm80, huge).empty());
  CHECK_FALSE(damoyolo::cuda::predict(square(20, 64), a100(), ConvGeneration::Sm80, modest).empty());
  // The taps of a window's column are those of a window of 3 that moves by 1.
  const ConvConfig columns[] = {{64, 64, 64, 3, 8, 1, 3}};
  ConvProblem window = square(20, 64);
  CHECK_FALSE(damoyolo::cuda::predict(window, h100(), ConvGeneration::Sm90, columns).empty());
  window.stride = 2;
  CHECK(damoyolo::cuda::predict(window, h100(), ConvGeneration::Sm90, columns).empty());
  // A product needs no rectangles of pixels.
  const ConvConfig rectangle[] = {{64, 64, 64, 3, 8}};
  ConvProblem product = square(20, 64);
  product.kernel = 1;
  CHECK(damoyolo::cuda::predict(product, h100(), ConvGeneration::Sm90, rectangle).empty());
  // And bulk copies bring windows by rectangles alone.
  const ConvConfig row[] = {{64, 64, 64, 3}};
  CHECK_FALSE(damoyolo::cuda::predict(product, h100(), ConvGeneration::Sm90, row).empty());
  CHECK(damoyolo::cuda::predict(square(20, 64), h100(), ConvGeneration::Sm90, row).empty());
}

TEST_CASE("shares of a sum have 128 products or more, whatever a step has") {
  for (const int k : {32, 64}) {
    const ConvConfig config[] = {{.m = 64, .n = 64, .k = k, .stages = 3}};
    int most = 1;
    for (const ConvPrediction& one : damoyolo::cuda::predict(square(20, 64), a100(), ConvGeneration::Sm80, config))
      most = std::max(most, one.config.split);
    CHECK(most == 4);  // of 576 products
  }
}

TEST_CASE("a pair is predicted to gain a launch and the bytes between, and to cost its products") {
  const DeviceTraits device = h100();
  const ConvConfig alone[] = {{128, 128, 64, 3, 8}, {128, 96, 64, 3}}, pairs[] = {{128, 128, 64, 3, 8, 1, 1, 1, 96}};
  const auto predicted = [&](const ConvProblem& problem, std::span<const ConvConfig> configs) {
    const auto all = damoyolo::cuda::predict(problem, device, ConvGeneration::Sm90, configs);
    return all.empty() ? std::numeric_limits<double>::infinity() : all.front().seconds;
  };
  for (const int batch : {1, 32}) {
    CAPTURE(batch);
    const ConvProblem first = square(80, 128, batch);
    ConvProblem second = first, pair = first;
    second.kernel = 1;
    second.out.c = second.out_pixel_stride = 88;
    pair.then = {88, 88, Activation::Relu};
    const double both = predicted(pair, pairs);
    CHECK(both > predicted(first, std::span(alone).first(1)));
    CHECK(both < predicted(first, alone) + predicted(second, alone));
  }
  // What is not kept need not be written, which counts where nothing but device memory does.
  const ConvConfig narrow{128, 32, 32, 3, 8, 1, 1, 1, 32};
  ConvCosts free;
  free.latency_seconds = free.block_seconds = 0;
  free.l2_bytes = free.shared_bytes = 1e6;
  const auto seconds = [&](const ConvProblem& problem) {
    return predicted_seconds(problem, device, ConvGeneration::Sm90, narrow, free);
  };
  ConvProblem kept = square(320, 32, 32);
  kept.then = {24, 24, Activation::Relu};
  ConvProblem unkept = kept;
  unkept.keep = false;
  CHECK(seconds(unkept) < 0.7 * seconds(kept));
}

TEST_CASE("pairs and configurations for them find each other, where all channels are in one tile") {
  const ConvConfig both[] = {{128, 64, 64, 3, 8}, {128, 64, 64, 3, 8, 1, 1, 1, 32}};
  const auto configs_for = [&](const ConvProblem& problem) {
    std::vector<ConvConfig> configs;
    for (const auto& one : damoyolo::cuda::predict(problem, h100(), ConvGeneration::Sm90, both))
      if (std::ranges::find(configs, one.config) == configs.end()) configs.push_back(one.config);
    return configs;
  };
  ConvProblem problem = square(40, 64);
  for (const ConvConfig& config : configs_for(problem)) CHECK(config.then == 0);
  problem.then = {32, 32};
  CHECK(configs_for(problem) == std::vector{both[1]});
  problem.then = {40, 40};
  CHECK(configs_for(problem).empty());
  problem = square(40, 72);
  problem.then = {32, 32};
  CHECK(configs_for(problem).empty());
  // The weights of the second stay in shared memory beside the stages: without them, these would fit.
  const ConvConfig large[] = {{128, 128, 64, 6, 8, 1, 1, 1, 128}, {128, 128, 64, 6, 8}};
  problem = square(40, 128);
  CHECK_FALSE(damoyolo::cuda::predict(problem, h100(), ConvGeneration::Sm90, large).empty());
  problem.then = {128, 128};
  CHECK(damoyolo::cuda::predict(problem, h100(), ConvGeneration::Sm90, large).empty());
}

TEST_CASE("every layer of every variant has candidates that its kernel takes") {
  std::vector<Layer> layers = read_layers();
  std::erase_if(layers, [](const Layer& layer) { return layer.problem.then.c > 0; });
  for (const Generation& on : generations())
    for (const Layer& layer : layers)
      for (const int batch : {1, 8, 32})
        for (const DType type : {DType::BF16, DType::F16}) {
          const ConvProblem problem = with_type(with_batch(layer.problem, batch), type);
          CAPTURE(describe(problem));
          REQUIRE(has_tensor_core_kernel(problem));
          const auto offered = own_convolutions(problem, on.device, own_kernels(), 8);
          const auto of_this = std::ranges::count(offered, on.generation,
                                                  [](const OwnConvolution& one) { return one.kernel->generation; });
          CHECK(of_this >= 2);
        }
}

TEST_CASE("pairs are offered where a configuration holds all their channels, and for devices that store in bulk") {
  std::vector<Layer> pairs = read_layers();
  std::erase_if(pairs, [](const Layer& layer) { return layer.problem.then.c == 0; });
  REQUIRE_FALSE(pairs.empty());
  std::map<std::string, int> of_variant;
  for (const Layer& pair : pairs)
    for (const int batch : {1, 8, 32}) {
      const ConvProblem problem = with_batch(pair.problem, batch);
      CAPTURE(describe(problem));
      CHECK(own_convolutions(problem, a100(), own_kernels(), 8).empty());
      bool is_held = false;
      for (const OwnKernel& kernel : own_kernels())
        for (const ConvConfig& config : kernel.configs())
          is_held |= problem.out.c <= config.n && problem.then.c <= config.then;
      const auto offered = own_convolutions(problem, h100(), own_kernels(), 8);
      CHECK(offered.empty() != is_held);
      for (const OwnConvolution& one : offered) CHECK(one.kernel->generation == ConvGeneration::Sm90);
      if (batch > 1 || offered.empty()) continue;
      for (const auto& [variant, layers] : pair.count) of_variant[variant] += layers;
    }
  CHECK(of_variant["T"] == 9);  // of 10
  CHECK(of_variant["S"] == 7);  // of 13
}
