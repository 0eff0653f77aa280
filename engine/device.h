// Which device and precision to use, and why.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/mode.h"
#include "engine/precision.h"

namespace damoyolo {

// What "auto" came to, in words for a person.
struct DeviceChoice {
  std::string device;     // "cpu" or "cuda:N"
  Precision precision{};  // never Auto
  std::string reason;     // "cpu: …; bf16: …"
};

// One GPU.
struct Gpu {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;      // compute capability
  std::size_t memory_bytes = 0;  // in all
  int multiprocessors = 0;
  int driver = 0, runtime = 0;  // CUDA versions, 1000·major + 10·minor
};

// The GPUs that can be used; when there are none, why.
struct GpuList {
  std::vector<Gpu> gpus;
  std::string why_none;  // "this build has no CUDA backend"
};
GpuList find_gpus();

// What computes dense convolutions on a GPU.
struct GpuKernels {
  std::vector<std::string> report;  // a line for each: "cuDNN 9.13.0: /usr/lib/libcudnn.so.9", "cuDNN: not found"
  bool in_fp32 = false, in_16_bits = false;
};
// Opens the libraries; touches no device.
GpuKernels find_gpu_kernels(const Gpu& gpu, KernelSource source = KernelSource::Auto);

using KernelFinder = std::function<GpuKernels(const Gpu&)>;

// `device`: "auto", "cpu", "cuda" or "cuda:N". "auto" takes the first GPU when there is one on which something
// computes in the precision, and fp16 or bf16 by what the device has instructions for. Throws Error when the asked
// device or precision is not there, saying what is. find_kernels: asked for that GPU; null: find_gpu_kernels().
DeviceChoice choose_device(std::string_view device, Precision precision, const GpuList& gpus = find_gpus(),
                           const KernelFinder& find_kernels = {});

// N of "cuda:N", 0 of "cuda", nothing of any other device.
std::optional<int> gpu_number(std::string_view device);
// The GPU of that number; throws Error when it is not there.
const Gpu& gpu_at(const GpuList& gpus, int index);

// Versions of what a GPU is used through; empty where there is none.
struct GpuSoftware {
  std::string driver, cuda, cudnn;  // "580.65.06", "13.0", "9.13.0"
};
// On the GPU of that number; opens the libraries.
GpuSoftware gpu_software(int index);

// The processor as the CPU backend sees it.
struct CpuDescription {
  std::string name;                           // "Intel(R) Xeon(R) Platinum 8481C"
  std::vector<std::string> instruction_sets;  // of those that matter here: "avx2", "avx512f", "amx_bf16", …
  std::string onednn_version, onednn_isa;     // "2.6.3", the instruction set oneDNN generates code for
  int threads = 0;                            // that the process may use
  bool bf16 = false;                          // has instructions for bf16 products
};
CpuDescription describe_cpu();

// One line per GPU, or one that says why there is none.
std::vector<std::string> describe_gpus();

}  // namespace damoyolo
