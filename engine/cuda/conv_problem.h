// From a step of a plan to the convolution it stands for.
#pragma once

#include "engine/cuda/convolution.h"
#include "engine/cuda/plan.h"

namespace damoyolo::cuda {

// `step` is a Conv step of a plan of `graph`.
ConvProblem conv_problem(const Graph& graph, const Step& step, bool allow_tf32);

}  // namespace damoyolo::cuda
