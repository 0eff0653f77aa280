#include "loader/coco_eval.h"

#include <doctest/doctest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/core/error.h"

using namespace damoyolo;
using nlohmann::json;

namespace {

json read_json(const std::string& path) {
  std::ifstream file(path);
  REQUIRE_MESSAGE(file, path);
  return json::parse(file);
}

// Read here and not by the loader, so that this test judges the evaluation alone.
CocoAnnotations read_truth(const std::string& path) {
  const json source = read_json(path);
  CocoAnnotations truth;
  for (const json& image : source["images"]) {
    truth.images.push_back({image["id"], image["file_name"], image["width"], image["height"]});
  }
  for (const json& object : source["annotations"]) {
    truth.annotations.push_back(
        {object["image_id"], object["category_id"], object["bbox"], object["area"], object["iscrowd"] == 1});
  }
  for (const json& category : source["categories"]) truth.categories.push_back({category["id"], category["name"]});
  return truth;
}

void check_equal(const std::optional<double>& value, const json& expected) {
  REQUIRE(value.has_value() == !expected.is_null());
  if (value) CHECK(std::abs(*value - expected.get<double>()) < 1e-9);
}

// One image, one class.
CocoAnnotations one_image(std::vector<CocoAnnotation> objects) {
  return {{{1, "1.png", 640, 640}}, std::move(objects), {{1, "thing"}}};
}

CocoAnnotation object_at(double x, double size = 50, bool crowd = false) {
  return {1, 1, {x, 0, size, size}, size * size, crowd};
}

CocoDetection detection_at(double x, double score, double size = 50) { return {1, 1, {x, 0, size, size}, score}; }

}  // namespace

TEST_CASE("coco evaluation agrees with pycocotools on a hard set") {
  const std::string folder = "tests/data/coco_eval/";
  std::vector<CocoDetection> detections;
  for (const json& d : read_json(folder + "detections.json")) {
    detections.push_back({d["image_id"], d["category_id"], d["bbox"], d["score"]});
  }
  const CocoPrecision result = evaluate_coco(read_truth(folder + "truth.json"), detections);

  const json expected = read_json(folder + "expected.json");
  check_equal(result.ap, expected["ap"]);
  check_equal(result.ap50, expected["ap50"]);
  check_equal(result.ap75, expected["ap75"]);
  check_equal(result.ap_small, expected["ap_small"]);
  check_equal(result.ap_medium, expected["ap_medium"]);
  check_equal(result.ap_large, expected["ap_large"]);
  REQUIRE(result.classes.size() == expected["classes"].size());
  for (std::size_t i = 0; i < result.classes.size(); ++i) {
    CAPTURE(i);
    const json& cls = expected["classes"][i];
    CHECK(result.classes[i].category_id == cls["category_id"]);
    check_equal(result.classes[i].ap, cls["ap"]);
    check_equal(result.classes[i].ap50, cls["ap50"]);
    check_equal(result.classes[i].ap75, cls["ap75"]);
  }
}

TEST_CASE("coco evaluation gives the known precision of the digits model") {
  const CocoAnnotations truth = read_truth("tests/data/digits/annotations.json");
  const json expected = read_json("tests/data/digits/expected.json");
  std::vector<CocoDetection> detections;
  for (const CocoImage& image : truth.images) {
    for (const json& row : expected["images"][image.file_name]) {
      const double x1 = row[2], y1 = row[3], x2 = row[4], y2 = row[5];
      detections.push_back({image.id, row[0].get<int>() + 1, {x1, y1, x2 - x1, y2 - y1}, row[1]});
    }
  }
  const CocoPrecision result = evaluate_coco(truth, detections);
  CHECK(std::abs(result.ap.value() - expected["ap"].get<double>()) < 5e-5);  // published with four decimals
  CHECK(std::abs(result.ap50.value() - expected["ap50"].get<double>()) < 5e-5);
}

TEST_CASE("coco evaluation without objects, without detections, without classes") {
  CHECK_FALSE(evaluate_coco({}, {}).ap);

  const CocoPrecision nothing_found = evaluate_coco(one_image({object_at(0)}), {});
  CHECK(nothing_found.ap == 0.0);
  CHECK_FALSE(nothing_found.ap_small);
  CHECK(nothing_found.ap_medium == 0.0);

  const std::vector<CocoDetection> found{detection_at(0, 0.9)};
  const CocoPrecision nothing_there = evaluate_coco(one_image({}), found);
  CHECK_FALSE(nothing_there.ap);
  REQUIRE(nothing_there.classes.size() == 1);
  CHECK_FALSE(nothing_there.classes[0].ap);

  const std::vector<CocoDetection> of_unknown_class{{1, 99, {0, 0, 50, 50}, 0.9}};
  CHECK(evaluate_coco(one_image({object_at(0)}), of_unknown_class).ap == 0.0);
}

TEST_CASE("coco evaluation: a crowd takes any number of detections and counts none") {
  const std::vector<CocoDetection> detections{detection_at(210, 0.9, 20), detection_at(240, 0.8, 20),
                                              detection_at(0, 0.7)};
  const auto with_crowd = evaluate_coco(one_image({object_at(0), object_at(200, 100, true)}), detections);
  CHECK(with_crowd.ap.value() == doctest::Approx(1));
  const auto without = evaluate_coco(one_image({object_at(0)}), detections);
  CHECK(without.ap.value() == doctest::Approx(1.0 / 3));
}

TEST_CASE("coco evaluation: only the best hundred detections of an image count") {
  std::vector<CocoDetection> detections{detection_at(0, 0.1)};
  for (int i = 0; i < 99; ++i) detections.push_back(detection_at(300, 0.5));
  CHECK(evaluate_coco(one_image({object_at(0)}), detections).ap.value() == doctest::Approx(0.01));
  detections.push_back(detection_at(300, 0.5));
  CHECK(evaluate_coco(one_image({object_at(0)}), detections).ap == 0.0);
}

TEST_CASE("coco evaluation: of two objects overlapped equally, the later one is taken") {
  // The second detection lies exactly on the later object, which at overlap 0.5 the first one has already.
  const std::vector<CocoDetection> detections{detection_at(10, 0.9), detection_at(20, 0.8)};
  const CocoPrecision result = evaluate_coco(one_image({object_at(0), object_at(20)}), detections);
  CHECK(result.ap50.value() == doctest::Approx(51.0 / 101));
  CHECK(result.ap75.value() == doctest::Approx(51.0 / 101 / 2));
}

TEST_CASE("coco evaluation refuses detections it cannot place") {
  const CocoAnnotations truth = one_image({object_at(0)});
  const auto evaluate = [&](CocoDetection detection) { return evaluate_coco(truth, std::vector{detection}); };
  CHECK_THROWS_WITH_AS(evaluate({7, 1, {0, 0, 1, 1}, 0.5}),
                       "detection 0 is of image 7, but the annotations have no such image", Error);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(evaluate({1, 1, {0, 0, 1, 1}, nan}), Error);
  CHECK_THROWS_AS(evaluate({1, 1, {0, nan, 1, 1}, 0.5}), Error);
}
