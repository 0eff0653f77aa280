// Graph rewrites. Each keeps the meaning of the graph, is tested so on random weights, and leaves it valid.
#pragma once

#include <cstddef>
#include <span>
#include <string>
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

// The convolutions of an optimized graph that are meant, by position. A name is the node's, as to_text() prints it, or
// the beginning of one or more followed by '*'. Throws Error for a name that means none, naming those that are like
// it.
std::vector<std::size_t> find_convolutions(const Graph& graph, std::span<const std::string> names);

// The named convolutions of an optimized graph compute in fp32: what they read is converted to Float32, unless it is
// there in that form already, and what they write is converted back for the others. A value that only such
// convolutions read is written as Float32 wherever that costs nothing, so that it is never rounded. Does nothing
// without names.
void keep_fp32(Graph& graph, std::span<const std::string> names);

struct Pass {
  std::string_view name;
  void (*apply)(Graph&);
};

// What optimize() applies, in the order in which they build on each other.
const std::vector<Pass>& optimization_passes();

// Applies them all, validating the graph after each.
void optimize(Graph& graph);

}  // namespace damoyolo
