#include "engine/mode.h"

#include <array>

#include "engine/core/error.h"

namespace damoyolo {

constexpr std::array kModes{Mode::Default, Mode::ReduceOverhead, Mode::MaxAutotune};
constexpr std::array kKernelSources{KernelSource::Auto, KernelSource::Library, KernelSource::Own};

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

KernelSource kernel_source_from_name(std::string_view name) {
  for (const KernelSource source : kKernelSources)
    if (name_of(source) == name) return source;
  throw Error("there are no kernels \"{}\", expected auto, library or own", name);
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
