// What a GPU runs for a variant at its default size, without one.
#pragma once

#include <vector>

#include "engine/cuda/convolution.h"
#include "engine/cuda/plan.h"
#include "engine/model/spec.h"

namespace damoyolo::cuda {

struct VariantPlan {
  Graph graph;  // after the passes
  Plan plan;
};

// `join`: every pair of convolutions that one launch may compute is one step.
VariantPlan plan_of(const ModelSpec& spec, int batch, DType activations, bool join = false);

// The dense convolutions of such a plan for one image, in its order: slices, residuals, padded channels. And the pairs
// of those that one launch may compute.
std::vector<ConvProblem> dense_convolutions(const ModelSpec& spec, DType activations);
std::vector<ConvProblem> convolution_pairs(const ModelSpec& spec, DType activations);

}  // namespace damoyolo::cuda
