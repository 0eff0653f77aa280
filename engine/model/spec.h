// What defines one DAMO-YOLO model: the searched backbone, the neck and the head, as plain data.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/activation.h"

namespace damoyolo {

// The three backbone families of the released models; they differ in block and in tensor names.
enum class Family { Res, Csp, Mob };

// One entry of a TinyNAS structure. Entry 0 is the stem (only in, out, kernel, stride); each later one is a stage.
struct BlockSpec {
  std::string type;  // "ConvKXBNRELU", "SuperResConvK1KX" or "SuperResConvKXKX"
  int in = 0, out = 0, kernel = 0, stride = 0;
  int bottleneck = 0;  // "btn": the middle width of a ResConvBlock
  int layers = 0;      // "L": blocks in the stage

  bool operator==(const BlockSpec&) const = default;
};

struct BackboneSpec {
  Family family{};
  std::vector<BlockSpec> blocks;
  std::array<int, 3> out_indices{};  // which entries feed the neck, at strides 8, 16, 32
  bool spp = false;                  // SPPBottleneck in the last stage
  bool focus = false;                // stem after space-to-depth instead of a stride-2 convolution
  Activation act{};

  bool operator==(const BackboneSpec&) const = default;
};

struct NeckSpec {
  std::array<int, 3> in{}, out{};  // channels at strides 8, 16, 32
  double depth = 0;                // blocks per CSPStage: round half to even of 3·depth
  double hidden_ratio = 0;
  Activation act{};
  bool depthwise = false;

  bool operator==(const NeckSpec&) const = default;
};

struct HeadSpec {
  std::array<int, 3> in{};
  int classes = 0;
  bool legacy = false;  // the checkpoint has classes + 1 score channels, the last without meaning
  int reg_max = 0;      // each side of a box is a distribution over reg_max + 1 bins
  int kernel = 0;
  double nms_conf = 0, nms_iou = 0;  // evaluation thresholds

  bool operator==(const HeadSpec&) const = default;
};

struct ModelSpec {
  std::string variant;  // "S", or "custom"
  int input_height = 0, input_width = 0;
  BackboneSpec backbone;
  NeckSpec neck;
  HeadSpec head;
  std::vector<std::string> class_names;  // empty, or head.classes of them
};

// The eight released structures (N Ns Nm Nl T S M L), parsed from engine/model/variants.json, with 80 classes and no
// names. The reference stays valid for the life of the process; safe from any thread.
const std::vector<ModelSpec>& released_variants();

// One of them by name; throws Error naming the known ones.
const ModelSpec& released_variant(std::string_view name);

// One entry in the layout of variants.json ↔ ModelSpec. Reading checks every field (family, widths that must chain,
// positive sizes with sane upper bounds) and throws Error naming `origin` and the field.
ModelSpec spec_from_json(const nlohmann::json& entry, std::string_view variant, std::string_view origin);
nlohmann::json spec_to_json(const ModelSpec& spec);

// The 80 class names of COCO, in the order of the published checkpoints.
const std::vector<std::string>& coco_names();

std::string_view name_of(Family family);

}  // namespace damoyolo
