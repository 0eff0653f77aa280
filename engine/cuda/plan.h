// The static plan of a graph on a GPU: steps in order, a stream for each, and the place of every tensor in one arena.
//
// Kernels read and write channel slices, so a graph's buffer is a region of the arena as it stands, and its values
// are views of it; nothing is copied to join or split channels. Independent branches run on parallel streams: a step
// waits for the steps on other streams whose results it reads, and for no others. Two regions share memory only when
// every step that touches the one happens before every step that touches the other.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "engine/core/dtype.h"
#include "engine/graph.h"
#include "engine/mode.h"

namespace damoyolo::cuda {

using RegionId = int;

// Bytes of the arena that hold one buffer of the graph, or one step's working memory.
struct Region {
  std::string name;
  std::int64_t bytes = 0;
  int first = 0, last = 0;  // of the steps that touch it
  std::int64_t offset = 0;  // from the arena's start, a multiple of 256
};

// Channels [channel_offset, channel_offset + shape.c) of a region of `pixel_stride` channels.
struct View {
  RegionId region = kNone;
  Shape shape;
  int pixel_stride = 0, channel_offset = 0;  // in elements
  DType type = DType::F32;
};

enum class StepKind : std::uint8_t {
  Pixels,    // the input → out
  Conv,      // in (and residual) → out (and then_out)
  SppPool,   // in → out
  Upsample,  // in → out
  Convert,   // in → out, between fp32 and the activations' type
  Finish,    // the head's views → the results
};

struct Step {
  StepKind kind{};
  int node = kNone;  // of the graph; Finish has none
  View in, out, residual;
  // Conv: another node, of kernel 1, that the same launch computes from `out`, which has no region where nobody else
  // reads it.
  int then = kNone;
  View then_out;
  RegionId workspace = kNone;
  std::vector<int> dependencies;  // steps whose results it reads
  int stream = 0;
  std::vector<int> waits;  // steps on other streams that it has to wait for
  bool awaited = false;    // a step on another stream waits for this one
};

struct HeadViews {
  View cls, reg;
};

struct Plan {
  std::vector<Region> regions;
  std::vector<Step> steps;
  std::array<HeadViews, 3> head;
  std::vector<View> values;  // with keep_values: by ValueId, readable after the run
  int streams = 1;
  ArenaLayout arena;

  const Region& region(RegionId id) const { return regions[static_cast<std::size_t>(id)]; }
};

// Positions of two convolutions in a graph, of which the second reads what the first gives.
struct NodePair {
  int first = kNone, second = kNone;

  bool operator==(const NodePair&) const = default;
};

// Those that one launch may compute, each node in one at most: dense, the first of kernel 3, the second of kernel 1
// and stride 1, without a residual; all tensors 16 bits wide. The second waits for nothing but the first, so that both
// can be over when the first is. In the order of the first ones.
std::vector<NodePair> joinable_pairs(const Graph& graph, DType activations);

struct PlanOptions {
  DType activations = DType::F32;     // or BF16, F16; values of Content::Float32 are F32 in any case
  int streams = kMaxStreams;          // at most
  bool keep_values = false;           // no region gives its memory to another, for tests and tools; not with `joined`
  std::vector<NodePair> joined = {};  // of joinable_pairs(), each of which becomes one step
};

// Lowers an optimized graph (no Concat, Add, Activate, MaxPool or SpaceToDepth left; throws Error otherwise, and for
// values kept beside pairs): views, dependencies, streams. Pixels are 16 bytes or a multiple of it apart. What Pixels
// writes is filled up to that with channels of zeros, which a convolution reads, too, and nobody else. The first and
// the last step are on stream 0, and every other happens between them.
Plan lower(const Graph& graph, const PlanOptions& options);

// The same with those of joinable_pairs() as one step for which `join` gives true, whatever options.joined says. It is
// asked once for each, with the step that they would be.
Plan lower_joining(const Graph& graph, PlanOptions options, const std::function<bool(const Step&)>& join);

// Working memory of one step. Before lay_out().
void add_workspace(Plan& plan, std::size_t step, std::int64_t bytes);

// Gives every region its offset.
void lay_out(Plan& plan);

// before[b][a]: step a ends before step b begins, by the order of the streams and the waits.
std::vector<std::vector<bool>> happens_before(const Plan& plan);

// "results" for Finish, "a + b" for a pair.
std::string name_of(const Step& step, const Graph& graph);

// 2·multiply-adds of its convolutions.
std::int64_t flops(const Step& step, const Graph& graph);

// What a step has to move at least: its views, and the weights of its convolutions.
std::int64_t bytes_moved(const Step& step, const Graph& graph);

// A table of the steps with their kernels' names, one per step, and one of the regions.
std::string to_text(const Plan& plan, const Graph& graph, std::span<const std::string> kernels);

}  // namespace damoyolo::cuda
