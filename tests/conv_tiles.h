// The tiles of our own convolutions, for test cases of one each.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/conv.h"

namespace damoyolo::kernels {

// The configurations of one tile: they differ in their columns, and in the stages that there is room for then.
struct ConvTile {
  std::size_t number = 0;  // among the kernel's tiles
  std::vector<ConvConfig> configs;

  bool holds(const ConvConfig& config) const {
    const ConvConfig& own = configs.front();
    return own.m == config.m && own.n == config.n && own.k == config.k && own.taps == config.taps &&
           own.then == config.then && own.pingpong == config.pingpong;
  }
  // "128x64x32", "128x64x32 three taps", "128x64x32 then 64", "128x128x64 ping-pong"
  std::string name() const {
    const ConvConfig& own = configs.front();
    return std::to_string(own.m) + "x" + std::to_string(own.n) + "x" + std::to_string(own.k) +
           (own.taps == 3 ? " three taps" : "") + (own.then > 0 ? " then " + std::to_string(own.then) : "") +
           (own.pingpong ? " ping-pong" : "");
  }
};

// Those for a convolution alone, or for pairs.
inline std::vector<ConvTile> conv_tiles(std::span<const ConvConfig> configs, bool pairs = false) {
  std::vector<ConvTile> tiles;
  for (const ConvConfig& config : configs) {
    if ((config.then > 0) != pairs) continue;
    if (tiles.empty() || !tiles.back().holds(config)) tiles.push_back({tiles.size(), {}});
    tiles.back().configs.push_back(config);
  }
  return tiles;
}

}  // namespace damoyolo::kernels
