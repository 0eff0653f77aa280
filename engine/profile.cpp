#include "engine/profile.h"

#include <random>

namespace damoyolo {

std::vector<std::uint8_t> noise(std::size_t bytes) {
  std::mt19937 bits(1);
  std::vector<std::uint8_t> result(bytes);
  for (std::uint8_t& byte : result) byte = static_cast<std::uint8_t>(bits() >> 24);
  return result;
}

}  // namespace damoyolo
