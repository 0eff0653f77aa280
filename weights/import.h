// From a training checkpoint to the engine's weights file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/model/spec.h"
#include "weights/checkpoint.h"

namespace damoyolo {

struct ImportOptions {
  std::string variant = "auto";               // or the name of a released one
  std::optional<ModelSpec> structure = {};    // a custom structure; then `variant` is not looked at
  std::vector<std::string> class_names = {};  // empty: none
  std::optional<int> classes = {};            // checked against the checkpoint
  bool legacy = false;  // the last score channel has no meaning; told from the class count when given
  std::optional<std::pair<int, int>> size = {};  // network height and width; none: the variant's
  DType dtype = DType::F32;                      // of the weights: F32 or BF16; biases are always F32
};

struct ImportReport {
  ModelSpec model;
  CheckpointFormat format{};
  std::string nesting, prefix;         // as in Checkpoint
  std::int64_t parameters_before = 0;  // learned numbers in the checkpoint
  std::int64_t parameters_after = 0;   // in the weights file
  int batch_norms_folded = 0;
  int rep_convs_merged = 0;            // two branches made one
  int rep_convs_deployed = 0;          // had been merged already
  bool dropped_score_channel = false;  // a legacy checkpoint's last one
  int tensors = 0;                     // written
  std::uintmax_t output_bytes = 0;
  std::string source_sha256;
  std::vector<std::string> warnings;  // one sentence each
};

// Reads the checkpoint at `in`, recognises the model, folds every BatchNorm and merges every RepConv, and writes the
// weights file `out` (weights_file.h says what is in it). The same input and options give the same bytes. Throws Error
// when the checkpoint cannot be read, fits no structure, or has another number of classes than the options say, and
// when the options are unusable. Weights that are not finite are kept and warned of.
ImportReport import_checkpoint(const std::string& in, const std::string& out, const ImportOptions& options);

}  // namespace damoyolo
