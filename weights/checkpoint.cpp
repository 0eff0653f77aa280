#include "weights/checkpoint.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "engine/core/error.h"
#include "weights/byte_reader.h"
#include "weights/in_quotes.h"
#include "weights/pickle.h"
#include "weights/safetensors.h"
#include "weights/zip.h"

namespace damoyolo {
namespace {

using Bytes = std::span<const std::byte>;
using Kind = PickleValue::Kind;
using Name = std::pair<std::string_view, std::string_view>;

constexpr std::array<std::pair<std::string_view, DType>, 10> kStorages{{{"DoubleStorage", DType::F64},
                                                                        {"FloatStorage", DType::F32},
                                                                        {"HalfStorage", DType::F16},
                                                                        {"BFloat16Storage", DType::BF16},
                                                                        {"LongStorage", DType::I64},
                                                                        {"IntStorage", DType::I32},
                                                                        {"ShortStorage", DType::I16},
                                                                        {"CharStorage", DType::I8},
                                                                        {"ByteStorage", DType::U8},
                                                                        {"BoolStorage", DType::Bool}}};

// What checkpoints mention besides storages. The entries of "torch" and "torch._utils" make tensors; the others stand
// beside the state dict (NumPy scalars in a learning-rate schedule, an optimizer's settings) and are passed over.
constexpr Name kGlobals[] = {
    {"collections", "OrderedDict"},
    {"collections", "defaultdict"},
    {"torch._utils", "_rebuild_tensor"},
    {"torch._utils", "_rebuild_tensor_v2"},
    {"torch._utils", "_rebuild_parameter"},
    {"torch._utils", "_rebuild_parameter_with_state"},
    {"torch", "Size"},
    {"torch", "device"},
    {"torch", "float64"},
    {"torch", "float32"},
    {"torch", "float16"},
    {"torch", "bfloat16"},
    {"torch", "int64"},
    {"torch", "int32"},
    {"torch", "int16"},
    {"torch", "int8"},
    {"torch", "uint8"},
    {"torch", "bool"},
    {"numpy", "dtype"},
    {"numpy", "ndarray"},
    {"numpy.core.multiarray", "scalar"},
    {"numpy.core.multiarray", "_reconstruct"},
    {"numpy._core.multiarray", "scalar"},
    {"numpy._core.multiarray", "_reconstruct"},
    {"_codecs", "encode"},
    {"__builtin__", "set"},
    {"__builtin__", "frozenset"},
    {"__builtin__", "bytearray"},
    {"builtins", "set"},
    {"builtins", "frozenset"},
    {"builtins", "bytearray"},
};

std::optional<DType> storage_type(std::string_view module, std::string_view name) {
  if (module != "torch") return std::nullopt;
  for (const auto& [known, type] : kStorages)
    if (known == name) return type;
  return std::nullopt;
}

bool is_allowed(std::string_view module, std::string_view name) {
  return storage_type(module, name) || std::ranges::find(kGlobals, Name{module, name}) != std::end(kGlobals);
}

// What a persistent id says of a storage: ("storage", class, key, device, elements[, view]).
struct StorageId {
  DType dtype{};
  std::string_view key;
  std::int64_t elements = 0;

