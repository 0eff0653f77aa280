// Graph rewrites. Each keeps the meaning of the graph, is tested so on random weights, and leaves it valid.
#pragma once

#include <string_view>
#include <vector>

#include "engine/graph.h"

namespace damoyolo {

// Convolution, then activation, addition, activation: one node. A sum goes to whichever operand is computed last.
void fuse_epilogues(Graph& graph);

// Space-to-depth happens while the pixels are cast.
void fold_focus(Graph& graph);

// Max-pools 5, 9 and 13 of one value, joined with it, become one node: each is the one before it pooled by 5 again.
void fuse_spp_pools(Graph& graph);

// Convolutions of one input with the same kernel, stride and activation become one with their outputs side by side.
// The order in the channels is the one that place_concats can build on.
void merge_siblings(Graph& graph);

// A 1×1 convolution of concat([a, upsample(b)]) multiplies b's channels at b's size, a quarter of the work, and adds
// that, upsampled, to the product of a: a pointwise linear map and a copy of pixels commute.
void split_upsampled(Graph& graph);

// Parts of a concatenation are placed into one buffer where their producers can write them; the node disappears.
void place_concats(Graph& graph);

struct Pass {
  std::string_view name;
  void (*apply)(Graph&);
};

// All of the above in the order in which they build on each other.
const std::vector<Pass>& optimization_passes();

// Applies them all, validating the graph after each.
void optimize(Graph& graph);

}  // namespace damoyolo
