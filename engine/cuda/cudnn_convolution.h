// Convolutions by cuDNN's graph API.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/conv_split.h"
#include "engine/cuda/cudnn_descriptor.h"

namespace damoyolo::cuda {

// What a graph's tensors are called when it runs.
enum CudnnTensor : std::int64_t { kCudnnInput = 1, kCudnnWeights, kCudnnBias, kCudnnResidual, kCudnnOutput };

// The first part of a split as an operation graph: the convolution, then one pointwise operation per step, with sums
// and everything between in fp32. Tensors have their NHWC strides; the weights are [out, k, k, in/groups]. In the form
// that cuDNN's ready-made kernels fuse: the bias has the output's type, and a residual before the activation comes
// before the bias. They also want it to have the output's strides, and ReLU; anything else is compiled, if at all.
// Finished descriptors keep those they were made from, here in the order they were made, the graph last.
struct CudnnGraph {
  std::vector<CudnnDescriptor> descriptors;
  const CudnnDescriptor& graph() const { return descriptors.back(); }
};

// Null when cuDNN cannot take the graph.
std::shared_ptr<const CudnnGraph> build_cudnn_graph(const Cudnn& cudnn, const ConvSplit& split);

// One way to run a graph: an engine of cuDNN and its settings.
struct CudnnConfig {
  std::shared_ptr<const CudnnGraph> graph;
  CudnnDescriptor config;
  std::string name;       // "cudnn:conv+bias:38:2=3,13=1": the steps, the engine and its settings
  bool compiled = false;  // by cuDNN, when the kernel is made, which takes it about a second
  // Copies of tensors that the engine wants dense, as far as known before the kernel is made; 0 before cuDNN 9.2.
  std::int64_t workspace_bytes = 0;
};

// Best first: what heuristic A proposes, then the fallbacks; the first few of them, or all, with heuristic B's
// between. Only engines that give the same bytes every time, and, for fp32 without TF32, only those that use no tensor
// cores and convert no inputs.
std::vector<std::shared_ptr<const CudnnConfig>> cudnn_configs(const Cudnn& cudnn, const ConvSplit& split,
                                                              Proposals proposals = Proposals::Likely);

// The first that cuDNN need not compile; null when there is none.
const CudnnConfig* first_ready_made(const std::vector<std::shared_ptr<const CudnnConfig>>& configs);

// The execution plan of a configuration, final. Throws Error when cuDNN refuses it.
CudnnDescriptor cudnn_plan(const Cudnn& cudnn, const CudnnConfig& config);

// The kernel for the first part of a split. Throws Error when cuDNN refuses the configuration.
std::unique_ptr<ConvKernel> make_cudnn_kernel(const Cudnn& cudnn, const ConvSplit& split,
                                              std::shared_ptr<const CudnnConfig> config, const ConvWeights& weights);

}  // namespace damoyolo::cuda
