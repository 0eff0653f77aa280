#include "engine/device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <system_error>

#include "engine/core/error.h"
#ifdef DAMOYOLO_CUDA
#include "engine/cuda/backend.h"
#include "engine/cuda/device_runtime.h"
#endif

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

// BF16 tensor cores begin with 8.0; 7.5 has those for FP16 only.
DeviceChoice choose_gpu(const Gpu& gpu, Precision precision) {
  const std::string capability = fmt::format("compute capability {}.{}", gpu.major, gpu.minor);
  const bool has_bf16 = gpu.major >= 8, has_fp16 = has_bf16 || (gpu.major == 7 && gpu.minor >= 5);
  DeviceChoice choice{fmt::format("cuda:{}", gpu.index), precision, {}};
  if (precision == Precision::Auto) {
    choice.precision = has_bf16 ? Precision::Bf16 : has_fp16 ? Precision::Fp16 : Precision::Fp32;
    choice.reason = fmt::format("{}, because {} has {}", name_of(choice.precision), gpu.name, capability);
    return choice;
  }
  if (precision == Precision::Bf16 && !has_bf16)
    throw Error("bf16 was asked for, and {} has {}; expected auto, fp32{}", gpu.name, capability,
                has_fp16 ? " or fp16" : "");
  if (precision == Precision::Fp16 && !has_fp16)
    throw Error("fp16 was asked for, and {} has {}; expected auto or fp32", gpu.name, capability);
  choice.reason = fmt::format("{}, as asked", name_of(precision));
  return choice;
}

std::string describe(const Gpu& gpu) {
  return fmt::format("cuda:{} {}, compute capability {}.{}, {:.1f} GB, {} multiprocessors", gpu.index, gpu.name,
                     gpu.major, gpu.minor, static_cast<double>(gpu.memory_bytes) / 1e9, gpu.multiprocessors);
}

}  // namespace

DeviceChoice choose_device(std::string_view device, Precision precision, const GpuList& gpus,
                           const KernelFinder& find_kernels) {
  if (device == "cpu") {
    DeviceChoice choice = choose_cpu(precision);
    choice.reason = "cpu, as asked; " + choice.reason;
    return choice;
  }
  if (device == "auto") {
    if (!gpus.gpus.empty()) {
      DeviceChoice choice = choose_gpu(gpus.gpus.front(), precision);
      const Gpu& gpu = gpus.gpus.front();
      const GpuKernels kernels = find_kernels ? find_kernels(gpu) : find_gpu_kernels(gpu);
      if (choice.precision == Precision::Fp32 ? kernels.in_fp32 : kernels.in_16_bits) {
        choice.reason = fmt::format("{}, because there is a GPU; {}", choice.device, choice.reason);
        return choice;
      }
      const std::string why = fmt::format("nothing computes convolutions in {} on {} ({})", name_of(choice.precision),
                                          choice.device, fmt::join(kernels.report, "; "));
      choice = choose_cpu(precision);
      choice.reason = fmt::format("cpu, because {}; {}", why, choice.reason);
      return choice;
    }
    DeviceChoice choice = choose_cpu(precision);
    choice.reason = fmt::format("cpu, because {}; {}", gpus.why_none, choice.reason);
    return choice;
  }
  const std::optional<int> number = gpu_number(device);
  if (!number) throw Error("there is no device \"{}\", expected auto, cpu, cuda or cuda:N", device);
  if (gpus.gpus.empty()) throw Error("{} was asked for, and {}; expected auto or cpu", device, gpus.why_none);
  DeviceChoice choice = choose_gpu(gpu_at(gpus, *number), precision);
  choice.reason = fmt::format("{}, as asked; {}", choice.device, choice.reason);
  return choice;
}

std::optional<int> gpu_number(std::string_view device) {
  if (device == "cuda") return 0;
  if (!device.starts_with("cuda:")) return std::nullopt;
  device.remove_prefix(5);
  int number = -1;
  const auto [rest, error] = std::from_chars(device.data(), device.data() + device.size(), number);
  if (error != std::errc{} || rest != device.data() + device.size() || number < 0) return std::nullopt;
  return number;
}

const Gpu& gpu_at(const GpuList& gpus, int index) {
  for (const Gpu& gpu : gpus.gpus)
    if (gpu.index == index) return gpu;
  throw Error("there is no GPU {}, expected cuda:0 to cuda:{}", index, gpus.gpus.size() - 1);
}

#ifdef DAMOYOLO_CUDA
GpuList find_gpus() { return cuda::find_gpus(); }
GpuSoftware gpu_software(int index) { return cuda::software_of(index); }
GpuKernels find_gpu_kernels(const Gpu& gpu, KernelSource source) { return cuda::kernels_of(gpu, source); }
#else
GpuList find_gpus() { return {{}, "this build has no CUDA backend"}; }
GpuSoftware gpu_software(int) { return {}; }
GpuKernels find_gpu_kernels(const Gpu&, KernelSource) { return {}; }
#endif

std::vector<std::string> describe_gpus() {
  const GpuList list = find_gpus();
  if (list.gpus.empty()) return {list.why_none};
  std::vector<std::string> lines;
  for (const Gpu& gpu : list.gpus) lines.push_back(describe(gpu));
  return lines;
}

}  // namespace damoyolo