  std::uint64_t size() const { return static_cast<std::uint64_t>(elements) * size_of(dtype); }
};

StorageId storage_id(const PickleValue& value, std::string_view origin) {
  const PickleValue* id = value.kind == Kind::PersistentId ? value.arguments : nullptr;
  if (id == nullptr || id->kind != Kind::Tuple || id->items.size() < 5 || id->items[0]->text != "storage" ||
      id->items[1]->kind != Kind::Global || id->items[2]->kind != Kind::Text || id->items[4]->kind != Kind::Int)
    throw Error("{}: has a tensor whose storage is not described as PyTorch does it", origin);
  const auto& items = id->items;
  if (items.size() > 5 && items[5]->kind != Kind::None)
    throw Error("{}: storage {} is a view of another storage, which no PyTorch since 0.4 writes", origin,
                in_quotes(items[2]->text));
  const auto dtype = storage_type(items[1]->module, items[1]->text);
  if (!dtype)
    throw Error("{}: storage {} is of type {}, which is no type of elements known here", origin,
                in_quotes(items[2]->text), in_quotes(items[1]->text));
  constexpr std::int64_t kMostElements = std::int64_t{1} << 48;
  if (items[4]->integer < 0 || items[4]->integer > kMostElements)
    throw Error("{}: storage {} claims {} elements", origin, in_quotes(items[2]->text), items[4]->integer);
  return {.dtype = *dtype, .key = items[2]->text, .elements = items[4]->integer};
}

using Storages = std::map<std::string_view, Bytes>;  // by key

Bytes find_storage(const Storages& storages, const StorageId& id, std::string_view origin) {
  const auto found = storages.find(id.key);
  if (found == storages.end()) throw Error("{}: storage {} is missing", origin, in_quotes(id.key));
  if (found->second.size() != id.size())
    throw Error("{}: storage {} has {} bytes; expected {}, for {} elements of {}", origin, in_quotes(id.key),
                found->second.size(), id.size(), id.elements, name_of(id.dtype));
  return found->second;
}

// A shape or strides: a tuple of integers, or torch.Size of one.
std::vector<std::int64_t> integers(const PickleValue& value, std::string_view origin, std::string_view name) {
  const PickleValue* tuple = &value;
  if (value.is_call_of("torch", "Size") && value.arguments->items.size() == 1) tuple = value.arguments->items[0];
  std::vector<std::int64_t> result;
  bool good = tuple->kind == Kind::Tuple && tuple->items.size() <= 16;
  for (std::size_t i = 0; good && i < tuple->items.size(); ++i) {
    result.push_back(tuple->items[i]->integer);
    good = tuple->items[i]->kind == Kind::Int && result.back() >= 0;
  }
  if (!good) throw Error("{}: tensor {} has a shape or strides that are no sizes", origin, in_quotes(name));
  return result;
}

// Every element inside the storage, and no more of them than it has (a view that repeats elements could ask for any
// amount of memory).
void check_bounds(const CheckpointTensor& tensor, std::string_view origin) {
  const auto capacity = static_cast<std::int64_t>(tensor.storage.size() / size_of(tensor.dtype));
  if (std::ranges::find(tensor.shape, 0) != tensor.shape.end()) return;
  std::int64_t elements = 1, last = tensor.offset;
  bool fits = tensor.offset >= 0;
  for (std::size_t i = 0; fits && i < tensor.shape.size(); ++i) {
    std::int64_t span = 0;
    fits = !__builtin_mul_overflow(elements, tensor.shape[i], &elements) &&
           !__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &span) &&
           !__builtin_add_overflow(last, span, &last);
  }
  if (!fits || last >= capacity || elements > capacity)
    throw Error("{}: tensor {} reaches beyond its storage of {} elements", origin, in_quotes(tensor.name), capacity);
}

bool is_tensor(const PickleValue& value) {
  return value.kind == Kind::Call && value.callable->module == "torch._utils";
}

CheckpointTensor read_tensor(const PickleValue& value, std::string_view name, const Storages& storages,
                             std::string_view origin) {
  const PickleValue* call = &value;
  const bool is_parameter = call->callable->text.starts_with("_rebuild_parameter");
  if (is_parameter && !call->arguments->items.empty()) call = call->arguments->items[0];
  const auto is_rebuild = [](const PickleValue& v) {
    return v.is_call_of("torch._utils", "_rebuild_tensor") || v.is_call_of("torch._utils", "_rebuild_tensor_v2");
  };
  if (!is_rebuild(*call) || call->arguments->items.size() < 4 || call->arguments->items[1]->kind != Kind::Int)
    throw Error("{}: tensor {} is not described as PyTorch does it", origin, in_quotes(name));

  const auto& arguments = call->arguments->items;
  const StorageId id = storage_id(*arguments[0], origin);
  CheckpointTensor tensor{.name = std::string(name),
                          .dtype = id.dtype,
                          .shape = integers(*arguments[2], origin, name),
                          .strides = integers(*arguments[3], origin, name),
                          .storage = find_storage(storages, id, origin),
                          .offset = arguments[1]->integer};
  if (tensor.strides.size() != tensor.shape.size())
    throw Error("{}: tensor {} has {} dimensions and {} strides", origin, in_quotes(name), tensor.shape.size(),
                tensor.strides.size());
  check_bounds(tensor, origin);
  return tensor;
}

bool is_dict(const PickleValue& value) {
  return (value.kind == Kind::Dict || value.is_call_of("collections", "OrderedDict")) && value.items.size() % 2 == 0;
}

const PickleValue* find_dict(const PickleValue& dict, std::string_view key) {
  for (std::size_t i = 0; i < dict.items.size(); i += 2)
    if (dict.items[i]->kind == Kind::Text && dict.items[i]->text == key && is_dict(*dict.items[i + 1]))
      return dict.items[i + 1];
  return nullptr;
}

// Where training code keeps the state dict; the first that is there is taken.
constexpr std::string_view kNestings[] = {"model", "state_dict", "ema_model", "ema"};
constexpr int kDeepestNesting = 4;

const PickleValue* enter_nesting(const PickleValue& dict, std::string& nesting) {
  for (const std::string_view key : kNestings) {
    if (const PickleValue* inner = find_dict(dict, key)) {
      if (!nesting.empty()) nesting += '.';
      nesting += key;
      return inner;
    }
  }
  return nullptr;
}

void read_state_dict(const PickleValue& root, const Storages& storages, std::string_view origin,
                     Checkpoint& checkpoint) {
  const PickleValue* dict = &root;
  if (!is_dict(*dict)) throw Error("{}: holds no dict; expected a state dict, or a dict with one in it", origin);
  for (int depth = 0; depth < kDeepestNesting; ++depth) {
    const PickleValue* inner = enter_nesting(*dict, checkpoint.nesting);
    if (inner == nullptr) break;
    dict = inner;
  }
  for (std::size_t i = 0; i < dict->items.size(); i += 2) {
    if (dict->items[i]->kind != Kind::Text || !is_tensor(*dict->items[i + 1])) continue;
    checkpoint.tensors.push_back(read_tensor(*dict->items[i + 1], dict->items[i]->text, storages, origin));
  }
}

void read_zip_checkpoint(Bytes bytes, std::string_view origin, Checkpoint& checkpoint) {
  constexpr std::string_view kPickleName = "data.pkl";
  const auto entries = read_zip(bytes, origin);
  const auto pickled = std::ranges::find_if(
      entries, [&](const auto& entry) { return entry.first == kPickleName || entry.first.ends_with("/data.pkl"); });
  if (pickled == entries.end())
    throw Error("{}: is a zip archive without data.pkl; expected one that torch.save wrote", origin);
  const std::string folder(pickled->first.substr(0, pickled->first.size() - kPickleName.size()));
  if (entries.contains(folder + "constants.pkl"))
    throw Error("{}: is a TorchScript archive; expected a state dict that torch.save wrote", origin);
  if (const auto order = entries.find(folder + "byteorder"); order != entries.end()) {
    const Bytes text = order->second.bytes;
    if (std::string_view(reinterpret_cast<const char*>(text.data()), text.size()) != "little")
      throw Error("{}: was written on a big-endian machine; expected little-endian tensors", origin);
  }

  Storages storages;
  const std::string storage_folder = folder + "data/";
  for (const auto& [name, entry] : entries)
    if (name.starts_with(storage_folder)) storages.emplace(name.substr(storage_folder.size()), entry.bytes);
  const Pickle pickle = read_pickle(pickled->second.bytes, origin, is_allowed);
  read_state_dict(*pickle.root, storages, origin, checkpoint);
}

// The number that begins the old format, 0x1950a86a20f9469cfc6c.
constexpr std::string_view kMagicNumber = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr std::int64_t kLegacyProtocol = 1001;

// Five pickles one after another (the magic number, the protocol, a description of the machine, the object, the keys
// of its storages), then per storage the count of its elements and the elements.
void read_legacy_checkpoint(Bytes bytes, std::string_view origin, Checkpoint& checkpoint) {
  const auto next_pickle = [&] {
    Pickle pickle = read_pickle(bytes, origin, is_allowed);
    bytes = bytes.subspan(pickle.size);
    return pickle;
  };
  if (const Pickle magic = next_pickle(); magic.root->kind != Kind::Long || magic.root->text != kMagicNumber)
    throw Error("{}: is a pickle, but not one that torch.save wrote", origin);
  if (const Pickle protocol = next_pickle();
      protocol.root->kind != Kind::Int || protocol.root->integer != kLegacyProtocol)
    throw Error("{}: is in an unknown version of torch.save's format; expected {}", origin, kLegacyProtocol);
  {
    const Pickle machine = next_pickle();
    const auto& items = machine.root->items;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2)
      if (items[i]->text == "little_endian" && items[i + 1]->integer == 0)
        throw Error("{}: was written on a big-endian machine; expected little-endian tensors", origin);
  }
  const Pickle object = next_pickle();
  const Pickle keys = next_pickle();
  if (keys.root->kind != Kind::List) throw Error("{}: has no list of its storages", origin);

