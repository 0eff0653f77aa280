#include "cli/roofline.h"

#include <fmt/format.h>

#include <algorithm>

namespace damoyolo::cli {
namespace {

double product_flops(std::string_view precision, const Ceilings& ceilings) {
  if (precision == "bf16") return ceilings.bf16_flops;
  if (precision == "fp16") return ceilings.fp16_flops;
  if (precision == "tf32") return ceilings.tf32_flops;
  return ceilings.fp32_flops;
}

}  // namespace

std::optional<double> floor_seconds(const StepTime& step, std::string_view precision, const Ceilings& ceilings) {
  const double flops = product_flops(precision, ceilings), bytes = ceilings.copy_bytes_per_second;
  if (bytes <= 0 || (step.flops > 0 && flops <= 0)) return std::nullopt;
  const double moving = static_cast<double>(step.bytes) / bytes;
  return step.flops > 0 ? std::max(moving, static_cast<double>(step.flops) / flops) : moving;
}

std::string_view stage_of(std::string_view node) {
  for (const std::string_view stage : {"backbone", "neck", "head", "results"})
    if (node.starts_with(stage)) return stage;
  return "input";
}

std::string operation_text(const StepTime& step) {
  if (step.operation != "conv") return step.operation;
  return fmt::format("{} {}x{}{}{}", step.groups > 1 ? "depthwise" : "conv", step.kernel_size, step.kernel_size,
                     step.stride > 1 ? fmt::format("/{}", step.stride) : "", step.pair ? " + 1x1" : "");
}

}  // namespace damoyolo::cli
