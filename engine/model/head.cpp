// ZeroHead: one convolution for the scores and one for the box distributions, straight on each neck output.

#include "engine/model/builder.h"

namespace damoyolo {

void build_head(Builder& build, const HeadSpec& spec, const std::array<ValueId, 3>& features) {
  for (std::size_t level = 0; level < features.size(); ++level) {
    const std::string index = std::to_string(level);
    HeadLevel& head = build.graph().head[level];
    const int score_channels = spec.classes + (spec.legacy ? 1 : 0);
    head.cls = build.head_conv("head.cls." + index, "head.gfl_cls." + index, "", features[level],
                               {.out = score_channels, .kernel = spec.kernel});
    head.reg = build.head_conv("head.reg." + index, "head.gfl_reg." + index, "head.scales." + index + ".scale",
                               features[level], {.out = 4 * (spec.reg_max + 1), .kernel = spec.kernel});
    head.stride = 8 << level;
  }
}

}  // namespace damoyolo