  std::map<std::string_view, StorageId> ids;
  for (const PickleValue& value : object.values) {
    if (value.kind != Kind::PersistentId) continue;
    const StorageId id = storage_id(value, origin);
    ids.emplace(id.key, id);
  }
  Storages storages;
  ByteReader reader(bytes, origin, "the data of a storage");
  for (const PickleValue* key : keys.root->items) {
    const auto id = key->kind == Kind::Text ? ids.find(key->text) : ids.end();
    if (id == ids.end()) throw Error("{}: lists storage {}, which no tensor uses", origin, in_quotes(key->text));
    const auto elements = reader.little_endian<std::int64_t>();
    if (elements != id->second.elements)
      throw Error("{}: storage {} has {} elements; its tensors expect {}", origin, in_quotes(key->text), elements,
                  id->second.elements);
    storages.emplace(key->text, reader.take(id->second.size()));
  }
  read_state_dict(*object.root, storages, origin, checkpoint);
}

void read_safetensors_checkpoint(Bytes bytes, std::string_view origin, Checkpoint& checkpoint) {
  for (const auto& [name, view] : parse_safetensors(bytes, origin).tensors) {
    CheckpointTensor tensor{
        .name = name, .dtype = view.dtype, .shape = view.shape, .strides = {}, .storage = view.bytes, .offset = 0};
    tensor.strides.resize(view.shape.size());
    std::int64_t stride = 1;
    for (std::size_t i = view.shape.size(); i-- > 0; stride *= view.shape[i]) tensor.strides[i] = stride;
    checkpoint.tensors.push_back(std::move(tensor));
  }
}

