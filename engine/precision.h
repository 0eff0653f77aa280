// The arithmetic of the network, in the words of the command line.
#pragma once

#include <cstdint>
#include <string_view>

namespace damoyolo {

// Storage of weights and activations; sums, the head's outputs and everything after them are fp32 in all of them.
enum class Precision : std::uint8_t { Auto, Fp32, Bf16, Fp16 };

// "auto", "fp32", "bf16", "fp16"; throws Error for anything else.
Precision precision_from_name(std::string_view name);
std::string_view name_of(Precision precision);

}  // namespace damoyolo
