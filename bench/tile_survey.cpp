// Which tiles conv_sm90 should be compiled for, as its heuristics see it: of all conceivable ones those that would
// shorten the convolutions of some variants most, one after another, and what it would cost to leave out each of those
// that are compiled. Ask again when ConvCosts have been fitted to measured times.
//   build/tile-survey --variants T,S,M,L --batch 1,8,32
//
// A network's time is the sum of its dense convolutions' on an H100 that need not be here, each with the best tile;
// two that one launch may compute take that where it is less. What counts is the geometric mean over the networks.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/layers/layer_table.h"
#include "bench/program.h"
#include "engine/cuda/conv_heuristics.h"
#include "engine/cuda/conv_split.h"
#include "engine/model/spec.h"
#include "kernels/conv_sm90.h"
#include "kernels/conv_sm90_tile.h"

namespace {

using namespace damoyolo;
using namespace damoyolo::cuda;
using kernels::ConvConfig;
using kernels::kFewestStages;
using kernels::Tile;

struct Options {
  std::vector<std::string> variants{"T", "S", "M", "L"};
  std::vector<int> batches{1, 8, 32};
  int most = 10;
};

// Seconds by problem.
using Times = std::vector<double>;
constexpr double kNever = std::numeric_limits<double>::infinity();

std::string name_of(const Tile& tile) {
  return fmt::format("{}x{}x{}{}{}{}", tile.m, tile.n, tile.k, tile.taps == 3 ? ", three taps" : "",
                     tile.then > 0 ? fmt::format(", then {}", tile.then) : "", tile.pingpong ? ", in turns" : "");
}

std::vector<Tile> compiled_tiles() {
  std::vector<Tile> tiles;
  for (const ConvConfig& config : kernels::conv_sm90_configs())
    if (const Tile tile = tile_of(config); std::ranges::count(tiles, tile) == 0) tiles.push_back(tile);
  return tiles;
}

std::vector<ConvConfig> configs_of(const Tile& tile) {
  std::vector<ConvConfig> configs;
  for (const int columns : columns_of(tile))
    if (const ConvConfig config = config_of(tile, columns); config.stages >= kFewestStages) configs.push_back(config);
  return configs;
}

// What the kernel's template could be compiled for without spills.
bool is_conceivable(const Tile& tile) {
  constexpr int kMostSums = 128;  // of a thread
  if (tile.m / 64 % tile.warpgroups() != 0) return false;
  if (tile.groups() * tile.most_channels() / 2 > kMostSums) return false;
  if (tile.pingpong && tile.m == 64) return false;
  return !configs_of(tile).empty();
}

std::vector<Tile> conceivable_tiles() {
  constexpr int kPixels[] = {64, 128, 192, 256, 384, 512}, kChannels[] = {32, 64, 96, 128, 160, 192, 256};
  std::vector<Tile> tiles;
  const auto consider = [&](const Tile& tile) {
    if (is_conceivable(tile)) tiles.push_back(tile);
  };
  for (const int m : kPixels)
    for (const int n : kChannels)
      for (const int k : {16, 32, 64})
        for (const int taps : {1, 3}) {
          consider({m, n, k, taps});
          consider({m, n, k, taps, 0, true});
          for (const int then : kChannels) {
            consider({m, n, k, taps, then});
            consider({m, n, k, taps, then, true});
          }
        }
  return tiles;
}

class Survey {
 public:
  explicit Survey(const Options& options) {
    const std::vector<Layer> layers = read_layers();
    for (const std::string& variant : options.variants) {
      released_variant(variant);  // throws if there is none
      for (const int batch : options.batches) {
        networks_.push_back({fmt::format("{}/{}", variant, batch), {}});
        for (const Layer& layer : layers)
          if (layer.count.contains(variant)) add(with_batch(layer.problem, batch), layer.count.at(variant));
      }
    }
  }

  void run(int most) const {
    const std::vector<Tile> compiled = compiled_tiles();
    const std::vector<Times> times = times_of(compiled);
    const Times now = best_of(times);
    fmt::print("{:<36}{:>9}", "tile", "gain %");
    for (const Network& network : networks_) fmt::print("{:>8}", network.name);
    print_row("the compiled ones", 0, now);
    const Times added = add_tiles(now, most), then = shorter(now, added);

    fmt::print("\n{:<36}{:>9}  without it alone; beside the added ones\n", "tile", "loss %");
    for (std::size_t i = 0; i < compiled.size(); ++i) {
      std::vector<Times> others = times;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      const Times left = best_of(others);
      fmt::print("{:<36}{:>9.2f}{:>9.2f}\n", name_of(compiled[i]), percent(mean(left), mean(now)),
                 percent(mean(shorter(left, added)), mean(then)));
    }
  }

