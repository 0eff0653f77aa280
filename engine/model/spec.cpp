#include "engine/model/spec.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/core/choice.h"
#include "engine/core/error.h"
#include "gen/variants_json.h"

namespace damoyolo {
namespace {

using nlohmann::json;

constexpr int kMaxChannels = 8192;  // a structure beyond these is a mistake, and would only exhaust memory
constexpr int kMaxLayers = 64;
constexpr int kMaxClasses = 65536;

// One JSON object with the words that name it in errors.
struct Fields {
  const json& object;
  std::string where;

  const json& at(const char* key) const {
    if (!object.is_object()) throw Error("{} is not a JSON object", where);
    const auto found = object.find(key);
    if (found == object.end()) throw Error("{}: \"{}\" is missing", where, key);
    return *found;
  }
  Fields child(const char* key) const { return {at(key), where + "." + key}; }
  bool has(const char* key) const { return object.is_object() && object.contains(key); }

  int integer(const char* key, int low, int high) const { return integer(at(key), key, low, high); }
  int integer(const json& value, const char* key, int low, int high) const {
    if (!value.is_number_integer() || value < low || value > high)
      throw Error("{}: \"{}\" is {}, expected an integer from {} to {}", where, key, value.dump(), low, high);
    return value.get<int>();
  }
  double number(const char* key, double low, double high) const {
    const json& value = at(key);
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
      throw Error("{}: \"{}\" is {}, expected a number from {} to {}", where, key, value.dump(), low, high);
    return value.get<double>();
  }
  bool boolean(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!at(key).is_boolean()) throw Error("{}: \"{}\" is {}, expected true or false", where, key, at(key).dump());
    return at(key).get<bool>();
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) throw Error("{}: \"{}\" is {}, expected a string", where, key, at(key).dump());
    return at(key).get<std::string>();
  }
  template <typename T, std::size_t N>
  T one_of(const char* key, const std::array<T, N>& choices) const {
    return choose(fmt::format("{}: \"{}\" is", where, key), text(key), choices);
  }
  std::array<int, 3> three(const char* key, int low, int high) const {
    const json& list = at(key);
    if (!list.is_array() || list.size() != 3)
      throw Error("{}: \"{}\" is {}, expected three integers", where, key, list.dump());
    return {integer(list[0], key, low, high), integer(list[1], key, low, high), integer(list[2], key, low, high)};
  }
};

constexpr std::array kFamilies{Family::Res, Family::Csp, Family::Mob};
constexpr std::array kActivations{Activation::Relu, Activation::Silu};

BlockSpec block_from_json(const Fields& fields, bool stem) {
  BlockSpec block;
  block.type = fields.text("class");
  block.in = fields.integer("in", 1, kMaxChannels);
  block.out = fields.integer("out", 1, kMaxChannels);
  block.kernel = fields.integer("k", 1, 7);
  block.stride = fields.integer("s", 1, 2);
  if (block.kernel % 2 == 0) throw Error("{}: \"k\" is {}, expected an odd kernel", fields.where, block.kernel);
  if (stem) {
    if (block.type != "ConvKXBNRELU")
      throw Error("{}: \"class\" is \"{}\", expected ConvKXBNRELU for the stem", fields.where, block.type);
    return block;
  }
  if (block.type != "SuperResConvK1KX" && block.type != "SuperResConvKXKX")
    throw Error("{}: \"class\" is \"{}\", expected SuperResConvK1KX or SuperResConvKXKX", fields.where, block.type);
  block.bottleneck = fields.integer("btn", 1, kMaxChannels);
  block.layers = fields.integer("L", 1, kMaxLayers);
  return block;
}

