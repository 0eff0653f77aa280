#include "weights/recognise.h"

#include <fmt/format.h>

#include <limits>
#include <optional>
#include <set>

#include "engine/core/error.h"
#include "weights/in_quotes.h"
#include "weights/listing.h"

namespace damoyolo {
namespace {

using Shape64 = std::vector<std::int64_t>;

bool carries_no_weights(std::string_view name) {
  return name.ends_with(".num_batches_tracked") || name == "head.integral.project";
}

struct Mismatch {
  std::vector<std::string> missing, extra, misshapen;
  std::size_t expected = 0;

  std::size_t count() const { return missing.size() + extra.size() + misshapen.size(); }
};

// A learned scalar may be saved with or without a dimension.
bool same_shape(const Shape64& expected, const Shape64& found) {
  return expected == found || (expected.empty() && found == Shape64{1});
}

Mismatch compare(const std::vector<ExpectedTensor>& expected, const TensorIndex& tensors) {
  Mismatch mismatch;
  mismatch.expected = expected.size();
  std::set<std::string_view> known;
  for (const ExpectedTensor& want : expected) {
    known.insert(want.name);
    const auto found = tensors.find(want.name);
    if (found == tensors.end())
      mismatch.missing.push_back(fmt::format("{} ({})", want.name, shape_text(want.shape)));
    else if (!same_shape(want.shape, found->second->shape))
      mismatch.misshapen.push_back(
          fmt::format("{} ({}, expected {})", want.name, shape_text(found->second->shape), shape_text(want.shape)));
  }
  for (const auto& [name, tensor] : tensors)
    if (!known.contains(name) && !carries_no_weights(name))
      mismatch.extra.push_back(fmt::format("{} ({})", in_quotes(name), shape_text(tensor->shape)));
  return mismatch;
}

std::string describe(const std::vector<std::string>& tensors, std::string_view what) {
  constexpr std::size_t kMostNamed = 8;
  if (tensors.empty()) return {};
  return fmt::format("; {} {}: {}", tensors.size(), what, list_of(tensors, kMostNamed));
}

[[noreturn]] void refuse(const Mismatch& mismatch, const ModelSpec& nearest, std::string_view origin) {
  if (2 * mismatch.missing.size() > mismatch.expected)
    throw Error("{}: is no DAMO-YOLO state dict: of the {} tensors of the nearest structure, {}, it lacks {}", origin,
                mismatch.expected, nearest.variant, mismatch.missing.size());
  throw Error("{}: is nearly a state dict of structure {}, but not quite{}{}{}", origin, nearest.variant,
              describe(mismatch.missing, "missing"), describe(mismatch.extra, "extra"),
              describe(mismatch.misshapen, "misshapen"));
}

// The channels of the first score convolution; without one, any number will do to report that it is missing.
int score_channels(const TensorIndex& tensors, int fallback) {
  constexpr std::int64_t kMost = 65536;
  const auto found = tensors.find("head.gfl_cls.0.weight");
  if (found == tensors.end() || found->second->shape.size() != 4) return fallback;
  const std::int64_t channels = found->second->shape[0];
  return channels >= 1 && channels <= kMost ? static_cast<int>(channels) : fallback;
}

}  // namespace

TensorIndex index_tensors(const Checkpoint& checkpoint, std::string_view origin) {
  TensorIndex index;
  for (const CheckpointTensor& tensor : checkpoint.tensors)
    if (!index.emplace(tensor.name, &tensor).second)
      throw Error("{}: has two tensors named {}", origin, in_quotes(tensor.name));
  return index;
}

bool is_deployed(const TensorIndex& tensors, std::string_view module) {
  return tensors.contains(std::string(module) + ".rbr_reparam.weight");
}

std::vector<ExpectedTensor> expected_tensors(const std::vector<ConvSource>& sources, const TensorIndex& tensors) {
  std::vector<ExpectedTensor> result;
  for (const ConvSource& source : sources) {
    const auto add = [&](const std::string& name, Shape64 shape) { result.push_back({name, std::move(shape)}); };
    const auto add_conv = [&](const std::string& module, int kernel) {
      add(module + ".weight", {source.out, source.in_per_group, kernel, kernel});
    };
    const auto add_vector = [&](const std::string& name) { add(name, {source.out}); };
    const auto add_norm = [&](const std::string& module) {
      add_vector(module + ".weight");
      add_vector(module + ".bias");
      result.push_back({module + ".running_mean", {source.out}, false});
      result.push_back({module + ".running_var", {source.out}, false});
    };
    switch (source.kind) {
      case ConvSource::Kind::ConvBn:
        add_conv(source.conv, source.kernel);
        add_norm(source.bn);
        break;
      case ConvSource::Kind::RepConv:
        if (is_deployed(tensors, source.conv)) {
          add_conv(source.conv + ".rbr_reparam", source.kernel);
          add_vector(source.conv + ".rbr_reparam.bias");
        } else {
          add_conv(source.conv + ".rbr_dense.conv", source.kernel);
          add_norm(source.conv + ".rbr_dense.bn");
          add_conv(source.conv + ".rbr_1x1.conv", 1);
          add_norm(source.conv + ".rbr_1x1.bn");
        }
        break;
      case ConvSource::Kind::Biased:
        add_conv(source.conv, source.kernel);
        add_vector(source.conv + ".bias");
        if (!source.scale.empty()) add(source.scale, {});
        break;
    }
  }
  return result;
}

ModelSpec recognise(const TensorIndex& tensors, std::span<const ModelSpec> candidates, std::string_view origin) {
  Mismatch least;
  std::optional<ModelSpec> nearest;
  for (ModelSpec candidate : candidates) {
    candidate.head.classes = score_channels(tensors, candidate.head.classes);
    candidate.head.legacy = false;
    const auto sources = build_model(candidate, 1, 64, 64).sources;
    Mismatch mismatch = compare(expected_tensors(sources, tensors), tensors);
    if (mismatch.count() == 0) return candidate;
    if (nearest && mismatch.count() >= least.count()) continue;
    least = std::move(mismatch);
    nearest = std::move(candidate);
  }
  if (!nearest) throw Error("{}: there is no structure to compare it with", origin);
  refuse(least, *nearest, origin);
}

}  // namespace damoyolo
