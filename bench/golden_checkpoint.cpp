// Writes the training checkpoint of a released variant with the goldens' weights, for benchmarks that need a model of
// the published size and no particular one:
//   build/golden-checkpoint T T.safetensors && build/damoyolo import T.safetensors -o T-weights.safetensors
// These weights find half a million objects in a picture, which no suppression is made for. A third argument is
// subtracted from the logits of the scores; with 4, S finds some thirty.

#include "tests/golden_checkpoint.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "engine/core/error.h"
#include "engine/model/spec.h"

namespace {

using namespace damoyolo;

void lower_scores(const std::string& path, float by) {
  const SafetensorsFile file(path);
  Safetensors changed = file.contents();
  std::vector<std::vector<float>> biases;
  biases.reserve(changed.tensors.size());
  for (auto& [name, tensor] : changed.tensors) {
    if (!name.starts_with("head.gfl_cls.") || !name.ends_with(".bias")) continue;
    for (float& value : biases.emplace_back(to_floats(tensor))) value -= by;
    tensor.bytes = std::as_bytes(std::span<const float>(biases.back()));
  }
  write_safetensors(path, changed);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: golden-checkpoint VARIANT OUT.safetensors [LOWER]\n");
    return 2;
  }
  try {
    write_golden_checkpoint(released_variant(argv[1]), argv[2]);
    if (argc == 4) lower_scores(argv[2], std::strtof(argv[3], nullptr));
  } catch (const Error& error) {
    std::fprintf(stderr, "golden-checkpoint: %s\n", error.what());
    return 1;
  }
  return 0;
}
