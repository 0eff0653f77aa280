#include "engine/mode.h"

#include <array>

#include "engine/core/error.h"

namespace damoyolo {

constexpr std::array kModes{Mode::Default, Mode::ReduceOverhead, Mode::MaxAutotune};

Mode mode_from_name(std::string_view name) {
  for (const Mode mode : kModes)
    if (name_of(mode) == name) return mode;
  throw Error("there is no mode \"{}\", expected default, reduce-overhead or max-autotune", name);
}

std::string_view name_of(Mode mode) {
  switch (mode) {
    case Mode::Default: return "default";
    case Mode::ReduceOverhead: return "reduce-overhead";
    case Mode::MaxAutotune: return "max-autotune";
  }
  return "?";
}

}  // namespace damoyolo
