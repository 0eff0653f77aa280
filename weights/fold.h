// Folds what training keeps apart into one convolution: BatchNorm, the two branches of a RepConv, a learned scale.
#pragma once

#include <vector>

#include "engine/model/build.h"
#include "weights/recognise.h"

namespace damoyolo {

// A convolution as inference runs it: weight [out, in/groups, k, k], bias [out].
struct FoldedConv {
  std::vector<float> weight, bias;
};

// Computed in double and rounded once, with γ, β, μ, σ² of the BatchNorm and its eps of 1e-3:
//   w' = w·γ/√(σ²+eps), b' = β − μ·γ/√(σ²+eps)
//   RepConv: the folded 3×3, plus the folded 1×1 at its centre tap
//   scale: weight and bias times the scalar
// The tensors must be those of expected_tensors, but may have more than `source.out` output channels: the first are
// taken.
FoldedConv fold(const ConvSource& source, const TensorIndex& tensors);

}  // namespace damoyolo
