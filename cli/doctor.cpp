#include <fmt/ostream.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/text.h"
#include "engine/device.h"

namespace damoyolo::cli {
namespace {

std::uintmax_t pages(int which) {
  const long count = ::sysconf(which), size = ::sysconf(_SC_PAGESIZE);
  return count > 0 && size > 0 ? static_cast<std::uintmax_t>(count) * static_cast<std::uintmax_t>(size) : 0;
}

int doctor(const std::string& device, Console& console) {
  const auto row = [&console](std::string_view label, std::string_view text) {
    fmt::print(console.out, "{:<18}{}\n", label, text);
  };
  const CpuDescription cpu = describe_cpu();
  row("processor", cpu.name);
  row("instruction sets", cpu.instruction_sets.empty() ? "none of those that matter here"
                                                       : fmt::format("{}", fmt::join(cpu.instruction_sets, " ")));
  row("threads", fmt::format("{} of {}", cpu.threads, ::sysconf(_SC_NPROCESSORS_ONLN)));
  row("memory", fmt::format("{}, {} free", bytes_text(pages(_SC_PHYS_PAGES)), bytes_text(pages(_SC_AVPHYS_PAGES))));
  row("oneDNN", fmt::format("{}, generates code for {}", cpu.onednn_version, cpu.onednn_isa));
  row("bf16 on the CPU", cpu.bf16 ? "yes" : "no: the processor has no instructions for it");
  for (const std::string& gpu : describe_gpus()) row("GPU", gpu);
  if (const GpuList list = find_gpus(); !list.gpus.empty())
    for (const std::string& kernels : find_gpu_kernels(list.gpus.front()).report) row("convolutions", kernels);
  row(device + " chooses", choose_device(device, Precision::Auto).reason);
  return 0;
}

}  // namespace

Action add_doctor(CLI::App& command) {
  const auto device = std::make_shared<std::string>("auto");
  add_device_option(command, *device);
  return [device](Console& console) { return doctor(*device, console); };
}

}  // namespace damoyolo::cli
