#include "engine/cuda/conv_problem.h"

#include <bit>

namespace damoyolo::cuda {

ConvProblem conv_problem(const Graph& graph, const Step& step, bool allow_tf32) {
  const Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
  ConvProblem problem;
  problem.in = step.in.shape;
  problem.out = step.out.shape;
  problem.in_pixel_stride = step.in.pixel_stride;
  problem.out_pixel_stride = step.out.pixel_stride;
  problem.residual_pixel_stride = step.residual.pixel_stride;
  problem.kernel = node.kernel;
  problem.stride = node.stride;
  problem.groups = node.groups;
  problem.act = node.act;
  if (step.residual.region != kNone)
    problem.residual =
        step.residual.shape == step.out.shape ? ConvProblem::Residual::Same : ConvProblem::Residual::Half;
  problem.residual_first = node.residual_first;
  problem.type = step.in.type;
  problem.out_type = step.out.type;
  problem.allow_tf32 = allow_tf32;
  if (step.then != kNone) {
    const Node& then = graph.nodes[static_cast<std::size_t>(step.then)];
    problem.then = {step.then_out.shape.c, step.then_out.pixel_stride, then.act};
    problem.keep = step.out.region != kNone;
  }
  // Regions begin at multiples of 256 bytes; slices lie wherever their channels do.
  std::size_t multiples = 16;
  for (const View* view : {&step.in, &step.out, &step.residual, &step.then_out})
    multiples |= static_cast<std::size_t>(view->channel_offset) * size_of(view->type);
  problem.alignment = 1 << std::countr_zero(multiples);
  return problem;
}

}  // namespace damoyolo::cuda
