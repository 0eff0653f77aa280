#include "engine/cuda/cublaslt_convolution.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "engine/core/error.h"
#include "engine/cuda/conv_packing.h"
#include "engine/cuda/uploaded.h"

namespace damoyolo::cuda {
namespace {

constexpr int kMaxAlgorithms = 8;
constexpr std::size_t kMaxWorkspaceBytes = 8 << 20;
constexpr std::uint32_t kUploadedAlignment = 256;

cudaDataType_t type_of(DType type) {
  switch (type) {
    case DType::F16: return CUDA_R_16F;
    case DType::BF16: return CUDA_R_16BF;
    default: return CUDA_R_32F;
  }
}

cublasLtEpilogue_t epilogue_of(const ConvSplit& split) {
  const bool relu = split.first.act == Activation::Relu;
  if (split.bias_first) return relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
  return relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT;
}

class CublasLtKernel : public ConvKernel {
 public:
  CublasLtKernel(const CublasLt& cublaslt, const ConvSplit& split, const cublasLtMatmulHeuristicResult_t& algorithm,
                 const ConvWeights& weights)
      : name_(cublaslt_name(cublaslt, split, algorithm.algo)),
        product_(cublaslt, split),
        algorithm_(algorithm),
        weights_(pack_channels_last(split.first, weights)) {
    if (!split.bias_first) return;
    bias_ = Uploaded(pack_as(split.first.out_type, weights.bias));
    product_.set_bias(bias_.data());
  }

  std::string name() const override { return name_; }
  std::size_t workspace_bytes() const override { return algorithm_.workspaceSize; }

  void run(const ConvPointers& pointers, kernels::Stream stream) override {
    product_.run(algorithm_, weights_.data(), pointers, stream.handle);
  }

 private:
  std::string name_;
  CublasLtProduct product_;
  cublasLtMatmulHeuristicResult_t algorithm_;
  Uploaded weights_, bias_;
};

}  // namespace

bool is_matrix_product(const ConvProblem& problem) {
  return problem.kernel == 1 && problem.stride == 1 && problem.groups == 1;
}

CublasLtProduct::CublasLtProduct(const CublasLt& cublaslt, const ConvSplit& split)
    : cublaslt_(cublaslt), problem_(split.first) {
  const ConvProblem& p = problem_;
  const bool tf32 = p.type == DType::F32 && p.allow_tf32;
  cublasLtMatmulDesc_t product = nullptr;
  check(cublaslt.functions,
        cublaslt.functions.cublasLtMatmulDescCreate(&product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                                    CUDA_R_32F),
        "cublasLtMatmulDescCreate");
  product_ = {product, Destroy{&cublaslt.functions}};
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(split));

  const bool residual = p.residual != ConvProblem::Residual::None;
  a_ = layout(p.type, p.in.c, p.out.c, p.in.c);
  b_ = layout(p.type, p.in.c, p.in.pixels(), p.in_pixel_stride);
  c_ = layout(p.out_type, p.out.c, p.out.pixels(), residual ? p.residual_pixel_stride : p.out_pixel_stride);
  d_ = layout(p.out_type, p.out.c, p.out.pixels(), p.out_pixel_stride);
}

CublasLtProduct::Owned<cublasLtMatrixLayout_t> CublasLtProduct::layout(DType type, std::int64_t rows,
                                                                       std::int64_t columns,
                                                                       std::int64_t stride) const {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublaslt_.functions,
        cublaslt_.functions.cublasLtMatrixLayoutCreate(&layout, type_of(type), static_cast<std::uint64_t>(rows),
                                                       static_cast<std::uint64_t>(columns), stride),
        "cublasLtMatrixLayoutCreate");
  return {layout, Destroy{&cublaslt_.functions}};
}

template <typename T>
void CublasLtProduct::set(cublasLtMatmulDescAttributes_t name, const T& value) {
  check(cublaslt_.functions,
        cublaslt_.functions.cublasLtMatmulDescSetAttribute(product_.get(), name, &value, sizeof value),
        "cublasLtMatmulDescSetAttribute");
}

std::vector<cublasLtMatmulHeuristicResult_t> CublasLtProduct::algorithms() const {
  const CublasLtFunctions& functions = cublaslt_.functions;
  cublasLtMatmulPreference_t created = nullptr;
  check(functions, functions.cublasLtMatmulPreferenceCreate(&created), "cublasLtMatmulPreferenceCreate");
  const Owned<cublasLtMatmulPreference_t> preference(created, Destroy{&functions});
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
    check(functions, functions.cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  const auto alignment = static_cast<std::uint32_t>(problem_.alignment);
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kMaxWorkspaceBytes});
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kUploadedAlignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);

  std::vector<cublasLtMatmulHeuristicResult_t> results(kMaxAlgorithms);
  int found = 0;
  const cublasStatus_t status =
      functions.cublasLtMatmulAlgoGetHeuristic(cublaslt_.handle, product_.get(), a_.get(), b_.get(), c_.get(),
                                               d_.get(), preference.get(), kMaxAlgorithms, results.data(), &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  check(functions, status, "cublasLtMatmulAlgoGetHeuristic");
  results.resize(static_cast<std::size_t>(found));
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return results;
}

void CublasLtProduct::set_bias(const void* bias) { set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias); }

void CublasLtProduct::run(const cublasLtMatmulHeuristicResult_t& algorithm, const void* weights,
                          const ConvPointers& pointers, cudaStream_t stream) const {
  require_aligned(problem_, pointers);
  const bool residual = problem_.residual != ConvProblem::Residual::None;
  const float alpha = 1, beta = residual ? 1 : 0;
  check(cublaslt_.functions,
        cublaslt_.functions.cublasLtMatmul(cublaslt_.handle, product_.get(), &alpha, weights, a_.get(), pointers.in,
                                           b_.get(), &beta, residual ? pointers.residual : pointers.out, c_.get(),
                                           pointers.out, d_.get(), &algorithm.algo, pointers.workspace,
                                           algorithm.workspaceSize, stream),
        "cublasLtMatmul");
}

std::string cublaslt_name(const CublasLt& cublaslt, const ConvSplit& split, const cublasLtMatmulAlgo_t& algorithm) {
  const auto get = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, auto value) {
    std::size_t written = 0;
    check(
        cublaslt.functions,
        cublaslt.functions.cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value, &written),
        "cublasLtMatmulAlgoConfigGetAttribute");
    return value;
  };
  using Word = std::uint32_t;
  using HalfWord = std::uint16_t;
  return fmt::format(
      "cublaslt:{}:{}:tile={},stages={},split={},reduction={},swizzle={},option={},inner={},cluster={}",
      describe(split), get(CUBLASLT_ALGO_CONFIG_ID, std::int32_t{}), get(CUBLASLT_ALGO_CONFIG_TILE_ID, Word{}),
      get(CUBLASLT_ALGO_CONFIG_STAGES_ID, Word{}), get(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, std::int32_t{}),
      get(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, Word{}), get(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, Word{}),
      get(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, Word{}), get(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, HalfWord{}),
      get(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, HalfWord{}));
}

std::unique_ptr<ConvKernel> make_cublaslt_kernel(const CublasLt& cublaslt, const ConvSplit& split,
                                                 const cublasLtMatmulHeuristicResult_t& algorithm,
                                                 const ConvWeights& weights) {
  return std::make_unique<CublasLtKernel>(cublaslt, split, algorithm, weights);
}

}  // namespace damoyolo::cuda
