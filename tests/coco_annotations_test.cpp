#include "loader/coco_annotations.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/file_bytes.h"

using namespace damoyolo;
using test::contains;

namespace {

const std::string kImages = R"("images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 20}])";
const std::string kCategories = R"("categories": [{"id": 3, "name": "cat", "supercategory": "animal"}])";

std::string file_with(const std::string& annotation) {
  return "{" + kImages + ", " + kCategories + R"(, "annotations": [)" + annotation + "]}";
}

CocoAnnotations parse(const std::string& text) { return parse_coco_annotations(test::as_bytes(text), "ann.json"); }

std::string refusal(const std::string& text) {
  return test::error_of([&] { parse(text); });
}

}  // namespace

TEST_CASE("coco annotations: every field is read") {
  const CocoAnnotations all = parse(file_with(
      R"({"image_id": 7, "category_id": 3, "bbox": [1, 2.5, 10, 4], "area": 31.5, "iscrowd": 1, "segmentation": [[1, 2]]},
         {"image_id": 7, "category_id": 3, "bbox": [0, 0, 3, 4], "segmentation": {"counts": "x", "size": [1, 2]}})"));
  REQUIRE(all.images.size() == 1);
  CHECK(all.images[0].id == 7);
  CHECK(all.images[0].file_name == "a.png");
  CHECK(all.images[0].width == 30);
  CHECK(all.images[0].height == 20);
  REQUIRE(all.categories.size() == 1);
  CHECK(all.categories[0].id == 3);
  CHECK(all.categories[0].name == "cat");
  REQUIRE(all.annotations.size() == 2);
  CHECK(all.annotations[0].image_id == 7);
  CHECK(all.annotations[0].category_id == 3);
  CHECK(all.annotations[0].bbox == std::array<double, 4>{1, 2.5, 10, 4});
  CHECK(all.annotations[0].area == 31.5);
  CHECK(all.annotations[0].crowd);
  CHECK(all.annotations[1].area == 12);
  CHECK_FALSE(all.annotations[1].crowd);
}

TEST_CASE("coco annotations: what is wrong is named with its place") {
  const auto annotation = [](const std::string& fields) { return refusal(file_with("{" + fields + "}")); };
  const std::string ids = R"("image_id": 7, "category_id": 3)";
  CHECK(
      contains(annotation(ids), "ann.json: annotations[0].bbox is missing or wrong, expected [x, y, width, height]"));
  CHECK(contains(annotation(ids + R"(, "bbox": [1, 2, 3])"), "annotations[0].bbox"));
  CHECK(contains(annotation(ids + R"(, "bbox": [1, 2, -3, 4])"), "annotations[0].bbox"));
  CHECK(contains(annotation(ids + R"(, "bbox": [1, 2, "3", 4])"), "annotations[0].bbox"));
  const std::string box = R"(, "bbox": [1, 2, 3, 4])";
  CHECK(annotation(ids + box) == "");
  CHECK(contains(annotation(ids + box + R"(, "area": -1)"), "annotations[0].area"));
  CHECK(contains(annotation(ids + box + R"(, "iscrowd": 2)"), "annotations[0].iscrowd"));
  CHECK(contains(annotation(ids + box + R"(, "iscrowd": "no")"), "annotations[0].iscrowd"));
  CHECK(contains(annotation(R"("image_id": 8, "category_id": 3)" + box),
                 "image_id is missing or wrong, expected the id"));
  CHECK(contains(annotation(R"("image_id": 7, "category_id": 4)" + box), "category_id is missing or wrong"));
  CHECK(contains(annotation(R"("image_id": 7, "category_id": 4294967299)" + box), "category_id"));
  CHECK(
      contains(annotation(R"("image_id": 18446744073709551615, "category_id": 3)" + box), "annotations[0].image_id"));
  CHECK(contains(annotation(R"("image_id": 7.5, "category_id": 3)" + box), "annotations[0].image_id"));

  CHECK(contains(refusal("{}"), R"(ann.json: has no list "images")"));
  CHECK(contains(refusal("[]"), "ann.json: is not a JSON object"));
  CHECK(contains(refusal(""), "ann.json: is not valid JSON"));
  CHECK(contains(refusal(R"({"images": [1e999]})"), "ann.json: is not valid JSON"));
  CHECK(contains(refusal(R"({"images": [3]})"), "ann.json: images[0] is not an object"));
  CHECK(contains(refusal(R"({"images": [{"id": 1, "file_name": "a", "width": 0, "height": 5}]})"),
                 "ann.json: images[0].width is missing or wrong, expected a positive integer"));
  CHECK(
      contains(refusal(R"({"images": [{"id": 1, "file_name": 2, "width": 5, "height": 5}]})"), "images[0].file_name"));
  const std::string image = R"({"id": 1, "file_name": "a", "width": 5, "height": 5})";
  CHECK(contains(refusal(R"({"images": [)" + image + ", " + image + "]}"), "images[1].id is missing or wrong"));
  CHECK(contains(refusal("{" + kImages + R"(, "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]})"),
                 "categories[1].id"));
  CHECK(contains(test::error_of([] { read_coco_annotations("none.json"); }), "none.json: "));
}

TEST_CASE("coco annotations: deep nesting is no danger") {
  CHECK(contains(refusal(std::string(1000000, '[')), "is not valid JSON"));
  CHECK(contains(refusal(std::string(1000000, '[') + std::string(1000000, ']')), "is not a JSON object"));
}
