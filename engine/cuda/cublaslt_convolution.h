// 1×1 convolutions by cuBLASLt.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/conv_split.h"
#include "engine/cuda/library.h"

namespace damoyolo::cuda {

// Whether the convolution is a matrix product: 1×1, stride 1, one group.
bool is_matrix_product(const ConvProblem& problem);

// The first part of a split as D = act(A·B + C + bias), in cuBLASLt's order, columns first: D and C are [out.c,
// pixels], B is [in.c, pixels], each with its pixel stride between columns; A is the weights [out, in], transposed. C
// is the residual, or D when there is none.
class CublasLtProduct {
 public:
  CublasLtProduct(const CublasLt& cublaslt, const ConvSplit& split);

  // Best first, those whose workspace is small enough; empty when cuBLASLt has none. Sums are never kept in less than
  // fp32.
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms() const;

  // [out.c] of the output's type, on the device.
  void set_bias(const void* bias);

  void run(const cublasLtMatmulHeuristicResult_t& algorithm, const void* weights, const ConvPointers& pointers,
           cudaStream_t stream) const;

 private:
  struct Destroy {
    const CublasLtFunctions* functions;
    void operator()(cublasLtMatmulDesc_t product) const { functions->cublasLtMatmulDescDestroy(product); }
    void operator()(cublasLtMatrixLayout_t layout) const { functions->cublasLtMatrixLayoutDestroy(layout); }
    void operator()(cublasLtMatmulPreference_t wish) const { functions->cublasLtMatmulPreferenceDestroy(wish); }
  };
  template <typename Handle>
  using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy>;

  Owned<cublasLtMatrixLayout_t> layout(DType type, std::int64_t rows, std::int64_t columns, std::int64_t stride) const;
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t name, const T& value);

  const CublasLt& cublaslt_;
  ConvProblem problem_;
  Owned<cublasLtMatmulDesc_t> product_;
  Owned<cublasLtMatrixLayout_t> a_, b_, c_, d_;
};

// "cublaslt:conv+bias:21:tile=20,stages=7,split=1,…": the steps, the algorithm and its settings.
std::string cublaslt_name(const CublasLt& cublaslt, const ConvSplit& split, const cublasLtMatmulAlgo_t& algorithm);

// The kernel for the first part of a split. The algorithm must come from the same product.
std::unique_ptr<ConvKernel> make_cublaslt_kernel(const CublasLt& cublaslt, const ConvSplit& split,
                                                 const cublasLtMatmulHeuristicResult_t& algorithm,
                                                 const ConvWeights& weights);

}  // namespace damoyolo::cuda
