// Which device and precision to use, and why.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/precision.h"

namespace damoyolo {

// What "auto" came to, in words for a person.
struct DeviceChoice {
  std::string device;     // "cpu" or "cuda:N"
  Precision precision{};  // never Auto
  std::string reason;     // "cpu: …; bf16: …"
};

// `device`: "auto", "cpu", "cuda" or "cuda:N". Throws Error when the asked device or precision is not there, saying
// what is.
DeviceChoice choose_device(std::string_view device, Precision precision);

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
