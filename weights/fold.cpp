#include "weights/fold.h"

#include <cmath>
#include <string>

namespace damoyolo {
namespace {

constexpr double kNormEps = 1e-3;

class Folder {
 public:
  Folder(const ConvSource& source, const TensorIndex& tensors) : source_(source), tensors_(tensors) {}

  FoldedConv conv_bn(const std::string& conv, const std::string& bn) const {
    const Norm norm = read_norm(bn);
    FoldedConv folded{floats(conv + ".weight"), {}};
    const std::size_t taps = folded.weight.size() / out();
    for (std::size_t o = 0; o < out(); ++o) {
      for (std::size_t i = o * taps; i < (o + 1) * taps; ++i)
        folded.weight[i] = static_cast<float>(folded.weight[i] * norm.factor[o]);
      folded.bias.push_back(static_cast<float>(norm.offset[o]));
    }
    return folded;
  }

  FoldedConv rep_conv() const {
    const std::string dense = source_.conv + ".rbr_dense", point = source_.conv + ".rbr_1x1";
    const Norm dense_norm = read_norm(dense + ".bn"), point_norm = read_norm(point + ".bn");
    const std::vector<float> centre = floats(point + ".conv.weight");
    FoldedConv folded{floats(dense + ".conv.weight"), {}};
    const auto area = static_cast<std::size_t>(source_.kernel) * static_cast<std::size_t>(source_.kernel);
    const std::size_t taps = folded.weight.size() / out();
    for (std::size_t o = 0; o < out(); ++o) {
      for (std::size_t i = o * taps; i < (o + 1) * taps; ++i) {
        double value = folded.weight[i] * dense_norm.factor[o];
        if (i % area == area / 2) value += centre[i / area] * point_norm.factor[o];
        folded.weight[i] = static_cast<float>(value);
      }
      folded.bias.push_back(static_cast<float>(dense_norm.offset[o] + point_norm.offset[o]));
    }
    return folded;
  }

  FoldedConv biased(const std::string& conv) const {
    FoldedConv folded{floats(conv + ".weight"), floats(conv + ".bias")};
    const int taps = source_.in_per_group * source_.kernel * source_.kernel;
    folded.weight.resize(out() * static_cast<std::size_t>(taps));
    folded.bias.resize(out());
    if (!source_.scale.empty()) {
      const double scale = floats(source_.scale).front();
      for (auto* values : {&folded.weight, &folded.bias})
        for (float& value : *values) value = static_cast<float>(value * scale);
    }
    return folded;
  }

 private:
  // A BatchNorm as what it does: x·factor + offset.
  struct Norm {
    std::vector<double> factor, offset;
  };

  std::size_t out() const { return static_cast<std::size_t>(source_.out); }

  std::vector<float> floats(const std::string& name) const { return to_floats(*tensors_.at(name)); }

  Norm read_norm(const std::string& module) const {
    const auto gamma = floats(module + ".weight"), beta = floats(module + ".bias");
    const auto mean = floats(module + ".running_mean"), variance = floats(module + ".running_var");
    Norm norm;
    for (std::size_t i = 0; i < gamma.size(); ++i) {
      norm.factor.push_back(gamma[i] / std::sqrt(variance[i] + kNormEps));
      norm.offset.push_back(beta[i] - mean[i] * norm.factor[i]);
    }
    return norm;
  }

  const ConvSource& source_;
  const TensorIndex& tensors_;
};

}  // namespace

FoldedConv fold(const ConvSource& source, const TensorIndex& tensors) {
  const Folder folder(source, tensors);
  switch (source.kind) {
    case ConvSource::Kind::ConvBn: return folder.conv_bn(source.conv, source.bn);
    case ConvSource::Kind::RepConv:
      return is_deployed(tensors, source.conv) ? folder.biased(source.conv + ".rbr_reparam") : folder.rep_conv();
    case ConvSource::Kind::Biased: break;
  }
  return folder.biased(source.conv);
}

}  // namespace damoyolo
