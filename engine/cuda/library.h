// cuDNN and cuBLASLt, opened when they are needed and never linked: the binary starts on machines without them.
#pragma once

#include <cublasLt.h>
#include <cudnn_graph.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/device_traits.h"

namespace damoyolo::cuda {

#define DAMOYOLO_CUDNN_FUNCTIONS(apply)                                                                        \
  apply(cudnnGetVersion) apply(cudnnGetErrorString) apply(cudnnGetLastErrorString) apply(cudnnCreate)          \
      apply(cudnnDestroy) apply(cudnnSetStream) apply(cudnnBackendCreateDescriptor)                            \
          apply(cudnnBackendDestroyDescriptor) apply(cudnnBackendSetAttribute) apply(cudnnBackendGetAttribute) \
              apply(cudnnBackendFinalize) apply(cudnnBackendExecute)

#define DAMOYOLO_CUBLASLT_FUNCTIONS(apply)                                                                           \
  apply(cublasLtGetVersion) apply(cublasLtGetStatusString) apply(cublasLtCreate) apply(cublasLtDestroy)              \
      apply(cublasLtMatmulDescCreate) apply(cublasLtMatmulDescDestroy) apply(cublasLtMatmulDescSetAttribute)         \
          apply(cublasLtMatrixLayoutCreate) apply(cublasLtMatrixLayoutDestroy) apply(cublasLtMatmulPreferenceCreate) \
              apply(cublasLtMatmulPreferenceDestroy) apply(cublasLtMatmulPreferenceSetAttribute)                     \
                  apply(cublasLtMatmulAlgoGetHeuristic) apply(cublasLtMatmulAlgoConfigGetAttribute)                  \
                      apply(cublasLtMatmul)

#define DAMOYOLO_MEMBER(function) decltype(&::function) function = nullptr;

// Each member is the library's function of that name.
struct CudnnFunctions {
  DAMOYOLO_CUDNN_FUNCTIONS(DAMOYOLO_MEMBER)
};
struct CublasLtFunctions {
  DAMOYOLO_CUBLASLT_FUNCTIONS(DAMOYOLO_MEMBER)
};

#undef DAMOYOLO_MEMBER

// Throw Error naming the call and the library's reasons, unless it succeeded: OutOfDeviceMemory where that is one.
void check(const CudnnFunctions& cudnn, cudnnStatus_t status, const char* call);
void check(const CublasLtFunctions& cublaslt, cublasStatus_t status, const char* call);

class CudnnDescriptor;

// A library's functions and its handle on one device.
struct Cudnn {
  CudnnFunctions functions;
  cudnnHandle_t handle = nullptr;
  std::shared_ptr<const CudnnDescriptor> device;  // instead of a handle: one that need not be here

  Cudnn() = default;
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;
  ~Cudnn();
};
struct CublasLt {
  CublasLtFunctions functions;
  cublasLtHandle_t handle = nullptr;

  CublasLt() = default;
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  ~CublasLt();
};

// For one device and the one thread that uses it.
struct Libraries {
  DeviceTraits device;
  std::unique_ptr<Cudnn> cudnn;        // null where it is missing
  std::unique_ptr<CublasLt> cublaslt;  // null where it is missing
  std::vector<std::string> report;     // a line per library: its version and file, or why it is missing
};

// On the current device. The libraries are searched in $DAMOYOLO_CUDA_LIBRARIES (folders, separated by colons) alone
// if that is set, else where the loader looks, then in the toolkit, then in Python environments; cuBLASLt and the
// run-time compiler also beside cuDNN, and those for cuDNN's version of CUDA before others. A missing library, one
// without a function above, one of another major version, and a cuDNN without the cuBLASLt that it calls, are
// reported, not thrown. Throws Error when there is no device.
Libraries open_libraries();

// The same libraries without handles, and no device: touches none.
Libraries find_libraries();

// The folders of toolkits and Python environments in which the libraries may lie, best first; they exist.
// `environment` gives the value of a variable, or "".
std::vector<std::filesystem::path> library_folders(const std::function<std::string(const char*)>& environment);

// Where what a library calls may lie: its own folder and, in a Python environment, those of NVIDIA's other packages.
// Nowhere else, since beside the system's folders anyone may put files. Empty for an empty path.
std::vector<std::filesystem::path> folders_beside(const std::filesystem::path& library);

}  // namespace damoyolo::cuda
