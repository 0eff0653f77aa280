// What a step of a plan could take at best, and where in the network it belongs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/ceilings.h"
#include "engine/profile.h"

namespace damoyolo::cli {

// The larger of the step's operations over the rate of products in that precision ("fp32", "tf32", "bf16", "fp16"),
// and its bytes over the rate of copies: Williams, Waterman, Patterson, "Roofline" (2009). None where a ceiling that
// it needs was not measured.
std::optional<double> floor_seconds(const StepTime& step, std::string_view precision, const Ceilings& ceilings);

// "input", "backbone", "neck", "head" or "results", by the name of its node.
std::string_view stage_of(std::string_view node);

// "conv 3x3/2", "conv 3x3 + 1x1", "depthwise 5x5", "spp_pool".
std::string operation_text(const StepTime& step);

}  // namespace damoyolo::cli
