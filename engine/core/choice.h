// Words of the command line and of files that stand for one of a few values.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "engine/core/error.h"

namespace damoyolo {

// The one of `choices` whose name_of() is `name`. Throws Error when there is none: "`what` "NAME", expected A, B or
// C".
template <typename T, std::size_t N>
T choose(std::string_view what, std::string_view name, const std::array<T, N>& choices) {
  std::string known;
  for (std::size_t i = 0; i < N; ++i) {
    const std::string_view one = name_of(choices[i]);
    if (one == name) return choices[i];
    known += i == 0 ? "" : i + 1 < N ? ", " : " or ";
    known += one;
  }
  throw Error("{} \"{}\", expected {}", what, name, known);
}

}  // namespace damoyolo
