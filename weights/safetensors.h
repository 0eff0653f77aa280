// The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
// https://github.com/huggingface/safetensors
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/mapped_file.h"

namespace damoyolo {

// A tensor in somebody else's memory: row-major, contiguous, possibly unaligned.
struct TensorView {
  DType dtype{};
  std::vector<std::int64_t> shape;  // empty: a scalar
  std::span<const std::byte> bytes;

  std::int64_t elements() const;
};

// All elements as float32, whatever the stored type.
std::vector<float> to_floats(const TensorView& tensor);

struct Safetensors {
  std::map<std::string, TensorView, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

// Reads the header and checks every length, offset and shape before use: tensors lie inside the file, do not
// overlap, leave no gap, and their bytes are what shape and type say. Throws Error naming `origin` and the tensor.
// The views point into `bytes`.
Safetensors parse_safetensors(std::span<const std::byte> bytes, std::string_view origin);

// A mapped file with its parsed header.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  const Safetensors& contents() const { return contents_; }

 private:
  MappedFile file_;
  Safetensors contents_;
};

// Writes the tensors with the largest elements first, then by name, so that each is aligned to its type without gaps;
// the same input gives the same bytes. The file is written beside `path` and renamed, so that no half-written one is
// ever seen. Throws Error when it cannot be written.
void write_safetensors(const std::string& path, const Safetensors& contents);

}  // namespace damoyolo
