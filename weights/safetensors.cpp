#include "weights/safetensors.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "engine/core/error.h"
#include "weights/byte_reader.h"
#include "weights/in_quotes.h"

namespace damoyolo {
namespace {

using nlohmann::json;
using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kLongestHeader = 100'000'000;  // the reference implementation's limit
constexpr std::string_view kMetadata = "__metadata__";

// Elements of a shape; false when the count overflows or a size is negative.
bool count_elements(const std::vector<std::int64_t>& shape, std::int64_t& count) {
  count = 1;
  for (const std::int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return false;
  return true;
}

// JSON as the header needs it: objects in an object, arrays in those, and no key twice.
json parse_header(std::string_view text, std::string_view origin) {
  constexpr int kDeepest = 3;
  std::array<std::set<std::string>, kDeepest> keys;
  const auto inspect = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      if (depth >= kDeepest) throw Error("{}: has a safetensors header that is nested too deeply", origin);
      keys[static_cast<std::size_t>(depth)].clear();
    } else if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys[static_cast<std::size_t>(depth - 1)].insert(key).second)
        throw Error("{}: has {} twice in its safetensors header", origin, in_quotes(key));
    }
    return true;
  };
  try {
    json header = json::parse(text, inspect);
    if (!header.is_object()) throw Error("{}: has a safetensors header that is no JSON object", origin);
    return header;
  } catch (const json::exception&) {
    throw Error("{}: has a safetensors header that is not valid JSON", origin);
  }
}

std::vector<std::int64_t> sizes(const json& entry, const char* field, std::string_view origin,
                                const std::string& name) {
  const auto found = entry.find(field);
  std::vector<std::int64_t> result;
  bool good = found != entry.end() && found->is_array() && found->size() <= 16;
  for (std::size_t i = 0; good && i < found->size(); ++i) {
    good = (*found)[i].is_number_unsigned() && (*found)[i].get<std::uint64_t>() <= INT64_MAX;
    if (good) result.push_back((*found)[i].get<std::int64_t>());
  }
  if (!good) throw Error("{}: tensor {} has no {} that is an array of sizes", origin, in_quotes(name), field);
  return result;
}

struct Extent {
  std::int64_t begin = 0, end = 0;
  const std::string* name = nullptr;
};

Extent read_tensor(const json& entry, const std::string& name, Bytes data, std::string_view origin, TensorView& view) {
  if (!entry.is_object()) throw Error("{}: tensor {} is described by no JSON object", origin, in_quotes(name));
  const auto type = entry.find("dtype");
  if (type == entry.end() || !type->is_string()) throw Error("{}: tensor {} has no dtype", origin, in_quotes(name));
  const auto& type_name = type->get_ref<const std::string&>();
  const auto dtype = dtype_from_name(type_name);
  if (!dtype) throw Error("{}: tensor {} has the unknown dtype {}", origin, in_quotes(name), in_quotes(type_name));
  view.dtype = *dtype;
  view.shape = sizes(entry, "shape", origin, name);

  const auto offsets = sizes(entry, "data_offsets", origin, name);
  if (offsets.size() != 2 || offsets[0] > offsets[1] || static_cast<std::uint64_t>(offsets[1]) > data.size())
    throw Error("{}: tensor {} has data_offsets outside the {} bytes of data", origin, in_quotes(name), data.size());
  std::int64_t size = 0;
  if (!count_elements(view.shape, size) ||
      __builtin_mul_overflow(size, static_cast<std::int64_t>(size_of(*dtype)), &size) ||
      size != offsets[1] - offsets[0])
    throw Error("{}: tensor {} has {} bytes of data, which is not what its shape and dtype need", origin,
                in_quotes(name), offsets[1] - offsets[0]);
  view.bytes = data.subspan(static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(size));
  return {offsets[0], offsets[1], &name};
}

