// The activation functions of the released models: none, max(x, 0), x·sigmoid(x).
#pragma once

namespace damoyolo {

enum class Activation { None, Relu, Silu };

}  // namespace damoyolo
