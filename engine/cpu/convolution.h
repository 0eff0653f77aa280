// One convolution as a oneDNN primitive. The differences between oneDNN 2.x and 3.x stay in this file pair.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>

#include "engine/conv_weights.h"
#include "engine/core/dtype.h"
#include "engine/graph.h"

namespace damoyolo::cpu {

struct ConvolutionShape {
  Shape in, out;
  int kernel = 1, stride = 1, groups = 1;
  Activation act = Activation::None;
  bool accumulate = false;  // out = act(conv + what out holds)
  DType in_type{}, out_type{};
};

// Dense NHWC in and out, bias fp32, weights in whatever order the chosen kernel wants, packed once. Immutable after
// construction apart from the addresses given to bind().
class Convolution {
 public:
  // Chooses the kernel for the number of OpenMP threads of the calling thread. Throws Error when oneDNN has none.
  Convolution(const dnnl::engine& engine, const ConvolutionShape& shape, const ConvWeights& weights);

  std::size_t scratchpad_bytes() const { return description_.scratchpad_desc().get_size(); }
  std::size_t weight_bytes() const { return description_.weights_desc().get_size(); }
  std::string implementation() const;

  // Whether run() leaves act's argument in out, for silu() (tensor_ops.h) to follow, which is faster than oneDNN's own.
  // In float32; in bf16 the argument would be rounded once more.
  bool leaves_silu() const { return leaves_silu_; }

  // Where the tensors lie from now on; they must outlive the object's use.
  void bind(const dnnl::engine& engine, void* source, void* target, void* scratchpad);
  void run(dnnl::stream& stream) { primitive_.execute(stream, arguments_); }

 private:
  bool leaves_silu_;
  dnnl::convolution_forward::primitive_desc description_;
  dnnl::convolution_forward primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

}  // namespace damoyolo::cpu
