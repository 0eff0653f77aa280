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

VariantPlan plan_of(const ModelSpec& spec, int batch, DType activations);

// The dense convolutions of such a plan for one image, in its order: slices, residuals, padded channels.
std::vector<ConvProblem> dense_convolutions(const ModelSpec& spec, DType activations);

}  // namespace damoyolo::cuda
