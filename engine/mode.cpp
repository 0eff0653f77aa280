#include "engine/mode.h"

#include <array>

#include "engine/core/choice.h"

namespace damoyolo {

constexpr std::array kModes{Mode::Default, Mode::ReduceOverhead, Mode::MaxAutotune};
constexpr std::array kKernelSources{KernelSource::Auto, KernelSource::Library, KernelSource::Own};

Mode mode_from_name(std::string_view name) { return choose("there is no mode", name, kModes); }

std::string_view name_of(Mode mode) {
  switch (mode) {
    case Mode::Default: return "default";
    case Mode::ReduceOverhead: return "reduce-overhead";
    case Mode::MaxAutotune: return "max-autotune";
  }
  return "?";
}

KernelSource kernel_source_from_name(std::string_view name) {
  return choose("there are no kernels", name, kKernelSources);
}

std::string_view name_of(KernelSource source) {
  switch (source) {
    case KernelSource::Auto: return "auto";
    case KernelSource::Library: return "library";
    case KernelSource::Own: return "own";
  }
  return "?";
}

}  // namespace damoyolo
