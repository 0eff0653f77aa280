// Convolutions on the device: what the plan asks for, and everything that can compute it.
//
// A problem is a convolution node with its views' strides and types, or a pair of them: a 1×1 may be behind it in the
// same launch. conv_candidates() lists the kernels that compute it: our own, cuDNN's and cuBLASLt's, with our epilogue
// kernel behind those that cannot do all of it. All of them take the same pointers and give the same result up to
// rounding, so that a plan may choose by heuristics or by timing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/core/activation.h"
#include "engine/core/dtype.h"
#include "engine/cuda/device_traits.h"
#include "engine/graph.h"
#include "engine/mode.h"
#include "kernels/tensor.h"

namespace damoyolo::cuda {

struct Libraries;

// What a convolution node means (engine/graph.h), with the places its tensors have in their buffers.
struct ConvProblem {
  enum class Residual : std::uint8_t {
    None,
    Same,  // of the output's size
    Half,  // of half its height and width, read with nearest ×2
  };
  // A convolution of kernel 1 and stride 1, of the output as rounded to its type; its own has that type, too.
  struct Pointwise {
    int c = 0;  // output channels; 0: nothing follows
    int pixel_stride = 0;
    Activation act = Activation::None;

    bool operator==(const Pointwise&) const = default;
  };

  Shape in, out;
  int in_pixel_stride = 0, out_pixel_stride = 0, residual_pixel_stride = 0;  // elements between pixels
  int kernel = 1, stride = 1, groups = 1;                                    // groups: 1 or in.c
  Activation act = Activation::None;
  Residual residual = Residual::None;
  bool residual_first = true;
  DType type = DType::F32;      // of input, weights and residual: F32, BF16 or F16
  DType out_type = DType::F32;  // `type`, or F32 for the head
  bool allow_tf32 = false;      // F32 only: round inputs to 10 bits of mantissa for the tensor cores
  int alignment = 16;           // bytes, a power of two that divides every tensor's address
  Pointwise then = {};          // behind one group, whose output has the input's type
  bool keep = true;             // the output is stored; false only with `then`

  bool operator==(const ConvProblem&) const = default;
};

// Somebody else's bytes in device memory.
struct DeviceBytes {
  const void* data = nullptr;
  std::size_t size = 0;

  bool operator==(const DeviceBytes&) const = default;
};

// Device addresses of the views' first channels. `out` overlaps neither `in` nor `residual`. workspace:
// ConvKernel::workspace_bytes(), aligned to 256 bytes; nobody else's while the kernel runs. next: weights() of a
// kernel that will run soon; one of our own may bring them to the second-level cache meanwhile. then_out: of
// ConvProblem::then, apart from all the others; `out` is null where it is not kept.
struct ConvPointers {
  const void* in = nullptr;
  void* out = nullptr;
  const void* residual = nullptr;
  void* workspace = nullptr;
  DeviceBytes next = {};
  void* then_out = nullptr;

  bool operator==(const ConvPointers&) const = default;
};

// One convolution, ready to run. Weights are packed and uploaded at construction, into memory that it owns on the
// device that was current then.
class ConvKernel {
 public:
  virtual ~ConvKernel() = default;
  // Stable from run to run on one device and library version: plans are stored by it.
  virtual std::string name() const = 0;
  virtual std::size_t workspace_bytes() const = 0;
  // What every run reads first, for the kernel before to fetch; nothing where only a library knows.
  virtual DeviceBytes weights() const { return {}; }
  // Enqueues the work; also while the stream is being captured. One thread at a time per kernel and per Libraries.
  // Our own kernels may overlap with what is before them on the stream, where that says so.
  virtual void run(const ConvPointers& pointers, kernels::Stream stream) = 0;
};

struct ConvCandidate {
  std::string name;  // of the kernel it makes
  double predicted_seconds = 0;
  std::function<std::unique_ptr<ConvKernel>(const ConvWeights&)> make;  // must not outlive the Libraries
  bool compiled = false;  // a library compiles it when it is made, which takes about a second
};

// What candidates are sorted by: the fastest by prediction first, but those to compile behind all others.
inline std::pair<bool, double> turn_of(const ConvCandidate& candidate) {
  return {candidate.compiled, candidate.predicted_seconds};
}

// Of what cuDNN's heuristics propose for a convolution: enough that one of them works, or everything, for timing. To
// list everything takes several times as long.
enum class Proposals : std::uint8_t { Likely, All };

// What can compute the problem on the current device, the fastest by prediction first, but those that a library
// has to compile behind: only autotuning should spend that time while there are others. Behind all of a library's come
// the best few of our own tensor-core kernels, since no device has confirmed their predictions. A library may still
// refuse one when it is made, with Error; then take the next. Throws Error when there is none, or the problem breaks
// the rules above. For a pair there are our own alone, or none, which is no error: two launches compute it, too.
std::vector<ConvCandidate> conv_candidates(const ConvProblem& problem, Libraries& libraries,
                                           KernelSource source = KernelSource::Auto,
                                           Proposals proposals = Proposals::Likely);

// All configurations of our own kernels that take the problem, for measurements; the best by prediction first.
std::vector<ConvCandidate> own_candidates(const ConvProblem& problem, const DeviceTraits& device,
                                          std::size_t most = ~std::size_t{0});

}  // namespace damoyolo::cuda
