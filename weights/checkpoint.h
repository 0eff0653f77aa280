// The state dict of a training checkpoint: what torch.save wrote, or a safetensors file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/mapped_file.h"

namespace damoyolo {

// What a file's first bytes say it is, whatever it is called.
enum class CheckpointFormat : std::uint8_t {
  Zip,     // torch.save since PyTorch 1.6
  Pickle,  // torch.save before that
  Tar,     // torch.save before PyTorch 0.1.10: recognised to be refused
  Safetensors,
  Unknown,
};
CheckpointFormat recognise_format(std::span<const std::byte> bytes);
std::string_view name_of(CheckpointFormat format);

// A tensor as it is stored: a view, with strides, into a storage that other tensors may share. Checked on reading:
// every element lies inside the storage, and there are no more elements than the storage has.
struct CheckpointTensor {
  std::string name;
  DType dtype{};
  std::vector<std::int64_t> shape;     // empty: a scalar
  std::vector<std::int64_t> strides;   // in elements, one per dimension, not negative
  std::span<const std::byte> storage;  // little-endian elements, possibly unaligned
  std::int64_t offset = 0;             // of the first element, in elements

  std::int64_t elements() const;
};

// All elements in row-major order as float32, whatever the stored type.
std::vector<float> to_floats(const CheckpointTensor& tensor);

struct Checkpoint {
  CheckpointFormat format{};
  std::string nesting;  // the keys under which the state dict stood, "model" or "model.state_dict"; empty: at the top
  std::string prefix;   // what stood before all names and was taken off: "module.", "model.", both, or nothing
  std::vector<CheckpointTensor> tensors;  // in the file's order; entries that are no tensors are left out
};

// Reads a checkpoint out of memory; tensors point into `bytes`. Nothing in the file is run: a pickle is read as data,
// and one that mentions anything but tensors, containers and numbers is refused. Throws Error naming `origin`, and the
// tensor or global, for whatever is malformed. Checksums are not compared.
Checkpoint parse_checkpoint(std::span<const std::byte> bytes, std::string_view origin);

// A mapped file with its state dict. Throws as parse_checkpoint does, and also when the checksum of a zip entry is
// wrong.
class CheckpointFile {
 public:
  explicit CheckpointFile(const std::string& path);
  const Checkpoint& contents() const { return contents_; }
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  MappedFile file_;
  Checkpoint contents_;
};

}  // namespace damoyolo
