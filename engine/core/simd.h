// Loops that the compiler vectorises for the processor the program finds itself on.
#pragma once

#include <bit>
#include <cstdint>

// Put before a function: it is compiled once per instruction set, and the dynamic linker picks. Sanitizers run before
// the linker's choice could, so they get the portable version.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define DAMOYOLO_SIMD __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DAMOYOLO_SIMD
#endif

namespace damoyolo {

// eˣ to two units in the last place, without branches so that loops of it vectorise: x = n·ln 2 + r with |r| ≤ ln 2 /
// 2, a polynomial for e^r (the minimax coefficients are those of the Cephes library's expf), and n added to the
// exponent. Arguments are limited to where the result is a normal number.
inline float exp_of(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.f;  // 1.5·2²³: adding it leaves an integer in the lowest bits
  x = x > 88.f ? 88.f : x;
  x = x < -87.f ? -87.f : x;
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  // The low bits of `shifted` are n; unsigned, because a NaN's are anything.
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
}

}  // namespace damoyolo
