// What every kernel for a Convolution asks of it, checked on the host before a launch.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/conv.h"

namespace damoyolo::kernels {

// What the kernels expect and the convolution, its pointers' values aside, does not offer to this configuration; null:
// it offers everything. A residual is there when it has data.
const char* unmet_expectation(const Convolution& convolution, const ConvConfig& config);

// Whether the configuration is one of `configs`, but for its sharing and for a split of at most `most`.
bool is_listed(const ConvConfig& config, std::span<const ConvConfig> configs, int most);

// What a split needs where each share of each tile keeps its m × n sums in the workspace, in fp32.
ConvMemory memory_of_shares(const ConvConfig& config, std::int64_t tiles);

// Throws Error, which names `kernel`, unless the convolution offers everything, its pointers and the memory for the
// split included.
void require_convolution(const Convolution& convolution, const ConvConfig& config, const ConvMemory& memory,
                         const char* kernel);

}  // namespace damoyolo::kernels
