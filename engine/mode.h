// How a plan is made and run, in the words of the command line.
#pragma once

#include <cstdint>
#include <string_view>

namespace damoyolo {

// On a GPU; a CPU has one way.
enum class Mode : std::uint8_t {
  Default,         // kernels chosen by heuristics, launched one by one
  ReduceOverhead,  // the same, captured once and replayed
  MaxAutotune,     // captured, each convolution by the candidate that was fastest on its shape
};

// "default", "reduce-overhead", "max-autotune"; throws Error for anything else.
Mode mode_from_name(std::string_view name);
std::string_view name_of(Mode mode);

// Whose kernels compute dense convolutions on a GPU.
enum class KernelSource : std::uint8_t {
  Auto,     // the libraries', and our own where there are none; max-autotune times both
  Library,  // cuDNN's and cuBLASLt's
  Own,      // our own, which need 16-bit tensors
};

// "auto", "library", "own"; throws Error for anything else.
KernelSource kernel_source_from_name(std::string_view name);
std::string_view name_of(KernelSource source);

// On a GPU: streams on which branches of the network run side by side.
inline constexpr int kMaxStreams = 4;

}  // namespace damoyolo
