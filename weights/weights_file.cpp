#include "weights/weights_file.h"

#include <nlohmann/json.hpp>

#include "engine/core/error.h"
#include "engine/model/build.h"
#include "weights/checkpoint.h"
#include "weights/in_quotes.h"
#include "weights/listing.h"

namespace damoyolo {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "damoyolo", kVersion = "1";

[[noreturn]] void refuse_checkpoint(const std::string& path) {
  throw Error(
      "{0}: is a training checkpoint and no weights file; make one with: damoyolo import {0} -o "
      "WEIGHTS.safetensors",
      path);
}

SafetensorsFile open(const std::string& path) {
  const CheckpointFormat format = recognise_format(MappedFile(path).bytes());
  if (format == CheckpointFormat::Safetensors) return SafetensorsFile(path);
  if (format == CheckpointFormat::Unknown)
    throw Error("{}: is no weights file; expected safetensors that `damoyolo import` wrote", path);
  refuse_checkpoint(path);
}

std::string_view metadata(const Safetensors& contents, std::string_view key) {
  const auto found = contents.metadata.find(key);
  return found == contents.metadata.end() ? std::string_view{} : found->second;
}

ModelSpec read_model(const Safetensors& contents, const std::string& path) {
  if (!is_weights_file(contents)) refuse_checkpoint(path);
  if (const auto version = metadata(contents, "format_version"); version != kVersion)
    throw Error("{}: is a weights file of version {}; this program reads version {}: import the checkpoint again",
                path, in_quotes(version), kVersion);
  const json entry = json::parse(metadata(contents, "model"), nullptr, /*allow_exceptions=*/false);
  if (!entry.is_object()) throw Error("{}: has no description of its model", path);
  const auto variant = entry.find("variant");
  if (variant == entry.end() || !variant->is_string()) throw Error("{}: does not name its variant", path);
  return spec_from_json(entry, variant->get_ref<const std::string&>(), path);
}

const TensorView& find(const Safetensors& contents, std::string_view name, const std::string& path) {
  const auto found = contents.tensors.find(name);
  if (found == contents.tensors.end()) throw Error("{}: tensor {} is missing", path, in_quotes(name));
  return found->second;
}

void check_tensor(const Safetensors& contents, const std::string& name, DType dtype,
                  const std::vector<std::int64_t>& shape, const std::string& path) {
  const TensorView& tensor = find(contents, name, path);
  if (tensor.dtype != dtype || tensor.shape != shape)
    throw Error("{}: tensor {} is {} of {}; expected {} of {}", path, in_quotes(name), shape_text(tensor.shape),
                name_of(tensor.dtype), shape_text(shape), name_of(dtype));
}

}  // namespace

bool is_weights_file(const Safetensors& contents) { return metadata(contents, "format") == kFormat; }

WeightsFile::WeightsFile(const std::string& path)
    : path_(path),
      file_(open(path)),
      model_(read_model(file_.contents(), path)),
      source_sha256_(metadata(file_.contents(), "source_sha256")) {
  const Safetensors& contents = file_.contents();
  const auto sources = build_model(model_, 1, 64, 64).sources;
  dtype_ = tensor(sources.front().node + ".weight").dtype;
  if (dtype_ != DType::F32 && dtype_ != DType::BF16)
    throw Error("{}: has weights of type {}; expected F32 or BF16", path, name_of(dtype_));
  for (const ConvSource& source : sources) {
    check_tensor(contents, source.node + ".weight", dtype_,
                 {source.out, source.in_per_group, source.kernel, source.kernel}, path);
    check_tensor(contents, source.node + ".bias", DType::F32, {source.out}, path);
  }
}

const TensorView& WeightsFile::tensor(std::string_view name) const { return find(file_.contents(), name, path_); }

void WeightsFile::set_input_size(int height, int width) {
  if (height < 32 || width < 32 || height % 32 != 0 || width % 32 != 0)
    throw Error("a network size of {}x{} was asked for, expected positive multiples of 32", height, width);
  model_.input_height = height;
  model_.input_width = width;
}

void write_weights_file(const std::string& path, const ModelSpec& model, const std::string& source_sha256,
                        Safetensors contents) {
  contents.metadata = {
      {"format", std::string(kFormat)}, {"format_version", std::string(kVersion)}, {"source_sha256", source_sha256}};
  try {
    contents.metadata["model"] = spec_to_json(model).dump();
  } catch (const json::exception&) {
    throw Error("{}: cannot be written: a class name is not valid UTF-8", path);
  }
  write_safetensors(path, contents);
}

}  // namespace damoyolo
