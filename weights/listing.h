// Names and shapes as messages show them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace damoyolo {

// "a, b, c", and "…" for what is beyond `most`.
std::string list_of(std::span<const std::string> names, std::size_t most);

// "24x12x3x3"; "scalar" for no dimensions.
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace damoyolo
