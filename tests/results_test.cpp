#include "loader/results.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "engine/model/spec.h"
#include "tests/file_bytes.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;
using nlohmann::json;
using test::contains;

namespace {

Detection detection(float x1, float y1, float x2, float y2, float score, int class_id) {
  return {{x1, y1, x2, y2}, score, class_id};
}

json parsed(const std::string& path) { return json::parse(test::read_file(path)); }

}  // namespace

TEST_CASE("results: JSON has every image with its detections, in order") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("out.json");
  JsonResults results(path, {"cat", "a \"dog\"\n"});
  results.add({"b/1.jpg",
               640,
               480,
               {detection(1.5f, 2, 3, 4.25f, 0.9f, 1), detection(0, 0, 5, 5, 0.3f, 7)},
               {{"decode", 3.5}}});
  results.add({"a/2.jpg", 10, 20, {}, {}});
  results.close();
  const json expected = json::parse(R"([
    {"image": "b/1.jpg", "width": 640, "height": 480, "ms": {"decode": 3.5}, "detections": [
      {"class_id": 1, "label": "a \"dog\"\n", "score": 0.9, "box": [1.5, 2, 3, 4.25]},
      {"class_id": 7, "label": "7", "score": 0.3, "box": [0, 0, 5, 5]}]},
    {"image": "a/2.jpg", "width": 10, "height": 20, "ms": {}, "detections": []}])");
  CHECK(parsed(path) == expected);
  // As short as a float can be written, and in the documented order.
  CHECK(
      contains(test::read_file(path), R"({"image":"b/1.jpg","width":640,"height":480,"detections":[{"class_id":1,)"));
  CHECK(contains(test::read_file(path), R"("score":0.9,)"));
}

TEST_CASE("results: what was written so far is valid JSON when the writer goes") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("out.json");
  { const JsonResults none(path, {}); }
  CHECK(parsed(path) == json::array());
  {
    JsonResults one(path, {});
    one.add({"x.png", 1, 1, {}, {}});
  }
  CHECK(parsed(path).size() == 1);
}

TEST_CASE("results: a path that is not UTF-8 is written with replacements") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("out.json");
  {
    JsonResults results(path, {});
    results.add({"caf\xe9.png", 1, 1, {}, {}});
  }
  CHECK(parsed(path)[0]["image"] == "caf\xef\xbf\xbd.png");
}

TEST_CASE("results: COCO's image and category ids") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("coco.json");
  const auto record = [&](const std::vector<std::string>& names, const std::string& image, int class_id) {
    {
      CocoResults results(path, names, {{"known.jpg", 77}, {"5.jpg", 6}});
      results.add({"first.png", 9, 9, {}, {}});
      results.add({image, 100, 100, {detection(10, 20, 40, 60.5f, 0.75f, class_id)}, {}});
    }
    const json all = parsed(path);
    REQUIRE(all.size() == 1);
    CHECK(all[0]["bbox"] == json({10, 20, 30, 40.5}));
    CHECK(all[0]["score"] == 0.75);
    return std::pair<int, int>(all[0]["image_id"], all[0]["category_id"]);
  };
  using Ids = std::pair<int, int>;
  const std::vector<std::string> own = {"cat", "dog"};
  CHECK(record(own, "x/known.jpg", 0) == Ids{77, 1});
  CHECK(record(own, "x/5.jpg", 1) == Ids{6, 2});
  CHECK(record(own, "x/000000000139.jpg", 0) == Ids{139, 1});
  CHECK(record(own, "x/12a.jpg", 0) == Ids{2, 1});
  CHECK(record(own, "x/99999999999999999999999.jpg", 0) == Ids{2, 1});
  // The ends of the list and both sides of its gaps, as in COCO's annotation files.
  for (const auto& [class_id, category] :
       {Ids{0, 1}, {10, 11}, {11, 13}, {23, 25}, {24, 27}, {60, 67}, {61, 70}, {79, 90}}) {
    CHECK(record(coco_names(), "x/1.jpg", class_id) == Ids{1, category});
  }
}

TEST_CASE("results: YOLO's lines are fractions of the image") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("1.txt");
  write_yolo_text(path,
                  {"1.jpg", 200, 100, {detection(50, 20, 150, 40, 0.5f, 3), detection(0, 0, 200, 100, 1, 0)}, {}});
  CHECK(test::read_file(path) ==
        "3 0.500000 0.300000 0.500000 0.200000 0.500000\n0 0.500000 0.500000 1.000000 1.000000 1.000000\n");
  write_yolo_text(path, {"1.jpg", 200, 100, {}, {}});
  CHECK(test::read_file(path) == "");
}

TEST_CASE("results: a file that cannot be written is an error") {
  CHECK(contains(test::error_of([] { JsonResults("no/such/folder.json", {}); }), "folder.json: cannot be written"));
  CHECK(contains(test::error_of([] { write_yolo_text("no/such/folder.txt", {}); }), "folder.txt: cannot be written"));
  std::optional<JsonArrayFile> full;
  full.emplace("/dev/full");
  full->add("1");
  CHECK(contains(test::error_of([&] { full->close(); }), "/dev/full: could not be written completely"));
}
