// Whether a kernel computes a layer, on any device.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

// What 16-bit outputs of fp32 sums stay below.
constexpr double kLayerTolerance = 5e-3;

// One problem on random numbers, with what it means for some of its output pixels, computed on the host in fp32 from
// the same rounded numbers: the corners of the first and last image, and others spread over all.
class LayerCheck {
 public:
  // The runtime and the stream must outlive it. `problem`: dense, of 16-bit type.
  LayerCheck(Runtime& runtime, StreamHandle stream, const ConvProblem& problem, int pixels = 256);

  const ConvWeights& weights() const { return weights_; }

  // ‖out − reference‖ / ‖reference‖ over all channels of these pixels, after one run of the kernel.
  double relative_error(ConvKernel& kernel);
  // The whole output of that run; of a pair, the first one's, where that is kept, and then the second one's.
  std::vector<std::byte> output();

  // What was compared: pixels of the output, through all images; and [pixels, channels()] of the reference, and of the
  // last run. A pair's channels are those that it stores, the first one's in front.
  int channels() const { return kept_channels() + problem_.then.c; }
  const std::vector<int>& pixels() const { return pixels_; }
  const std::vector<float>& expected() const { return expected_; }
  const std::vector<float>& found() const { return found_; }

 private:
  int kept_channels() const { return problem_.keep ? problem_.out.c : 0; }
  void append_reference(int pixel);

  Runtime& runtime_;
  StreamHandle stream_;
  ConvProblem problem_;
  ConvWeights weights_;
  std::vector<float> rounded_weights_;    // [kernel, kernel, in, out]
  std::vector<float> rounded_second_;     // [in, out]
  std::vector<std::byte> in_, residual_;  // on the host
  std::vector<int> pixels_;
  std::vector<float> expected_, found_;
  Owned<std::byte> device_in_, device_residual_, device_out_;
  std::size_t out_bytes_ = 0, then_bytes_ = 0;  // of device_out_, one after the other
};

}  // namespace damoyolo::cuda
