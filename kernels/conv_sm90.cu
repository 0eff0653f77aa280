#include <algorithm>
#include <array>
#include <span>

#include "kernels/conv_checks.h"
#include "kernels/conv_sm90.h"
#include "kernels/conv_sm90_tiles.h"
#include "kernels/conv_sm90_tiling.cuh"

namespace damoyolo::kernels {
namespace {

using namespace conv_sm90;

template <typename Function>
constexpr void for_each_config(Function function) {
  using Tiles = std::span<const Tile>;
  for (const Tiles tiles : {Tiles(kTilesAlone), Tiles(kTilesInTurn), Tiles(kTilesOfPairs)})
    for (const Tile& tile : tiles)
      for (const int columns : columns_of(tile)) function(config_of(tile, columns));
}

constexpr std::size_t kConfigCount = [] {
  std::size_t count = 0;
  for_each_config([&](ConvConfig) { ++count; });
  return count;
}();

constexpr auto kConfigs = [] {
  std::array<ConvConfig, kConfigCount> configs;
  std::size_t i = 0;
  for_each_config([&](ConvConfig config) { configs[i++] = config; });
  return configs;
}();

// Others' sums, where they are shared, leave room for fewer: see conv_sm90_fits.
static_assert(std::ranges::all_of(kConfigs, [](const ConvConfig& config) { return config.stages >= kFewestStages; }));

}  // namespace

std::span<const ConvConfig> conv_sm90_configs() { return kConfigs; }

bool conv_sm90_fits(const Convolution& convolution, const ConvConfig& config) {
  if (unmet_expectation(convolution, config) != nullptr || !is_listed(config, kConfigs, kMaxConvSm90Split))
    return false;
  if (config.sharing != 1 && (config.sharing != 2 || config.split != 1)) return false;
  if (config.split > 1 && !tile_of(config).splits()) return false;
  if (tile_of(config).stages(config.columns, config.split) < kFewestStages) return false;
  if (config.columns == 0 && (convolution.kernel != 1 || convolution.stride != 1)) return false;
  if (config.taps > 1 && (convolution.kernel != 3 || convolution.stride != 1)) return false;
  const Tiling tiling = tiling_of(convolution, config);
  constexpr std::int64_t kMaxItems = 0x3fffffff;  // so that an int holds the next one, too
  return tiles_of(tiling) * config.split <= kMaxItems;
}

ConvMemory conv_sm90_memory(const Convolution&, const ConvConfig&) { return {}; }

void launch_conv_sm90(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  require(is_listed(config, kConfigs, kMaxConvSm90Split), kName, "one of its configurations");
  require_convolution(convolution, config, {}, kName);
  require(config.split == 1 || tile_of(config).splits(), kName, "no split of a pair's sums, nor of those in turns");
  require(conv_sm90_fits(convolution, config), kName,
          "columns for a window, room for two stages, and tiles that it can count");
  const auto launch = config.then > 0 ? launch_pair : config.pingpong ? launch_in_turn : launch_alone;
  launch(convolution, config, stream);
}

}  // namespace damoyolo::kernels
