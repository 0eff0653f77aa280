// The engine's own weights file: safetensors with folded weights named by graph node, and the model in its metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/model/spec.h"
#include "weights/safetensors.h"

namespace damoyolo {

// An open weights file: memory-mapped, read-only, safe to read from any thread.
//   NAME.weight  [out, in/groups, k, k]   NAME.bias  [out] (always F32)
// NAME is the graph node's. Metadata: "format" = "damoyolo", "format_version", "model" (a JSON object as in
// variants.json with class names), "source_sha256".
class WeightsFile {
 public:
  // Throws Error when the file is not one (a training checkpoint is told apart and the import command named), when
  // its version is unknown, or when a tensor the model needs is missing or misshapen.
  explicit WeightsFile(const std::string& path);

  const ModelSpec& model() const { return model_; }
  // Makes it a model of another network size; the weights fit any. Throws Error unless both are positive multiples of
  // 32.
  void set_input_size(int height, int width);
  const std::string& path() const { return path_; }
  const std::string& source_sha256() const { return source_sha256_; }
  DType dtype() const { return dtype_; }  // of the weights: F32 or BF16

  // A tensor by name; throws Error when there is none.
  const TensorView& tensor(std::string_view name) const;

 private:
  std::string path_;
  SafetensorsFile file_;
  ModelSpec model_;
  std::string source_sha256_;
  DType dtype_{};
};

// Whether a safetensors file says that it is one, of whatever version.
bool is_weights_file(const Safetensors& contents);

// Writes the tensors as a weights file of `model`; metadata in `contents` is replaced. Throws Error when it cannot be
// written.
void write_weights_file(const std::string& path, const ModelSpec& model, const std::string& source_sha256,
                        Safetensors contents);

}  // namespace damoyolo
