// Writes the training checkpoint of a released variant with the goldens' weights, for benchmarks that need a model of
// the published size and no particular one:
//   build/golden-checkpoint T T.safetensors && build/damoyolo import T.safetensors -o T-weights.safetensors

#include "tests/golden_checkpoint.h"

#include <cstdio>

#include "engine/core/error.h"
#include "engine/model/spec.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: golden-checkpoint VARIANT OUT.safetensors\n");
    return 2;
  }
  try {
    damoyolo::write_golden_checkpoint(damoyolo::released_variant(argv[1]), argv[2]);
  } catch (const damoyolo::Error& error) {
    std::fprintf(stderr, "golden-checkpoint: %s\n", error.what());
    return 1;
  }
  return 0;
}
