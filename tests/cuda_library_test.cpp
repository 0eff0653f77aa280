// How the libraries' handles and failures are dealt with, without a GPU.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>

#include <future>
#include <mutex>

#include "engine/cuda/capture_mutex.h"
#include "engine/cuda/library.h"
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

#endif