BackboneSpec backbone_from_json(const Fields& fields) {
  BackboneSpec backbone;
  backbone.family = fields.one_of("family", kFamilies);
  backbone.act = fields.one_of("act", kActivations);
  backbone.spp = fields.boolean("with_spp", false);
  backbone.focus = fields.boolean("use_focus", false);

  const json& blocks = fields.at("blocks");
  if (!blocks.is_array() || blocks.size() < 2 || blocks.size() > 16)
    throw Error("{}: \"blocks\" is not a list of 2 to 16 entries", fields.where);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Fields entry{blocks[i], fields.where + ".blocks[" + std::to_string(i) + "]"};
    backbone.blocks.push_back(block_from_json(entry, i == 0));
    const int expected = i == 0 ? 3 : backbone.blocks[i - 1].out;
    if (backbone.blocks[i].in != expected)
      throw Error("{}: \"in\" is {}, expected {}", entry.where, backbone.blocks[i].in, expected);
  }
  // A wrapped CSP stage holds the entries 3 and 4 (see spec: TinyNAS_csp), so the family fixes their number.
  if (backbone.family == Family::Csp && backbone.blocks.size() != 6)
    throw Error("{}: \"blocks\" has {} entries, expected 6 for TinyNAS_csp", fields.where, blocks.size());
  const int outputs = backbone.family == Family::Csp ? 5 : static_cast<int>(backbone.blocks.size());
  backbone.out_indices = fields.three("out_indices", 1, outputs - 1);
  if (backbone.out_indices[0] >= backbone.out_indices[1] || backbone.out_indices[1] >= backbone.out_indices[2])
    throw Error("{}: \"out_indices\" is not ascending", fields.where);
  return backbone;
}

NeckSpec neck_from_json(const Fields& fields) {
  NeckSpec neck;
  neck.in = fields.three("in_channels", 1, kMaxChannels);
  neck.out = fields.three("out_channels", 2, kMaxChannels);
  neck.depth = fields.number("depth", 0.1, 16);
  neck.hidden_ratio = fields.number("hidden_ratio", 0.05, 8);
  neck.act = fields.one_of("act", kActivations);
  neck.depthwise = fields.boolean("depthwise", false);
  return neck;
}

HeadSpec head_from_json(const Fields& fields) {
  HeadSpec head;
  head.in = fields.three("in_channels", 1, kMaxChannels);
  head.classes = fields.integer("num_classes", 1, kMaxClasses);
  head.legacy = fields.boolean("legacy", false);
  head.reg_max = fields.integer("reg_max", 1, 255);
  head.kernel = fields.integer("kernel", 1, 7);
  head.nms_conf = fields.number("nms_conf", 0, 1);
  head.nms_iou = fields.number("nms_iou", 0, 1);
  if (head.kernel % 2 == 0) throw Error("{}: \"kernel\" is {}, expected an odd kernel", fields.where, head.kernel);
  if (fields.has("stacked_convs") && fields.integer("stacked_convs", 0, 8) != 0)
    throw Error("{}: \"stacked_convs\" is not 0, which no released model has", fields.where);
  return head;
}

int input_side(const json& value, const Fields& fields) {
  const int side = fields.integer(value, "input_size", 32, 16384);
  if (side % 32 != 0) throw Error("{}: \"input_size\" has {}, expected a multiple of 32", fields.where, side);
  return side;
}

}  // namespace

ModelSpec spec_from_json(const json& entry, std::string_view variant, std::string_view origin) {
  const Fields fields{entry, std::string(origin)};
  ModelSpec spec;
  spec.variant = variant;
  const json& size = fields.at("input_size");
  if (size.is_array() && size.size() == 2) {
    spec.input_height = input_side(size[0], fields);
    spec.input_width = input_side(size[1], fields);
  } else {
    spec.input_height = spec.input_width = input_side(size, fields);
  }
  spec.backbone = backbone_from_json(fields.child("backbone"));
  spec.neck = neck_from_json(fields.child("neck"));
  spec.head = head_from_json(fields.child("head"));
  if (spec.neck.out != spec.head.in)
    throw Error("{}: the neck's \"out_channels\" are not the head's \"in_channels\"", origin);
  for (std::size_t level = 0; level < 3; ++level) {
    const auto index = static_cast<std::size_t>(spec.backbone.out_indices[level]);
    // Wrapped CSP stages 1..4 end with the entries 1, 2, 4, 5.
    const std::size_t last = spec.backbone.family == Family::Csp && index >= 3 ? index + 1 : index;
    if (spec.backbone.blocks[last].out != spec.neck.in[level])
      throw Error("{}: the neck's \"in_channels\" has {} where the backbone gives {}", origin, spec.neck.in[level],
                  spec.backbone.blocks[last].out);
  }
  if (fields.has("class_names")) {
    const json& names = fields.at("class_names");
    if (!names.is_array() || names.size() != static_cast<std::size_t>(spec.head.classes))
      throw Error("{}: \"class_names\" is not a list of {} names", origin, spec.head.classes);
    for (const json& name : names) {
      if (!name.is_string()) throw Error("{}: \"class_names\" has {}, expected a string", origin, name.dump());
      spec.class_names.push_back(name.get<std::string>());
    }
  }
  return spec;
}

