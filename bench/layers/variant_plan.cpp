#include "bench/layers/variant_plan.h"

#include <utility>

#include "engine/cuda/conv_problem.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"

namespace damoyolo::cuda {

VariantPlan plan_of(const ModelSpec& spec, int batch, DType activations) {
  Graph graph = build_model(spec, batch, spec.input_height, spec.input_width).graph;
  optimize(graph);
  PlanOptions options;
  options.activations = activations;
  Plan plan = lower(graph, options);
  return {std::move(graph), std::move(plan)};
}

std::vector<ConvProblem> dense_convolutions(const ModelSpec& spec, DType activations) {
  const auto [graph, plan] = plan_of(spec, 1, activations);
  std::vector<ConvProblem> problems;
  for (const Step& step : plan.steps) {
    if (step.kind != StepKind::Conv) continue;
    const ConvProblem problem = conv_problem(graph, step, false);
    if (problem.groups == 1) problems.push_back(problem);
  }
  return problems;
}

}  // namespace damoyolo::cuda
