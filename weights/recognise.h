// Which model a state dict belongs to, told from the names and shapes of its tensors.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/build.h"
#include "engine/model/spec.h"
#include "weights/checkpoint.h"

namespace damoyolo {

// Tensors by name; points into a Checkpoint. Throws Error naming `origin` when a name occurs twice.
using TensorIndex = std::map<std::string_view, const CheckpointTensor*>;
TensorIndex index_tensors(const Checkpoint& checkpoint, std::string_view origin);

// Whether the RepConv at `module` was merged before the checkpoint was saved.
bool is_deployed(const TensorIndex& tensors, std::string_view module);

struct ExpectedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  bool learned = true;  // not a running statistic
};

// The tensors that importing these convolutions reads, in order. A RepConv that `tensors` has merged is expected so.
std::vector<ExpectedTensor> expected_tensors(const std::vector<ConvSource>& sources, const TensorIndex& tensors);

// The candidate whose tensors are exactly those of the checkpoint, with head.classes set to its score channels.
// num_batches_tracked and head.integral.project have no weights and are passed over. When none fits, throws Error
// about the nearest: up to eight each of the missing, the extra and the misshapen tensors, with their shapes.
ModelSpec recognise(const TensorIndex& tensors, std::span<const ModelSpec> candidates, std::string_view origin);

}  // namespace damoyolo
