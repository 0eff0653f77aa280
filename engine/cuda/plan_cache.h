// Which kernel was fastest for each convolution and each pair of them, kept on disk from one process to the next.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace damoyolo::cuda {

// Everything that the choice depends on. Files with another key are not looked at.
struct PlanKey {
  std::string gpu;        // name and compute capability
  std::string libraries;  // versions of the driver, CUDA, cuDNN and cuBLASLt
  std::string model;      // digest of the weights' source
  std::string precision;  // of the activations, and whether TF32 is allowed
  int batch = 0, height = 0, width = 0;
  bool overlap = false;  // of kernels with those before them
};

using KernelChoices = std::map<std::string, std::string>;  // node, or "a + b" → name of the kernel

// $XDG_CACHE_HOME/damoyolo, else ~/.cache/damoyolo; empty when neither variable is set.
std::filesystem::path plan_cache_folder();

// The file of a key: a digest of it and of the engine's version of the format.
std::filesystem::path plan_cache_file(const std::filesystem::path& folder, const PlanKey& key);

// Nothing when there is no file, or it is damaged or made for another key.
std::optional<KernelChoices> load_choices(const std::filesystem::path& folder, const PlanKey& key);

// Written beside and renamed, so that readers see the old file or the new one, whoever else writes. False when it
// cannot be written; that costs time at the next start, and nothing else.
bool store_choices(const std::filesystem::path& folder, const PlanKey& key, const KernelChoices& choices);

}  // namespace damoyolo::cuda