json spec_to_json(const ModelSpec& spec) {
  json blocks = json::array();
  for (const BlockSpec& block : spec.backbone.blocks) {
    json entry{{"class", block.type}, {"in", block.in}, {"out", block.out}, {"k", block.kernel}, {"s", block.stride}};
    if (block.layers > 0) {
      entry["btn"] = block.bottleneck;
      entry["L"] = block.layers;
    }
    blocks.push_back(std::move(entry));
  }
  json entry{{"variant", spec.variant},
             {"input_size", {spec.input_height, spec.input_width}},
             {"backbone",
              {{"family", name_of(spec.backbone.family)},
               {"out_indices", spec.backbone.out_indices},
               {"with_spp", spec.backbone.spp},
               {"use_focus", spec.backbone.focus},
               {"act", name_of(spec.backbone.act)},
               {"blocks", std::move(blocks)}}},
             {"neck",
              {{"in_channels", spec.neck.in},
               {"out_channels", spec.neck.out},
               {"depth", spec.neck.depth},
               {"hidden_ratio", spec.neck.hidden_ratio},
               {"act", name_of(spec.neck.act)},
               {"depthwise", spec.neck.depthwise}}},
             {"head",
              {{"in_channels", spec.head.in},
               {"num_classes", spec.head.classes},
               {"legacy", spec.head.legacy},
               {"reg_max", spec.head.reg_max},
               {"kernel", spec.head.kernel},
               {"nms_conf", spec.head.nms_conf},
               {"nms_iou", spec.head.nms_iou}}}};
  if (!spec.class_names.empty()) entry["class_names"] = spec.class_names;
  return entry;
}

const std::vector<ModelSpec>& released_variants() {
  static const std::vector<ModelSpec> variants = [] {
    const json table = json::parse(kVariantsJson);
    std::vector<ModelSpec> specs;
    for (const char* name : {"N", "Ns", "Nm", "Nl", "T", "S", "M", "L"})
      specs.push_back(spec_from_json(table.at(name), name, std::string("variants.json: ") + name));
    return specs;
  }();
  return variants;
}

const ModelSpec& released_variant(std::string_view name) {
  for (const ModelSpec& spec : released_variants())
    if (spec.variant == name) return spec;
  throw Error("there is no variant \"{}\", expected one of N, Ns, Nm, Nl, T, S, M, L", name);
}

const std::vector<std::string>& coco_names() {
  static const std::vector<std::string> names{"person",        "bicycle",      "car",
                                              "motorcycle",    "airplane",     "bus",
                                              "train",         "truck",        "boat",
                                              "traffic light", "fire hydrant", "stop sign",
                                              "parking meter", "bench",        "bird",
                                              "cat",           "dog",          "horse",
                                              "sheep",         "cow",          "elephant",
                                              "bear",          "zebra",        "giraffe",
                                              "backpack",      "umbrella",     "handbag",
                                              "tie",           "suitcase",     "frisbee",
                                              "skis",          "snowboard",    "sports ball",
                                              "kite",          "baseball bat", "baseball glove",
                                              "skateboard",    "surfboard",    "tennis racket",
                                              "bottle",        "wine glass",   "cup",
                                              "fork",          "knife",        "spoon",
                                              "bowl",          "banana",       "apple",
                                              "sandwich",      "orange",       "broccoli",
                                              "carrot",        "hot dog",      "pizza",
                                              "donut",         "cake",         "chair",
                                              "couch",         "potted plant", "bed",
                                              "dining table",  "toilet",       "tv",
                                              "laptop",        "mouse",        "remote",
                                              "keyboard",      "cell phone",   "microwave",
                                              "oven",          "toaster",      "sink",
                                              "refrigerator",  "book",         "clock",
                                              "vase",          "scissors",     "teddy bear",
                                              "hair drier",    "toothbrush"};
  return names;
}

std::string_view name_of(Family family) {
  switch (family) {
    case Family::Res: return "TinyNAS_res";
    case Family::Csp: return "TinyNAS_csp";
    case Family::Mob: return "TinyNAS_mob";
  }
  return "?";
}

}  // namespace damoyolo
