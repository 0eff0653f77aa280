#include "engine/device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/core/error.h"

namespace damoyolo {
namespace {

DeviceChoice choose_cpu(Precision precision) {
  const CpuDescription cpu = describe_cpu();
  DeviceChoice choice{"cpu", precision, {}};
  switch (precision) {
    case Precision::Auto:
      choice.precision = cpu.bf16 ? Precision::Bf16 : Precision::Fp32;
      choice.reason = cpu.bf16
                          ? fmt::format("bf16, because the processor has instructions for it ({})", cpu.onednn_isa)
                          : fmt::format("fp32, because the processor has no bf16 instructions ({})", cpu.onednn_isa);
      break;
    case Precision::Fp32: choice.reason = "fp32, as asked"; break;
    case Precision::Bf16:
      if (!cpu.bf16)
        throw Error("bf16 was asked for, and this processor ({}) has no instructions for it; expected auto or fp32",
                    cpu.onednn_isa);
      choice.reason = "bf16, as asked";
      break;
    case Precision::Fp16: throw Error("the CPU backend has no fp16, expected auto, fp32 or bf16");
  }
  return choice;
}

}  // namespace

DeviceChoice choose_device(std::string_view device, Precision precision) {
  if (device == "cpu") {
    DeviceChoice choice = choose_cpu(precision);
    choice.reason = "cpu, as asked; " + choice.reason;
    return choice;
  }
  if (device == "auto") {
    DeviceChoice choice = choose_cpu(precision);
    choice.reason = fmt::format("cpu, because {}; {}", fmt::join(describe_gpus(), ", "), choice.reason);
    return choice;
  }
  if (device == "cuda" || device.starts_with("cuda:"))
    throw Error("{} was asked for, and {}; expected auto or cpu", device, fmt::join(describe_gpus(), ", "));
  throw Error("there is no device \"{}\", expected auto, cpu, cuda or cuda:N", device);
}

std::vector<std::string> describe_gpus() { return {"this build has no CUDA backend"}; }

}  // namespace damoyolo
