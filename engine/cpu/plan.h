// The static plan of a graph on the CPU: steps in order, and the place of every tensor in one arena.
//
// oneDNN's fast convolutions read and write dense tensors, not channel slices. So each view that a node reads becomes
// a tensor of its own; a convolution writes the one that is exactly its output, and one `Assemble` step carries its
// channels into the others (a concatenation's other readers), adding the residual on the way where oneDNN cannot.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "engine/core/dtype.h"
#include "engine/graph.h"

namespace damoyolo::cpu {

using TensorId = int;

// Dense [n, h, w, c] in the arena.
struct Tensor {
  std::string name;
  Shape shape;
  DType dtype = DType::F32;
  int first = 0, last = 0;  // the steps between which it holds data
  std::int64_t offset = 0;  // bytes from the arena's start

  std::int64_t bytes() const { return shape.elements() * static_cast<std::int64_t>(size_of(dtype)); }
};

// Some channels of a tensor.
struct Slice {
  TensorId tensor = kNone;
  int channel = 0, channels = 0;
};

enum class StepKind : std::uint8_t {
  Cast,      // graph input → target
  Conv,      // source → target; `accumulate`: the target holds the residual, which is added before the activation
  SppPool,   // source → target
  Upsample,  // source → target, nearest ×2, in the target's type
  Assemble,  // target_i = source channels (+ residual channels), in the target's type; conversions are such steps, too
};

struct Assembly {
  Slice source, residual, target;  // residual.tensor may be kNone
};

struct Step {
  StepKind kind{};
  int node = kNone;  // of the graph
  Slice source, target;
  bool accumulate = false;           // Conv
  std::vector<Assembly> assemblies;  // Assemble
  TensorId scratchpad = kNone;       // Conv: working memory of its kernel, see add_scratchpad
};

struct HeadSlices {
  Slice cls, reg;
};

struct Plan {
  std::vector<Tensor> tensors;
  std::vector<Step> steps;
  std::array<HeadSlices, 3> head;
  std::vector<TensorId> values;  // with keep_values: by ValueId, what holds exactly that; kNone for the images
  ArenaLayout arena;

  const Tensor& tensor(TensorId id) const { return tensors[static_cast<std::size_t>(id)]; }
};

struct PlanOptions {
  DType activations = DType::F32;  // or BF16; values of Content::Float32 are F32 in any case
  bool keep_values = false;        // all values stay readable after the run, for tests and tools
};

// Lowers an optimized graph (no Concat, Add, Activate, MaxPool or SpaceToDepth left; throws Error otherwise). Tensors
// have lifetimes but no offsets yet.
Plan lower(const Graph& graph, const PlanOptions& options);

// Adds working memory that lives during one step only.
void add_scratchpad(Plan& plan, std::size_t step, std::int64_t bytes);

// Gives every tensor its offset.
void lay_out(Plan& plan);

}  // namespace damoyolo::cpu
