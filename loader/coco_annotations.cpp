#include "loader/coco_annotations.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <unordered_set>

#include "engine/core/error.h"
#include "engine/core/mapped_file.h"

namespace damoyolo {
namespace {

using Json = nlohmann::json;

// An object of the file, and where it is, for messages.
struct Record {
  const Json& json;
  std::string_view origin;
  std::string place;  // "annotations[12]"

  [[noreturn]] void fail(std::string_view field, std::string_view expected) const {
    throw Error("{}: {}.{} is missing or wrong, expected {}", origin, place, field, expected);
  }

  const Json* find(const char* field) const {
    const auto found = json.find(field);
    return found == json.end() ? nullptr : &*found;
  }

  template <typename Integer>
  Integer integer(const char* field, Integer least = std::numeric_limits<Integer>::min()) const {
    const Json* value = find(field);
    // An unsigned value beyond the signed range would turn negative below.
    const bool fits = value != nullptr && value->is_number_integer() &&
                      (!value->is_number_unsigned() ||
                       value->get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<Integer>::max()));
    if (fits) {
      const auto number = value->get<std::int64_t>();
      if (number >= least && number <= std::numeric_limits<Integer>::max()) return static_cast<Integer>(number);
    }
    fail(field, least == 1 ? "a positive integer" : "an integer");
  }

  std::string text(const char* field) const {
    const Json* value = find(field);
    if (value == nullptr || !value->is_string()) fail(field, "a string");
    return value->get<std::string>();
  }

  std::array<double, 4> box() const {
    const Json* value = find("bbox");
    bool valid = value != nullptr && value->is_array() && value->size() == 4;
    std::array<double, 4> box{};
    for (std::size_t i = 0; valid && i < 4; ++i) {
      valid = (*value)[i].is_number();
      if (valid) box[i] = (*value)[i].get<double>();
      valid = valid && std::isfinite(box[i]) && (i < 2 || box[i] >= 0);
    }
    if (!valid) fail("bbox", "[x, y, width, height] with a size of at least 0");
    return box;
  }

  double area(double otherwise) const {
    const Json* value = find("area");
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() < 0) {
      fail("area", "a number of at least 0");
    }
    return value->get<double>();
  }

  bool crowd() const {
    const Json* value = find("iscrowd");
    if (value == nullptr) return false;
    if (value->is_boolean()) return value->get<bool>();
    if (*value != 0 && *value != 1) fail("iscrowd", "0 or 1");
    return *value == 1;
  }
};

// Calls `read` with every record of one of the file's three lists.
template <typename Read>
void for_each_record(const Json& file, const char* list, std::string_view origin, Read read) {
  const auto found = file.find(list);
  if (found == file.end() || !found->is_array()) {
    throw Error("{}: has no list \"{}\", expected a COCO annotation file", origin, list);
  }
  for (std::size_t i = 0; i < found->size(); ++i) {
    Record record{(*found)[i], origin, fmt::format("{}[{}]", list, i)};
    if (!record.json.is_object()) throw Error("{}: {} is not an object", origin, record.place);
    read(record);
  }
}

Json parse(std::span<const std::byte> bytes, std::string_view origin) {
  // Outlines are most of the file and are not needed here.
  const auto keep = [](int, Json::parse_event_t event, const Json& parsed) {
    return event != Json::parse_event_t::key || parsed.get_ref<const std::string&>() != "segmentation";
  };
  const char* const begin = reinterpret_cast<const char*>(bytes.data());
  try {
    Json file = Json::parse(begin, begin + bytes.size(), keep);
    if (!file.is_object()) throw Error("{}: is not a JSON object, expected a COCO annotation file", origin);
    return file;
  } catch (const Json::exception& error) {
    throw Error("{}: is not valid JSON, expected a COCO annotation file ({})", origin, error.what());
  }
}

}  // namespace

CocoAnnotations parse_coco_annotations(std::span<const std::byte> bytes, std::string_view origin) {
  const Json file = parse(bytes, origin);
  CocoAnnotations result;
  std::unordered_set<std::int64_t> images;
  for_each_record(file, "images", origin, [&](const Record& record) {
    CocoImage image{record.integer<std::int64_t>("id"), record.text("file_name"), record.integer<int>("width", 1),
                    record.integer<int>("height", 1)};
    if (!images.insert(image.id).second) record.fail("id", "an id that no other image has");
    result.images.push_back(std::move(image));
  });
  std::unordered_set<int> categories;
  for_each_record(file, "categories", origin, [&](const Record& record) {
    CocoCategory category{record.integer<int>("id"), record.text("name")};
    if (!categories.insert(category.id).second) record.fail("id", "an id that no other category has");
    result.categories.push_back(std::move(category));
  });
  for_each_record(file, "annotations", origin, [&](const Record& record) {
    CocoAnnotation annotation;
    annotation.image_id = record.integer<std::int64_t>("image_id");
    annotation.category_id = record.integer<int>("category_id");
    annotation.bbox = record.box();
    annotation.area = record.area(annotation.bbox[2] * annotation.bbox[3]);
    annotation.crowd = record.crowd();
    if (!images.contains(annotation.image_id)) record.fail("image_id", "the id of an image in the file");
    if (!categories.contains(annotation.category_id)) record.fail("category_id", "the id of a category in the file");
    result.annotations.push_back(annotation);
  });
  return result;
}

CocoAnnotations read_coco_annotations(const std::string& path) {
  return parse_coco_annotations(MappedFile(path).bytes(), path);
}

}  // namespace damoyolo
