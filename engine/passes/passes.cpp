#include "engine/passes/passes.h"

namespace damoyolo {

const std::vector<Pass>& optimization_passes() {
  static const std::vector<Pass> passes{
      {"fuse_epilogues", fuse_epilogues}, {"fold_focus", fold_focus},           {"fuse_spp_pools", fuse_spp_pools},
      {"merge_siblings", merge_siblings}, {"split_upsampled", split_upsampled}, {"place_concats", place_concats},
  };
  return passes;
}

void optimize(Graph& graph) {
  for (const Pass& pass : optimization_passes()) {
    pass.apply(graph);
    validate(graph);
  }
}

}  // namespace damoyolo
