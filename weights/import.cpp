#include "weights/import.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <span>
#include <tuple>

#include "engine/core/error.h"
#include "engine/core/rounding.h"
#include "engine/model/build.h"
#include "weights/fold.h"
#include "weights/listing.h"
#include "weights/recognise.h"
#include "weights/safetensors.h"
#include "weights/sha256.h"
#include "weights/weights_file.h"

namespace damoyolo {
namespace {

std::vector<ModelSpec> candidates(const ImportOptions& options) {
  if (options.structure) return {*options.structure};
  if (options.variant == "auto") return released_variants();
  return {released_variant(options.variant)};
}

// How many of the score channels are classes.
int count_classes(const ImportOptions& options, int channels, const std::string& in) {
  std::optional<int> stated = options.classes;
  if (!options.class_names.empty()) {
    const int names = static_cast<int>(options.class_names.size());
    if (stated && *stated != names) throw Error("{} classes were asked for, and {} class names given", *stated, names);
    stated = names;
  }
  const int classes = stated.value_or(options.legacy ? channels - 1 : channels);
  const bool fits = classes == channels - 1 || (classes == channels && !options.legacy);
  if (!fits || classes < 1)
    throw Error(
        "{}: wrong class count: {} given, and the checkpoint has {} score channels, so {} or, for a legacy "
        "checkpoint, {} expected",
        in, classes, channels, channels, channels - 1);
  return classes;
}

void set_input_size(const ImportOptions& options, ModelSpec& model) {
  if (!options.size) return;
  constexpr int kStep = 32, kLargest = 16384;
  for (const int side : {options.size->first, options.size->second})
    if (side < kStep || side > kLargest || side % kStep != 0)
      throw Error("network size {}x{} is unusable; expected height and width to be multiples of {} up to {}",
                  options.size->first, options.size->second, kStep, kLargest);
  std::tie(model.input_height, model.input_width) = *options.size;
}

// The head's integral is computed with the bins 0, 1, …, reg_max; a checkpoint may carry them, with the rounding of
// torch.linspace.
void check_bins(const TensorIndex& tensors, const ModelSpec& model, const std::string& in) {
  const auto found = tensors.find("head.integral.project");
  if (found == tensors.end()) return;
  const auto bins = to_floats(*found->second);
  bool good = bins.size() == static_cast<std::size_t>(model.head.reg_max) + 1;
  for (std::size_t i = 0; good && i < bins.size(); ++i) good = std::abs(bins[i] - static_cast<float>(i)) < 1e-4f;
  if (!good) throw Error("{}: head.integral.project is not 0, 1, …, {}", in, model.head.reg_max);
}

std::vector<std::byte> encode(std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  if (dtype == DType::F32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
  } else {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t bits = bf16_from_float(values[i]);
      std::memcpy(bytes.data() + i * sizeof bits, &bits, sizeof bits);
    }
  }
  return bytes;
}

// Collects the tensors of the weights file.
class Output {
 public:
  void add(std::string name, std::vector<std::int64_t> shape, std::span<const float> values, DType dtype) {
    if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) not_finite_.push_back(name);
    elements_ += static_cast<std::int64_t>(values.size());
    const auto& bytes = storage_.emplace_back(encode(values, dtype));
    contents_.tensors[std::move(name)] = {.dtype = dtype, .shape = std::move(shape), .bytes = bytes};
  }

  Safetensors& contents() { return contents_; }
  std::int64_t elements() const { return elements_; }
  const std::vector<std::string>& not_finite() const { return not_finite_; }

 private:
  Safetensors contents_;
  std::deque<std::vector<std::byte>> storage_;
  std::int64_t elements_ = 0;
  std::vector<std::string> not_finite_;
};

void count_layer(const ConvSource& source, const TensorIndex& tensors, ImportReport& report) {
  if (source.kind == ConvSource::Kind::ConvBn) {
    report.batch_norms_folded += 1;
  } else if (source.kind == ConvSource::Kind::RepConv) {
    const bool deployed = is_deployed(tensors, source.conv);
    report.rep_convs_deployed += deployed ? 1 : 0;
    report.rep_convs_merged += deployed ? 0 : 1;
    report.batch_norms_folded += deployed ? 0 : 2;
  }
}

void warn_of_non_finite(const std::vector<std::string>& names, ImportReport& report) {
  constexpr std::size_t kMostNamed = 4;
  if (names.empty()) return;
  report.warnings.push_back(fmt::format("{} of {} tensors hold NaN or infinite values: {}", names.size(),
                                        report.tensors, list_of(names, kMostNamed)));
}

}  // namespace

ImportReport import_checkpoint(const std::string& in, const std::string& out, const ImportOptions& options) {
  if (options.dtype != DType::F32 && options.dtype != DType::BF16)
    throw Error("weights cannot be stored as {}; expected F32 or BF16", name_of(options.dtype));
  const CheckpointFile file(in);
  if (file.contents().format == CheckpointFormat::Safetensors && is_weights_file(parse_safetensors(file.bytes(), in)))
    throw Error("{}: is a weights file already; use it as it is, or import the checkpoint that it was made from", in);
  const TensorIndex tensors = index_tensors(file.contents(), in);
  auto digest = std::async(std::launch::async, [&] { return sha256(file.bytes()); });

  ImportReport report;
  report.format = file.contents().format;
  report.nesting = file.contents().nesting;
  report.prefix = file.contents().prefix;
  report.model = recognise(tensors, candidates(options), in);
  ModelSpec& model = report.model;
  for (const ExpectedTensor& tensor : expected_tensors(build_model(model, 1, 64, 64).sources, tensors))
    if (tensor.learned) report.parameters_before += tensors.at(tensor.name)->elements();
  const int channels = model.head.classes;
  model.head.classes = count_classes(options, channels, in);
  report.dropped_score_channel = model.head.classes != channels;
  model.class_names = options.class_names;
  set_input_size(options, model);
  check_bins(tensors, model, in);

  Output output;
  const BuiltModel built = build_model(model, 1, 64, 64);
  for (const ConvSource& source : built.sources) {
    FoldedConv conv = fold(source, tensors);
    if (options.dtype == DType::BF16 &&
        reads_pixels(built.graph, *std::ranges::find(built.graph.nodes, source.node, &Node::name)))
      round_keeping_sums(conv.weight, conv.weight.size() / conv.bias.size());
    output.add(source.node + ".weight", {source.out, source.in_per_group, source.kernel, source.kernel}, conv.weight,
               options.dtype);
    output.add(source.node + ".bias", {source.out}, conv.bias, DType::F32);
    count_layer(source, tensors, report);
  }
  report.parameters_after = output.elements();
  report.tensors = static_cast<int>(output.contents().tensors.size());
  warn_of_non_finite(output.not_finite(), report);

  report.source_sha256 = digest.get();
  write_weights_file(out, model, report.source_sha256, output.contents());
  report.output_bytes = std::filesystem::file_size(out);
  return report;
}

}  // namespace damoyolo
