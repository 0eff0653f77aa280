// Stands in for cuBLASLt in tests: it records what a matrix product is made of and offers algorithms without settings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#include "engine/cuda/library.h"

namespace damoyolo::cuda::test {

struct FakeLayout {
  cudaDataType type{};
  std::uint64_t rows = 0, columns = 0;
  std::int64_t stride = 0;
  bool operator==(const FakeLayout&) const = default;
};

struct FakeProduct {
  cublasComputeType_t compute{};
  std::map<int, std::uint64_t> attributes;  // by their enumerators
};

struct FakeMatmul {
  const FakeProduct* product = nullptr;
  FakeLayout layouts[4];  // A, B, C, D
  const void* tensors[4] = {};
  const void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  float alpha = 0, beta = 0;
  cudaStream_t stream = nullptr;
};

// One at a time, since the library's functions carry no state of their own.
class FakeCublasLt {
 public:
  FakeCublasLt() {
    current = this;
    library = std::make_unique<CublasLt>();
    CublasLtFunctions& f = library->functions;
    f.cublasLtGetStatusString = [](cublasStatus_t) { return "fake status"; };
    f.cublasLtMatmulDescCreate = [](cublasLtMatmulDesc_t* product, cublasComputeType_t compute, cudaDataType_t) {
      *product = reinterpret_cast<cublasLtMatmulDesc_t>(&current->products.emplace_back(FakeProduct{compute, {}}));
      ++current->alive;
      return CUBLAS_STATUS_SUCCESS;
    };
    f.cublasLtMatmulDescDestroy = [](cublasLtMatmulDesc_t) { return destroyed(); };
    f.cublasLtMatmulDescSetAttribute = [](cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name,
                                          const void* value, std::size_t bytes) {
      std::memcpy(&reinterpret_cast<FakeProduct*>(product)->attributes[name], value, bytes);
      return CUBLAS_STATUS_SUCCESS;
    };
    f.cublasLtMatrixLayoutCreate = [](cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                      std::uint64_t columns, std::int64_t stride) {
      *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
          &current->layouts.emplace_back(FakeLayout{type, rows, columns, stride}));
      ++current->alive;
      return CUBLAS_STATUS_SUCCESS;
    };
    f.cublasLtMatrixLayoutDestroy = [](cublasLtMatrixLayout_t) { return destroyed(); };
    f.cublasLtMatmulPreferenceCreate = [](cublasLtMatmulPreference_t* wish) {
      *wish = reinterpret_cast<cublasLtMatmulPreference_t>(&current->preferences);
      ++current->alive;
      return CUBLAS_STATUS_SUCCESS;
    };
    f.cublasLtMatmulPreferenceDestroy = [](cublasLtMatmulPreference_t) { return destroyed(); };
    f.cublasLtMatmulPreferenceSetAttribute = [](cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t name,
                                                const void* value, std::size_t bytes) {
      std::memcpy(&current->preferences[name], value, bytes);
      return CUBLAS_STATUS_SUCCESS;
    };
    f.cublasLtMatmulAlgoGetHeuristic = [](cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                          cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                          cublasLtMatmulPreference_t, int capacity,
                                          cublasLtMatmulHeuristicResult_t* results, int* found) {
      *found = 0;
      for (const cublasStatus_t state : current->proposals)
        if (*found < capacity) results[(*found)++] = {{}, 1024, state, 1.f, {}};
      return current->heuristic_status;
    };
    f.cublasLtMatmulAlgoConfigGetAttribute = [](const cublasLtMatmulAlgo_t*, cublasLtMatmulAlgoConfigAttributes_t,
                                                void* value, std::size_t bytes, std::size_t* written) {
      std::memset(value, 0, bytes);
      *written = bytes;
      return CUBLAS_STATUS_SUCCESS;
    };
    f.cublasLtMatmul = [](cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
                          cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                          const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                          cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void* workspace,
                          std::size_t workspace_bytes, cudaStream_t stream) {
      const auto layout = [](cublasLtMatrixLayout_t handle) { return *reinterpret_cast<const FakeLayout*>(handle); };
      current->calls.push_back({reinterpret_cast<const FakeProduct*>(product),
                                {layout(a_layout), layout(b_layout), layout(c_layout), layout(d_layout)},
                                {a, b, c, d},
                                workspace,
                                workspace_bytes,
                                *static_cast<const float*>(alpha),
                                *static_cast<const float*>(beta),
                                stream});
      return CUBLAS_STATUS_SUCCESS;
    };
  }
  FakeCublasLt(const FakeCublasLt&) = delete;
  FakeCublasLt& operator=(const FakeCublasLt&) = delete;
  ~FakeCublasLt() { current = nullptr; }

  std::unique_ptr<CublasLt> library;
  std::deque<FakeProduct> products;
  std::deque<FakeLayout> layouts;
  std::map<int, std::uint64_t> preferences;  // by their enumerators
  std::vector<FakeMatmul> calls;
  std::vector<cublasStatus_t> proposals;  // the states of the heuristic's results
  cublasStatus_t heuristic_status = CUBLAS_STATUS_SUCCESS;
  int alive = 0;  // handles not yet destroyed

 private:
  static cublasStatus_t destroyed() {
    --current->alive;
    return CUBLAS_STATUS_SUCCESS;
  }

  static inline FakeCublasLt* current = nullptr;
};

}  // namespace damoyolo::cuda::test
