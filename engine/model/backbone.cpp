// The TinyNAS backbones. Node names are backbone.STAGE.BLOCK.LAYER.

#include <cmath>

#include "engine/model/builder.h"

namespace damoyolo {
namespace {

std::string number(std::size_t i) { return std::to_string(i); }

ValueId stem(Builder& build, const BackboneSpec& spec, const std::string& path, ValueId image) {
  const BlockSpec& block = spec.blocks[0];
  ValueId x = build.cast("preprocess.cast", image);
  if (spec.focus) x = build.space_to_depth("preprocess.focus", x);
  x = build.conv_bn("backbone.0", path, spec.focus ? kConvBn : kConv1Bn1, x,
                    {.out = block.out, .kernel = block.kernel, .stride = spec.focus ? 1 : 2});
  return build.activate(x, spec.act);
}

struct ResBlock {
  int bottleneck = 0, out = 0, kernel = 3, stride = 1;
  bool wide_first = false;  // SuperResConvKXKX: the first convolution is k×k as well
};

ValueId res_conv_block(Builder& build, const std::string& node, const std::string& path, ValueId x, ResBlock block,
                       Activation act) {
  ValueId y = build.conv_bn(node + ".conv1", path + ".conv1", kConv1Bn1, x,
                            {.out = block.bottleneck, .kernel = block.wide_first ? block.kernel : 1});
  y = build.activate(y, act);
  y = build.rep_conv(node + ".conv2", path + ".conv2", y,
                     {.out = block.out, .kernel = block.kernel, .stride = block.stride});
  if (block.stride != 2) {
    const ValueId shortcut =
        build.channels(x) == block.out
            ? x
            : build.conv_bn(node + ".shortcut", path + ".residual_proj", kConv1Bn1, x, {.out = block.out});
    y = build.add(node + ".add", y, shortcut);
  }
  return build.activate(y, act);
}

ResBlock res_block(const BlockSpec& entry, int out, int stride) {
  return {.bottleneck = entry.bottleneck,
          .out = out,
          .kernel = entry.kernel,
          .stride = stride,
          .wide_first = entry.type == "SuperResConvKXKX"};
}

// Res and Mob: every entry after the stem is a stage of its blocks; SPP follows the last stage's first block.
std::vector<ValueId> plain_stages(Builder& build, const BackboneSpec& spec, ValueId image) {
  std::vector<ValueId> outputs{stem(build, spec, "backbone.block_list.0.conv", image)};
  for (std::size_t stage = 1; stage < spec.blocks.size(); ++stage) {
    const BlockSpec& entry = spec.blocks[stage];
    ValueId x = outputs.back();
    std::size_t position = 0;  // in the checkpoint's list, where the SPP block counts too
    const auto next_names = [&] {
      const std::string at = number(position++);
      return std::pair{"backbone." + number(stage) + "." + at,
                       "backbone.block_list." + number(stage) + ".block_list." + at};
    };
    for (int layer = 0; layer < entry.layers; ++layer) {
      const int stride = layer == 0 ? entry.stride : 1;
      const auto [node, path] = next_names();
      if (spec.family == Family::Mob) {
        const double expansion = 3.5 + 0.5 * static_cast<double>(stage - 1);
        const int hidden = make_divisible(std::ceil(entry.out * expansion), 8);
        x = build.mobile_block(node, path + ".conv", x, {.hidden = hidden, .out = entry.out, .stride = stride},
                               spec.act);
      } else {
        x = res_conv_block(build, node, path, x, res_block(entry, entry.out, stride), spec.act);
      }
      if (layer == 0 && spec.spp && stage + 1 == spec.blocks.size()) {
        const auto [spp_node, spp_path] = next_names();
        x = build.spp(spp_node, spp_path, x, entry.out);
      }
    }
    outputs.push_back(x);
  }
  return outputs;
}

// Csp: the five entries become four wrapped stages; the third holds the entries 3 and 4. Downsampling, the two
// branches' 1×1 and the fusing 1×1 use ReLU whatever the model's activation.
std::vector<ValueId> wrapped_stages(Builder& build, const BackboneSpec& spec, ValueId image) {
  const std::vector<std::vector<std::size_t>> stages{{1}, {2}, {3, 4}, {5}};
  std::vector<ValueId> outputs{stem(build, spec, "backbone.csp_stage.0.conv", image)};
  for (std::size_t stage = 1; stage <= stages.size(); ++stage) {
    const auto& entries = stages[stage - 1];
    const std::string node = "backbone." + number(stage);
    const std::string path = "backbone.csp_stage." + number(stage);
    const int out = spec.blocks[entries.front()].out;
    const int hidden = out / 2;
    const auto relu_conv = [&](const char* name, const char* module, ValueId x, ConvShape shape) {
      return build.activate(build.conv_bn(node + name, path + module + ".conv", kConv1Bn1, x, shape),
                            Activation::Relu);
    };

    ValueId x =
        relu_conv(".downsample", ".downsampler", outputs.back(), {.out = 2 * hidden, .kernel = 3, .stride = 2});
    if (spec.spp && stage == stages.size()) x = build.spp(node + ".spp", path + ".spp", x, 2 * hidden);
    const ValueId shortcut = relu_conv(".shortcut", ".conv_shortcut", x, {.out = out / 2});
    x = relu_conv(".start", ".conv_start", x, {.out = hidden});
    std::size_t position = 0;
    for (const std::size_t index : entries) {
      const BlockSpec& entry = spec.blocks[index];
      // The stride-2 entry's first block is what `downsample` has replaced.
      const int layers = entry.stride == 2 ? entry.layers - 1 : entry.layers;
      for (int layer = 0; layer < layers; ++layer, ++position)
        x = res_conv_block(build, node + "." + number(position), path + ".convstem." + number(position), x,
                           res_block(entry, entry.out / 2, 1), spec.act);
    }
    x = build.concat(node + ".concat", {x, shortcut});
    outputs.push_back(relu_conv(".fuse", ".conv_fuse", x, {.out = out}));
  }
  return outputs;
}

}  // namespace

std::array<ValueId, 3> build_backbone(Builder& build, const BackboneSpec& spec, ValueId image) {
  const std::vector<ValueId> outputs =
      spec.family == Family::Csp ? wrapped_stages(build, spec, image) : plain_stages(build, spec, image);
  std::array<ValueId, 3> features{};
  for (std::size_t level = 0; level < 3; ++level)
    features[level] = outputs[static_cast<std::size_t>(spec.out_indices[level])];
  return features;
}

}  // namespace damoyolo
