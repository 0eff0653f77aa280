// How the libraries' handles and failures are dealt with, without a GPU.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>

#include <future>
#include <mutex>

#include "engine/core/out_of_device_memory.h"
#include "engine/cuda/capture_mutex.h"
#include "engine/cuda/library.h"
#include "kernels/launch.h"
#include "tests/fake_cublaslt.h"
#include "tests/fake_cudnn.h"

using namespace damoyolo;
using namespace damoyolo::cuda;
using cuda::test::FakeCublasLt;
using cuda::test::FakeCudnn;

namespace {

bool others_may_capture() {
  return std::async(std::launch::async,
                    [] {
                      std::unique_lock lock(capture_mutex(), std::try_to_lock);
                      return lock.owns_lock();
                    })
      .get();
}

}  // namespace

TEST_CASE("no stream is captured while a library's handle is destroyed") {
  static int destroyed;
  destroyed = 0;
  FakeCudnn cudnn;
  cudnn.library->handle = reinterpret_cast<cudnnHandle_t>(1);
  cudnn.library->functions.cudnnDestroy = [](cudnnHandle_t) {
    ++destroyed;
    CHECK_FALSE(others_may_capture());
    return CUDNN_STATUS_SUCCESS;
  };
  FakeCublasLt cublaslt;
  cublaslt.library->handle = reinterpret_cast<cublasLtHandle_t>(1);
  cublaslt.library->functions.cublasLtDestroy = [](cublasLtHandle_t) {
    ++destroyed;
    CHECK_FALSE(others_may_capture());
    return CUBLAS_STATUS_SUCCESS;
  };
  cudnn.library.reset();
  cublaslt.library.reset();
  CHECK(destroyed == 2);
  CHECK(others_may_capture());
}

TEST_CASE("a library or a launch that finds too little device memory lets a batch be split") {
  FakeCudnn cudnn;
  const CudnnFunctions& functions = cudnn.library->functions;
  CHECK_NOTHROW(check(functions, CUDNN_STATUS_SUCCESS, "any"));
  CHECK_THROWS_WITH_AS(check(functions, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, "cudnnBackendFinalize"),
                       "cudnnBackendFinalize failed: fake status fake reason", OutOfDeviceMemory);
  FakeCublasLt cublaslt;
  CHECK_THROWS_WITH_AS(check(cublaslt.library->functions, CUBLAS_STATUS_ALLOC_FAILED, "cublasLtMatmul"),
                       "cublasLtMatmul failed: fake status", OutOfDeviceMemory);
  CHECK_THROWS_WITH_AS(kernels::check(cudaErrorMemoryAllocation, "any"), "kernel any was not launched: out of memory",
                       OutOfDeviceMemory);
  const auto is_memory = [&](cudnnStatus_t status) {
    try {
      check(functions, status, "any");
    } catch (const OutOfDeviceMemory&) {
      return true;
    } catch (const Error&) {
    }
    return false;
  };
  CHECK_FALSE(is_memory(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED));
  CHECK_FALSE(is_memory(CUDNN_STATUS_EXECUTION_FAILED));
}

#endif