// Takes off what wrappers (DataParallel, an averaged model) put before every name.
void strip_prefixes(Checkpoint& checkpoint) {
  auto& tensors = checkpoint.tensors;
  for (const std::string_view prefix : {"module.", "model.", "module."}) {
    const auto has_prefix = [&](const auto& tensor) { return tensor.name.starts_with(prefix); };
    if (tensors.empty() || !std::ranges::all_of(tensors, has_prefix)) continue;
    for (auto& tensor : tensors) tensor.name.erase(0, prefix.size());
    checkpoint.prefix += prefix;
  }
}

void check_zip_checksums(Bytes bytes, std::string_view origin) {
  for (const auto& [name, entry] : read_zip(bytes, origin)) check_crc32(entry, name, origin);
}

}  // namespace

CheckpointFormat recognise_format(Bytes bytes) {
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 512)};
  // First, because the header's length may begin with any byte, a pickle's among them. No other format has a brace
  // there: a pickle's magic number and a zip entry's method stand in its place.
  if (text.size() > 8 && text[8] == '{') return CheckpointFormat::Safetensors;
  if (text.starts_with("PK\x03\x04") || text.starts_with("PK\x05\x06")) return CheckpointFormat::Zip;
  if (text.size() > 2 && text[0] == '\x80' && text[1] <= 5) return CheckpointFormat::Pickle;
  if (text.size() > 262 && text.substr(257).starts_with("ustar")) return CheckpointFormat::Tar;
  return CheckpointFormat::Unknown;
}

