// What the processor can do.

#include <fmt/format.h>
#include <omp.h>

#include <fstream>
#include <oneapi/dnnl/dnnl.hpp>

#include "engine/device.h"

namespace damoyolo {
namespace {

// The first line of /proc/cpuinfo with this key, without the key.
std::string cpuinfo(std::string_view key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key))
      if (const auto colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return {};
}

std::string_view name_of_isa(dnnl::cpu_isa isa) {
  switch (isa) {
    case dnnl::cpu_isa::sse41: return "sse41";
    case dnnl::cpu_isa::avx: return "avx";
    case dnnl::cpu_isa::avx2: return "avx2";
    case dnnl::cpu_isa::avx2_vnni: return "avx2_vnni";
    case dnnl::cpu_isa::avx512_core: return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni: return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16: return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_amx: return "avx512_core_amx";
    default: return "other";
  }
}

}  // namespace

CpuDescription describe_cpu() {
  CpuDescription cpu;
  cpu.name = cpuinfo("model name");
  if (cpu.name.empty()) cpu.name = "unknown";
  const std::string flags = " " + cpuinfo("flags") + " ";
  for (const char* set : {"avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16"})
    if (flags.find(fmt::format(" {} ", set)) != std::string::npos) cpu.instruction_sets.emplace_back(set);
  const dnnl_version_t& version = *dnnl_version();
  cpu.onednn_version = fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  cpu.onednn_isa = name_of_isa(isa);
  cpu.threads = omp_get_max_threads();
  cpu.bf16 = isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
#if DNNL_VERSION_MAJOR >= 3
  cpu.bf16 = cpu.bf16 || isa == dnnl::cpu_isa::avx512_core_fp16 || isa == dnnl::cpu_isa::avx512_core_amx_fp16;
#endif
  return cpu;
}

}  // namespace damoyolo
