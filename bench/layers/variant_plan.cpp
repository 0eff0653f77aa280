#include "bench/layers/variant_plan.h"

#include <utility>

#include "engine/cuda/conv_problem.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"

namespace damoyolo::cuda {
namespace {

template <typename Predicate>
std::vector<ConvProblem> convolutions(const VariantPlan& planned, Predicate wanted) {
  std::vector<ConvProblem> problems;
  for (const Step& step : planned.plan.steps) {
    if (step.kind != StepKind::Conv) continue;
    const ConvProblem problem = conv_problem(planned.graph, step, false);
    if (wanted(problem)) problems.push_back(problem);
  }
  return problems;
}

}  // namespace

VariantPlan plan_of(const ModelSpec& spec, int batch, DType activations, bool join) {
  Graph graph = build_model(spec, batch, spec.input_height, spec.input_width).graph;
  optimize(graph);
  PlanOptions options;
  options.activations = activations;
  if (join) options.joined = joinable_pairs(graph, activations);
  Plan plan = lower(graph, options);
  return {std::move(graph), std::move(plan)};
}

std::vector<ConvProblem> dense_convolutions(const ModelSpec& spec, DType activations) {
  return convolutions(plan_of(spec, 1, activations), [](const ConvProblem& problem) { return problem.groups == 1; });
}

std::vector<ConvProblem> convolution_pairs(const ModelSpec& spec, DType activations) {
  return convolutions(plan_of(spec, 1, activations, true),
                      [](const ConvProblem& problem) { return problem.then.c > 0; });
}

}  // namespace damoyolo::cuda
