// Every distinct dense convolution of the released variants at their default sizes, and every distinct pair of them
// that one launch may compute: bench/layers/layers.json, data for microbenchmarks and for tests of what computes and
// chooses kernels.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/cuda/convolution.h"

namespace damoyolo::cuda {

struct Layer {
  // One image in BF16, every tensor dense but for its last channels, which fill 16 bytes.
  ConvProblem problem;
  std::map<std::string, int> count;  // variant → how many such layers it has
};

// The table from the variants themselves, as the plan of a GPU has them after the passes: in the order of the variants
// and, in each, of the plan; first the convolutions, then the pairs.
std::vector<Layer> layers_of_variants();

// "3x3 stride 1, 64 x 80 x 80 to 64, residual relu; then 1x1 to 32, relu, both stored": h × w are the input's.
std::string describe(const ConvProblem& problem);

// The file's text, a line for each layer.
std::string layers_to_json(const std::vector<Layer>& layers);
// Throws Error naming `origin` and what is wrong.
std::vector<Layer> layers_from_json(std::string_view text, std::string_view origin);
// The layers of a file in that form.
std::vector<Layer> read_layers(const std::string& path = "bench/layers/layers.json");

// The problem for so many images, and in another 16-bit type.
ConvProblem with_batch(ConvProblem problem, int images);
ConvProblem with_type(ConvProblem problem, DType type);

}  // namespace damoyolo::cuda
