// Bytes and numbers that are a function of a name alone, so that the goldens' inputs need not be stored: element i of
// the tensor named s comes from splitmix64's output i + 1 after the seed FNV-1a-64(s).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace damoyolo {

constexpr std::uint64_t fnv1a64(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Flat index i, from 0, of the tensor whose name hashes to `seed`.
constexpr std::uint64_t golden_bits(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

// Uniform in [0, 1), exact in float32.
constexpr float golden_uniform(std::uint64_t seed, std::uint64_t i) {
  return static_cast<float>(golden_bits(seed, i) >> 40) / static_cast<float>(1 << 24);
}

inline std::vector<std::uint8_t> golden_bytes(std::string_view name, std::size_t count) {
  const std::uint64_t seed = fnv1a64(name);
  std::vector<std::uint8_t> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(golden_bits(seed, i) >> 56);
  return bytes;
}

}  // namespace damoyolo
