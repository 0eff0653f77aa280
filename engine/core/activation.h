// The activation functions of the released models: none, max(x, 0), x·sigmoid(x).
#pragma once

#include <cmath>
#include <string_view>

namespace damoyolo {

enum class Activation { None, Relu, Silu };

constexpr std::string_view name_of(Activation act) {
  switch (act) {
    case Activation::None: return "none";
    case Activation::Relu: return "relu";
    case Activation::Silu: return "silu";
  }
  return "?";
}

// What every implementation is compared with.
template <typename Real>
Real activated(Real x, Activation act) {
  switch (act) {
    case Activation::None: return x;
    case Activation::Relu: return x < 0 ? 0 : x;
    case Activation::Silu: return x / (1 + std::exp(-x));
  }
  return x;
}

}  // namespace damoyolo
