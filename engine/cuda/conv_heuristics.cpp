#include "engine/cuda/conv_heuristics.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/conv_sm90.h"

namespace damoyolo::cuda {
namespace {

using kernels::ConvConfig;

// A split is worth its overhead when every share of a sum has so many products at least.
constexpr int kLeastProducts = 128;
// Blocks of so many output channels or more share weights.
constexpr int kLeastShared = 96;
constexpr int kSplits[] = {1, 2, 3, 4, 6, 8, 12, 16};

// Registers of a multiprocessor, and what a block needs beside one for each of its sums.
constexpr int kRegisters = 65536, kOtherRegisters = 64 * 256;
constexpr std::int64_t kReservedShared = 1024;  // bytes that the system takes from each block

std::int64_t divided(std::int64_t count, std::int64_t by) { return (count + by - 1) / by; }

double bytes_of(const Shape& shape, DType type) {
  return static_cast<double>(shape.elements()) * static_cast<double>(size_of(type));
}

// What a configuration makes of a problem.
struct Work {
  std::int64_t tiles = 0;     // of the output
  std::int64_t steps = 0;     // of a tile's sum
  double step_bytes = 0;      // from memory for each step, without what lies outside the tensors
  double then_bytes = 0;      // for each block, once: the weights of a pair's second
  std::int64_t resident = 0;  // blocks that a multiprocessor holds at a time
};

// mma.sync's kernel has its stages beside the one that is computed, wgmma's computes one of them.
int stages_in_flight(const ConvConfig& config, ConvGeneration generation) {
  return generation == ConvGeneration::Sm80 ? config.stages : config.stages - 1;
}

// Pixels that a step reads: taps of a column share all rows but the outer ones.
int pixels_of_step(const ConvConfig& config) { return config.m + (config.taps - 1) * config.columns; }

int most_shares(ConvGeneration generation) {
  return generation == ConvGeneration::Sm90 ? kernels::kMaxConvSm90Split : kernels::kMaxConvSplit;
}

Work work_of(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
             const ConvConfig& config) {
  const Shape& out = problem.out;
  Work work;
  const std::int64_t places = config.columns == 0 ? divided(out.pixels(), config.m)
                                                  : std::int64_t{out.n} * divided(out.h, config.m / config.columns) *
                                                        divided(out.w, config.columns);
  work.tiles = divided(places, config.sharing) * config.sharing * divided(out.c, config.n);
  // A step of cp.async may hold several taps; a box of the bulk copies holds channels of one, or of a column of them.
  const std::int64_t taps = std::int64_t{problem.kernel} * problem.kernel;
  work.steps = generation == ConvGeneration::Sm80 ? divided(taps * problem.in.c, config.k)
                                                  : taps / config.taps * divided(problem.in.c, config.k);
  const int channels = generation == ConvGeneration::Sm80 ? config.k : std::min(config.k, problem.in.c);
  const double weights = static_cast<double>(config.taps) * std::min(config.n, out.c) / config.sharing;
  work.step_bytes = 2.0 * (pixels_of_step(config) + weights) * channels;
  const std::int64_t stage_bytes = std::int64_t{2} * (pixels_of_step(config) + config.taps * config.n) * config.k;
  // For the end of wgmma's tiles: in 16 bits, or as sums that others share. Those of a pair follow each other there.
  // Those of two warpgroups in turn are two tiles'.
  const int sums = config.m * std::max(config.n, config.then) * (config.pingpong ? 2 : 1);
  const std::int64_t end_bytes =
      generation == ConvGeneration::Sm90 ? std::int64_t{sums} * (config.split == 1 ? 2 : 4) : 0;
  const std::int64_t then_bytes = std::int64_t{2} * config.n * config.then;
  const std::int64_t shared =
      stage_bytes * (stages_in_flight(config, generation) + 1) + end_bytes + then_bytes + kReservedShared;
  work.resident =
      std::min(device.shared_bytes / shared, static_cast<std::int64_t>(kRegisters / (sums + kOtherRegisters)));
  work.then_bytes = 2.0 * out.c * problem.then.c;
  return work;
}

bool is_legal(const ConvProblem& problem, const ConvConfig& config, const Work& work, const DeviceTraits& device,
              ConvGeneration generation) {
  // A tile that is a rectangle needs a row at least; beyond the map's width it would be mostly empty.
  if (config.columns > config.m || config.columns > 2 * problem.out.w) return false;
  // Bulk copies bring rectangles of windows; those of a 1×1 convolution that follow each other need none.
  const bool in_a_row = problem.kernel == 1 && problem.stride == 1;
  if (generation == ConvGeneration::Sm90 && in_a_row != (config.columns == 0)) return false;
  // One column of a window of 3, of neighbouring pixels.
  if (config.taps > 1 && (problem.kernel != config.taps || problem.stride != 1)) return false;
  // Two blocks share weights where these are most of what they read.
  if (config.sharing > 1 && (config.split > 1 || config.n < kLeastShared || work.tiles < 2 * config.sharing))
    return false;
  // All channels of a pair's pixels are in one tile, whose sums nobody shares.
  if ((config.then > 0) != (problem.then.c > 0)) return false;
  if (config.then > 0 && (config.split > 1 || problem.out.c > config.n || problem.then.c > config.then)) return false;
  // Turns are for blocks of several tiles.
  if (config.pingpong && (config.split > 1 || work.tiles <= device.multiprocessors)) return false;
  // The stages fit into shared memory, and the sums into registers.
  if (work.resident < 1) return false;
  if (config.split == 1) return true;
  const std::int64_t steps = work.steps / config.split;
  if (config.split > most_shares(generation) || steps * config.k * config.taps < kLeastProducts) return false;
  // Shares are for multiprocessors that have no tile.
  return work.tiles * config.split <= work.resident * device.multiprocessors;
}

// Clocks of `m` × `n` sums of `k` products each, on a multiprocessor that does nothing else. `moved`: bytes into and
// out of its shared memory.
double product_clocks(double m, double n, double k, double moved, const DeviceTraits& device,
                      ConvGeneration generation, const ConvCosts& costs) {
  const double rate = device.half_flops / (device.multiprocessors * device.clock);
  const double peak = generation == ConvGeneration::Sm90      ? costs.peak_of_sm90
                      : runs_on(ConvGeneration::Sm90, device) ? costs.peak_of_mma_on_sm90
                                                              : costs.peak_of_sm80;
  return std::max(2 * m * n * k / (rate * peak), moved / costs.shared_bytes);
}

double step_clocks(const ConvConfig& config, const DeviceTraits& device, ConvGeneration generation,
                   const ConvCosts& costs) {
  // Both factors are written to shared memory once. mma.sync reads them into registers for two warps along each side;
  // wgmma reads the weights once for every 64 pixels.
  const double written = 2.0 * config.k * (pixels_of_step(config) + config.taps * config.n);
  const double read = generation == ConvGeneration::Sm90
                          ? 2.0 * config.k * config.taps * (config.m + config.n * config.m / 64.0)
                          : 2.0 * written;
  return product_clocks(config.m, config.n, config.k * config.taps, written + read, device, generation, costs);
}

// Of the products of a pair's second in a tile, whose factors are in shared memory.
double then_clocks(const ConvConfig& config, const DeviceTraits& device, ConvGeneration generation,
                   const ConvCosts& costs) {
  if (config.then == 0) return 0;
  const double read = 2.0 * config.n * (config.m + config.then * config.m / 64.0);
  return product_clocks(config.m, config.then, config.n, read, device, generation, costs);
}

double seconds_of(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
                  const ConvConfig& config, const Work& work, const ConvCosts& costs) {
  const std::int64_t blocks = work.tiles * config.split;
  const std::int64_t each = divided(blocks, device.multiprocessors);  // blocks of the busiest multiprocessor
  const std::int64_t rounds = divided(each, work.resident);
  const auto steps = static_cast<double>(divided(work.steps, config.split));

  const double sum_clocks = steps * step_clocks(config, device, generation, costs);
  const double behind = then_clocks(config, device, generation, costs) / device.clock;  // which no block overlaps
  const double of_tile = sum_clocks / device.clock + behind;
  const double products = static_cast<double>(each) * of_tile;
  const double waited = steps * costs.latency_seconds / std::max(stages_in_flight(config, generation), 1);
  const double waiting = static_cast<double>(rounds) * (waited + behind);

  // Where there are few blocks, only so many multiprocessors draw from the cache.
  const double busy = std::min<double>(static_cast<double>(blocks), device.multiprocessors);
  const double begun =
      std::min<double>(static_cast<double>(blocks), static_cast<double>(work.resident) * device.multiprocessors);
  double cached = static_cast<double>(blocks) * steps * work.step_bytes + begun * work.then_bytes;
  const bool in_cluster = generation == ConvGeneration::Sm90;  // where shares meet
  if (config.split > 1 && !in_cluster) cached += static_cast<double>(blocks) * config.m * config.n * 2 * sizeof(float);
  const double from_cache = cached / (busy * costs.l2_bytes * device.clock);

  // What the cache does not hold comes from device memory, once.
  const double weights = static_cast<double>(problem.kernel) * problem.kernel * problem.in.c * problem.out.c * 2;
  const double residual = problem.residual == ConvProblem::Residual::None ? 0 : bytes_of(problem.out, problem.type);
  const double outputs = (problem.keep ? bytes_of(problem.out, problem.out_type) : 0) +
                         static_cast<double>(problem.out.pixels()) * problem.then.c * 2;
  const double touched = bytes_of(problem.in, problem.type) + weights + work.then_bytes + residual + outputs;
  const double from_memory = touched > static_cast<double>(device.l2_bytes) ? touched / device.bytes_per_second : 0;

  // What is around products shows in each round of blocks. In turns it is hidden behind the products of the other
  // one's tile, but for the last tile's, and for what is longer than those: that holds up every other tile.
  double ends = static_cast<double>(rounds) * costs.block_seconds;
  if (config.pingpong)
    ends = costs.block_seconds +
           static_cast<double>(divided(rounds, 2) - 1) * std::max(costs.block_seconds - of_tile, 0.0);

  const double meeting = config.split * config.sharing == 1 ? 0
                         : in_cluster                       ? costs.cluster_seconds
                                                            : costs.split_seconds;
  return costs.launch_seconds + ends + meeting + std::max({products, waiting, from_cache, from_memory});
}

}  // namespace

bool runs_on(ConvGeneration generation, const DeviceTraits& device) {
  // wgmma is of 9.0 alone; mma.sync and cp.async of 8.0 and all that follow.
  return generation == ConvGeneration::Sm90 ? device.compute_capability == 90 : device.compute_capability >= 80;
}

bool has_tensor_core_kernel(const ConvProblem& problem) {
  return problem.groups == 1 && (problem.type == DType::BF16 || problem.type == DType::F16) &&
         (problem.kernel == 1 || problem.kernel == 3) && (problem.stride == 1 || problem.stride == 2) &&
         (problem.then.c == 0 || problem.alignment >= 16);
}

double predicted_seconds(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
                         const ConvConfig& config, const ConvCosts& costs) {
  return seconds_of(problem, device, generation, config, work_of(problem, device, generation, config), costs);
}

std::vector<ConvPrediction> predict(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
                                    std::span<const ConvConfig> configs) {
  std::vector<ConvPrediction> predictions;
  const auto consider = [&](const ConvConfig& config) {
    const Work work = work_of(problem, device, generation, config);
    if (is_legal(problem, config, work, device, generation))
      predictions.push_back({config, seconds_of(problem, device, generation, config, work, {})});
  };
  for (ConvConfig config : configs) {
    for (const int split : kSplits) {
      config.split = split;
      consider(config);
    }
    if (generation != ConvGeneration::Sm90) continue;
    config.split = 1;
    config.sharing = 2;
    consider(config);
  }
  std::ranges::stable_sort(predictions, {}, &ConvPrediction::seconds);
  return predictions;
}

}  // namespace damoyolo::cuda