std::string_view name_of(CheckpointFormat format) {
  switch (format) {
    case CheckpointFormat::Zip: return "PyTorch zip archive";
    case CheckpointFormat::Pickle: return "PyTorch pickle";
    case CheckpointFormat::Tar: return "PyTorch tar archive";
    case CheckpointFormat::Safetensors: return "safetensors";
    case CheckpointFormat::Unknown: break;
  }
  return "unknown";
}

std::int64_t CheckpointTensor::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count = size == 0 || count == 0 ? 0 : count * size;
  return count;
}

std::vector<float> to_floats(const CheckpointTensor& tensor) {
  std::vector<float> result(static_cast<std::size_t>(tensor.elements()));
  if (result.empty()) return result;
  const std::size_t width = size_of(tensor.dtype);
  const std::byte* const data = tensor.storage.data();

  // Dimensions from the right whose elements follow one another need no stepping.
  std::size_t outer = tensor.shape.size();
  std::int64_t run = 1;
  while (outer > 0 && (tensor.shape[outer - 1] == 1 || tensor.strides[outer - 1] == run)) run *= tensor.shape[--outer];

  std::vector<std::int64_t> index(outer, 0);
  std::int64_t position = tensor.offset;
  for (std::size_t done = 0; done < result.size(); done += static_cast<std::size_t>(run)) {
    const std::byte* source = data + static_cast<std::size_t>(position) * width;
    if (tensor.dtype == DType::F32)
      std::memcpy(&result[done], source, static_cast<std::size_t>(run) * width);
    else
      for (std::size_t i = 0; i < static_cast<std::size_t>(run); ++i)
        result[done + i] = element_as_float(source + i * width, tensor.dtype);
    for (std::size_t d = outer; d-- > 0;) {
      position += tensor.strides[d];
      if (++index[d] < tensor.shape[d]) break;
      position -= tensor.strides[d] * tensor.shape[d];
      index[d] = 0;
    }
  }
  return result;
}

Checkpoint parse_checkpoint(Bytes bytes, std::string_view origin) {
  Checkpoint checkpoint;
  checkpoint.format = recognise_format(bytes);
  switch (checkpoint.format) {
    case CheckpointFormat::Zip: read_zip_checkpoint(bytes, origin, checkpoint); break;
    case CheckpointFormat::Pickle: read_legacy_checkpoint(bytes, origin, checkpoint); break;
    case CheckpointFormat::Safetensors: read_safetensors_checkpoint(bytes, origin, checkpoint); break;
    case CheckpointFormat::Tar:
      throw Error("{}: is a tar archive, as PyTorch before 0.1.10 wrote; load and save it again with a newer PyTorch",
                  origin);
    case CheckpointFormat::Unknown:
      throw Error("{}: is {}; expected a PyTorch checkpoint (.pth, .pt) or a safetensors file", origin,
                  bytes.empty() ? "empty" : "not a checkpoint");
  }
  if (checkpoint.tensors.empty()) throw Error("{}: holds no tensors; expected a state dict", origin);
  strip_prefixes(checkpoint);
  return checkpoint;
}

CheckpointFile::CheckpointFile(const std::string& path) : file_(path), contents_(parse_checkpoint(bytes(), path)) {
  if (contents_.format == CheckpointFormat::Zip) check_zip_checksums(bytes(), path);
}

}  // namespace damoyolo