 private:
  // A convolution, or a pair.
  struct Part {
    int count;
    std::size_t problem;
    std::optional<std::pair<std::size_t, std::size_t>> apart = {};  // of a pair: the problems of each alone
  };
  struct Network {
    std::string name;
    std::vector<Part> parts;
  };

  void add(const ConvProblem& problem, int count) {
    if (!has_tensor_core_kernel(problem)) return;
    Part part{count, index_of(problem)};
    if (problem.then.c > 0) part.apart = {index_of(first_of(problem)), index_of(second_of(problem))};
    networks_.back().parts.push_back(part);
  }

  // Among problems_, which gets what is new: variants have layers in common.
  std::size_t index_of(const ConvProblem& problem) {
    const auto at = std::ranges::find(problems_, problem) - problems_.begin();
    if (at == std::ssize(problems_)) problems_.push_back(problem);
    return static_cast<std::size_t>(at);
  }

  Times times_of(const Tile& tile) const {
    const std::vector<ConvConfig> configs = configs_of(tile);
    Times times;
    for (const ConvProblem& problem : problems_) {
      // Predictions know nothing of what a step costs beside its products: so short ones are for 16 channels alone.
      const bool is_long = tile.k > 16 || problem.in.c <= 16;
      const auto found = predict(problem, device_, ConvGeneration::Sm90, configs);
      times.push_back(is_long && !found.empty() ? found.front().seconds : kNever);
    }
    return times;
  }

  std::vector<Times> times_of(std::span<const Tile> tiles) const {
    std::vector<Times> times;
    for (const Tile& tile : tiles) times.push_back(times_of(tile));
    return times;
  }

  static Times shorter(Times some, const Times& others) {
    std::ranges::transform(some, others, some.begin(), [](double a, double b) { return std::min(a, b); });
    return some;
  }

  Times best_of(std::span<const Times> all) const {
    return std::accumulate(all.begin(), all.end(), Times(problems_.size(), kNever), shorter);
  }

  static double seconds_of(const Network& network, const Times& times) {
    double sum = 0;
    for (const Part& part : network.parts) {
      const double seconds = times[part.problem];
      // The convolutions of a pair are parts, too: it counts as far as it saves.
      sum += part.count *
             (part.apart ? std::min(seconds - times[part.apart->first] - times[part.apart->second], 0.) : seconds);
    }
    return sum;
  }

  // Over the networks.
  double mean(const Times& times) const {
    double sum = 0;
    for (const Network& network : networks_) sum += std::log(seconds_of(network, times));
    return std::exp(sum / static_cast<double>(networks_.size()));
  }

  static double percent(double more, double less) { return (more / less - 1) * 100; }

  void print_row(const std::string& name, double gain, const Times& times) const {
    fmt::print("\n{:<36}{:>9.2f}", name, gain);
    for (const Network& network : networks_) fmt::print("{:>8.0f}", seconds_of(network, times) * 1e6);
  }

  // Prints them. The times with them alone.
  Times add_tiles(const Times& now, int most) const {
    constexpr double kLeastPercent = 0.05;
    const std::vector<Tile> tiles = conceivable_tiles();
    const std::vector<Times> times = times_of(tiles);
    Times added(problems_.size(), kNever);
    for (int i = 0; i < most; ++i) {
      const Times before = shorter(now, added);
      std::vector<double> means;
      for (const Times& one : times) means.push_back(mean(shorter(before, one)));
      const auto best = static_cast<std::size_t>(std::ranges::min_element(means) - means.begin());
      const double gain = percent(mean(before), means[best]);
      if (gain < kLeastPercent) break;
      added = shorter(added, times[best]);
      print_row("+ " + name_of(tiles[best]), gain, shorter(now, added));
    }
    fmt::print("\n");
    return added;
  }

  const DeviceTraits device_ = device_traits(kH100);
  std::vector<Network> networks_;
  std::vector<ConvProblem> problems_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Ranks the tiles of conv_sm90 by what they would gain on an H100 that need not be here", "tile-survey");
  app.add_option("--variants", options.variants, "Whose convolutions")->delimiter(',')->capture_default_str();
  app.add_option("--batch", options.batches, "Images")
      ->delimiter(',')
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  app.add_option("--add", options.most, "Tiles to add, at most")->check(CLI::Range(0, 100))->capture_default_str();
  return parse_and_run(app, argc, argv, [&] { Survey(options).run(options.most); });
}
