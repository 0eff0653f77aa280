#include "bench/layers/layer_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "bench/layers/variant_plan.h"
#include "engine/core/choice.h"
#include "engine/core/error.h"
#include "engine/cuda/whole_vectors.h"

namespace damoyolo::cuda {

// Where choose() finds it.
static std::string_view name_of(ConvProblem::Residual residual) {
  switch (residual) {
    case ConvProblem::Residual::None: return "none";
    case ConvProblem::Residual::Same: return "same";
    case ConvProblem::Residual::Half: return "half";
  }
  return "?";
}

namespace {

using Residual = ConvProblem::Residual;

constexpr std::array kActivations{Activation::None, Activation::Relu, Activation::Silu};
constexpr std::array kResiduals{Residual::None, Residual::Same, Residual::Half};

// Fills in what follows from the rest, or makes no difference.
ConvProblem dense(ConvProblem problem) {
  if (problem.residual == Residual::None || problem.act == Activation::None) problem.residual_first = true;
  problem.in_pixel_stride = in_whole_vectors(problem.in.c, problem.type);
  problem.out_pixel_stride = in_whole_vectors(problem.out.c, problem.out_type);
  problem.residual_pixel_stride =
      problem.residual == Residual::None ? 0 : in_whole_vectors(problem.out.c, problem.type);
  problem.then.pixel_stride = in_whole_vectors(problem.then.c, problem.type);
  problem.alignment = 16;
  return problem;
}

Layer layer_from_json(const nlohmann::json& entry) {
  Layer layer;
  ConvProblem& p = layer.problem;
  const auto number = [&](const char* name) {
    const int value = entry.at(name).get<int>();
    if (value < 1) throw Error("{} is {}, expected at least 1", name, value);
    return value;
  };
  p.kernel = number("kernel");
  p.stride = number("stride");
  p.in = {1, number("height"), number("width"), number("in")};
  p.out = {1, (p.in.h + p.stride - 1) / p.stride, (p.in.w + p.stride - 1) / p.stride, number("out")};
  p.act = choose("there is no activation", entry.at("act").get<std::string>(), kActivations);
  p.residual = choose("there is no residual", entry.at("residual").get<std::string>(), kResiduals);
  p.residual_first = entry.at("residual_first").get<bool>();
  p.type = DType::BF16;
  p.out_type = entry.at("fp32_out").get<bool>() ? DType::F32 : p.type;
  if (entry.contains("then")) {
    p.then.c = number("then");
    p.then.act = choose("there is no activation", entry.at("then_act").get<std::string>(), kActivations);
    p.keep = entry.at("keep").get<bool>();
  }
  p = dense(p);
  layer.count = entry.at("variants").get<std::map<std::string, int>>();
  return layer;
}

}  // namespace

std::vector<Layer> layers_of_variants() {
  std::vector<Layer> layers;
  for (const auto convolutions : {dense_convolutions, convolution_pairs})
    for (const ModelSpec& spec : released_variants())
      for (const ConvProblem& planned : convolutions(spec, DType::BF16)) {
        const ConvProblem problem = dense(planned);
        auto layer = std::ranges::find(layers, problem, &Layer::problem);
        if (layer == layers.end()) layer = layers.insert(layer, {problem, {}});
        ++layer->count[spec.variant];
      }
  return layers;
}

std::string describe(const ConvProblem& p) {
  std::string text =
      fmt::format("{0}x{0} stride {1}, {2} x {3} x {4} to {5}", p.kernel, p.stride, p.in.c, p.in.h, p.in.w, p.out.c);
  const std::string act = p.act == Activation::None ? "" : fmt::format(" {}", name_of(p.act));
  const std::string residual = p.residual == Residual::None   ? ""
                               : p.residual == Residual::Same ? " residual"
                                                              : " half-size residual";
  const std::string end = p.residual_first ? residual + act : act + residual;
  if (!end.empty()) text += "," + end;
  if (p.out_type != p.type) text += ", fp32 out";
  if (p.then.c > 0)
    text += fmt::format("; then 1x1 to {}{}{}", p.then.c,
                        p.then.act == Activation::None ? "" : fmt::format(", {}", name_of(p.then.act)),
                        p.keep ? ", both stored" : "");
  return text;
}

std::string layers_to_json(const std::vector<Layer>& layers) {
  std::string text = "[\n";
  for (const Layer& layer : layers) {
    const ConvProblem& p = layer.problem;
    nlohmann::ordered_json entry;
    entry["kernel"] = p.kernel;
    entry["stride"] = p.stride;
    entry["height"] = p.in.h;
    entry["width"] = p.in.w;
    entry["in"] = p.in.c;
    entry["out"] = p.out.c;
    entry["act"] = name_of(p.act);
    entry["residual"] = name_of(p.residual);
    entry["residual_first"] = p.residual_first;
    entry["fp32_out"] = p.out_type == DType::F32;
    if (p.then.c > 0) {
      entry["then"] = p.then.c;
      entry["then_act"] = name_of(p.then.act);
      entry["keep"] = p.keep;
    }
    entry["variants"] = layer.count;
    text += fmt::format("  {}{}\n", entry.dump(), &layer == &layers.back() ? "" : ",");
  }
  return text + "]\n";
}

std::vector<Layer> layers_from_json(std::string_view text, std::string_view origin) {
  std::vector<Layer> layers;
  try {
    const nlohmann::json table = nlohmann::json::parse(text);
    for (const nlohmann::json& entry : table) layers.push_back(layer_from_json(entry));
  } catch (const nlohmann::json::exception& error) {
    throw Error("{}: {}", origin, error.what());
  } catch (const Error& error) {
    throw Error("{}: {}", origin, error.what());
  }
  return layers;
}

std::vector<Layer> read_layers(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("{}: cannot be read, expected the layer table of the repository", path);
  return layers_from_json(std::string(std::istreambuf_iterator<char>(file), {}), path);
}

ConvProblem with_batch(ConvProblem problem, int images) {
  problem.in.n = problem.out.n = images;
  return problem;
}

ConvProblem with_type(ConvProblem problem, DType type) {
  if (problem.out_type == problem.type) problem.out_type = type;
  problem.type = type;
  return problem;
}

}  // namespace damoyolo::cuda