void check_coverage(std::vector<Extent>& extents, std::size_t data_size, std::string_view origin) {
  std::ranges::sort(extents, {}, [](const Extent& e) { return std::pair(e.begin, e.end); });
  std::int64_t covered = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != covered)
      throw Error("{}: tensor {} begins at byte {} of the data, {} the tensor before it, which ends at {}", origin,
                  in_quotes(*extent.name), extent.begin, extent.begin < covered ? "inside" : "leaving a gap after",
                  covered);
    covered = extent.end;
  }
  if (static_cast<std::uint64_t>(covered) != data_size)
    throw Error("{}: has {} bytes of data, of which its tensors cover {}", origin, data_size, covered);
}

void write_bytes(std::ofstream& out, const void* data, std::size_t size) {
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
}

}  // namespace

std::int64_t TensorView::elements() const {
  std::int64_t count = 0;
  return count_elements(shape, count) ? count : 0;
}

std::vector<float> to_floats(const TensorView& tensor) {
  const std::size_t width = size_of(tensor.dtype);
  std::vector<float> result(tensor.bytes.size() / width);
  if (tensor.dtype == DType::F32 && !result.empty())
    std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
  else
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = element_as_float(tensor.bytes.data() + i * width, tensor.dtype);
  return result;
}

Safetensors parse_safetensors(Bytes bytes, std::string_view origin) {
  ByteReader reader(bytes, origin, "a safetensors file");
  const auto header_size = reader.little_endian<std::uint64_t>();
  if (header_size > kLongestHeader)
    throw Error("{}: is no safetensors file: it states a header of {} bytes, and {} is the limit", origin, header_size,
                kLongestHeader);
  const json header = parse_header(reader.text(header_size), origin);
  const Bytes data = bytes.subspan(reader.position());

  Safetensors result;
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadata) {
      if (!entry.is_object()) throw Error("{}: has a {} that is no JSON object", origin, kMetadata);
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) throw Error("{}: metadata {} is no text", origin, in_quotes(key));
        result.metadata.emplace(key, value.get<std::string>());
      }
    } else {
      const auto tensor = result.tensors.try_emplace(name).first;
      extents.push_back(read_tensor(entry, tensor->first, data, origin, tensor->second));
    }
  }
  check_coverage(extents, data.size(), origin);
  return result;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : file_(path), contents_(parse_safetensors(file_.bytes(), path)) {}

void write_safetensors(const std::string& path, const Safetensors& contents) {
  std::vector<const std::pair<const std::string, TensorView>*> order;
  for (const auto& tensor : contents.tensors) order.push_back(&tensor);
  std::ranges::stable_sort(order, std::greater{}, [](const auto* tensor) { return size_of(tensor->second.dtype); });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!contents.metadata.empty()) header[std::string(kMetadata)] = contents.metadata;
  std::size_t offset = 0;
  for (const auto* tensor : order) {
    const auto& [name, view] = *tensor;
    header[name] = {
        {"dtype", name_of(view.dtype)}, {"shape", view.shape}, {"data_offsets", {offset, offset + view.bytes.size()}}};
    offset += view.bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw Error("{}: cannot be written: a name or metadata text is not valid UTF-8", path);
  }
  text.append((8 - text.size() % 8) % 8, ' ');

  const std::string unfinished = fmt::format("{}.{}.partial", path, ::getpid());
  errno = 0;
  std::ofstream out(unfinished, std::ios::binary | std::ios::trunc);
  std::array<unsigned char, 8> length{};
  for (std::size_t i = 0; i < length.size(); ++i)
    length[i] = static_cast<unsigned char>(std::uint64_t{text.size()} >> (8 * i));
  write_bytes(out, length.data(), length.size());
  write_bytes(out, text.data(), text.size());
  for (const auto* tensor : order) write_bytes(out, tensor->second.bytes.data(), tensor->second.bytes.size());
  out.close();
  if (!out || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    std::remove(unfinished.c_str());
    throw Error("{}: cannot be written: {}", path, std::strerror(reason));
  }
}

}  // namespace damoyolo
