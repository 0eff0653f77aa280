#include "weights/listing.h"

#include <algorithm>

namespace damoyolo {

std::string list_of(std::span<const std::string> names, std::size_t most) {
  std::string text;
  for (const std::string& name : names.first(std::min(names.size(), most))) {
    if (!text.empty()) text += ", ";
    text += name;
  }
  if (names.size() > most) text += ", …";
  return text;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (const std::int64_t size : shape) {
    if (!text.empty()) text += 'x';
    text += std::to_string(size);
  }
  return text;
}

}  // namespace damoyolo
