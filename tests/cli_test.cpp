#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/result_files.h"
#include "cli/text.h"
#include "engine/audit.h"
#include "engine/detector.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "loader/coco_eval.h"
#include "loader/image.h"
#include "tests/cli_run.h"
#include "tests/file_bytes.h"
#include "tests/golden_generator.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"
#include "weights/safetensors.h"

using namespace damoyolo;
using nlohmann::json;
using test::contains;
using test::Outcome;
using test::run;

namespace {

const std::string kWeights = "weights/demo/digits-ns.safetensors";
const std::string kDigits = "tests/data/digits/";
constexpr std::size_t kImages = 20;  // that are there, of the hundred that are annotated

json read_json(const std::string& path) { return json::parse(test::read_file(path)); }

// Images, annotations and expected detections of the scenes whose pictures are here.
json annotations_of_first_images(std::size_t count) {
  json truth = read_json(kDigits + "annotations.json");
  json images = json::array(), annotations = json::array();
  std::vector<int> ids;
  for (std::size_t i = 0; i < count; ++i) {
    images.push_back(truth["images"][i]);
    ids.push_back(truth["images"][i]["id"].get<int>());
  }
  for (const json& object : truth["annotations"]) {
    if (std::find(ids.begin(), ids.end(), object["image_id"].get<int>()) != ids.end()) annotations.push_back(object);
  }
  truth["images"] = images;
  truth["annotations"] = annotations;
  return truth;
}

DetectorOptions placed(const std::string& arguments) {
  CLI::App app;
  DetectorOptions options;
  cli::add_place_options(app, options);
  app.parse("--device cpu " + arguments);
  return options;
}

}  // namespace

TEST_CASE(
    "cli: kernels overlap, launches compute two convolutions and branches run side by side unless they must not") {
  const DetectorOptions given = placed("");
  CHECK(given.overlap);
  CHECK(given.pairs);
  CHECK(given.streams == 4);
  CHECK_FALSE(placed("--no-overlap").overlap);
  CHECK_FALSE(placed("--no-pairs").pairs);
  CHECK(placed("--streams 1").streams == 1);
}

TEST_CASE("cli: wrong usage exits with 2 and says what was wrong") {
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  const Case cases[] = {
      {{}, "subcommand is required"},
      {{"find"}, "there is no subcommand \"find\""},
      {{"--bright"}, "not expected: --bright\n"},
      {{"detect"}, "is required"},
      {{"detect", "a.png"}, "--weights is required"},
      {{"detect", "a.png", "-w", "w", "--conf", "1.5"}, "--conf: \"1.5\" is not a number from 0 to 1"},
      {{"detect", "a.png", "-w", "w", "--conf", "nan"}, "--conf: \"nan\""},
      {{"detect", "a.png", "-w", "w", "--iou", "-0.1"}, "--iou: \"-0.1\""},
      {{"detect", "a.png", "-w", "w", "--max-det", "501"}, "--max-det: \"501\" is not a whole number from 1 to 500"},
      {{"detect", "a.png", "-w", "w", "--batch", "1.5"}, "--batch: \"1.5\" is not a whole number from 1 to 1024"},
      {{"detect", "a.png", "-w", "w", "--json", ""}, "an argument is empty: what follows \"--json\""},
      {{"detect", "a.png", "-w", "w", "--device", "cuda:x"}, "\"cuda:x\" is not auto, cpu, cuda or cuda:N"},
      {{"detect", "a.png", "-w", "w", "--precision", "int8"}, "--precision: int8"},
      {{"detect", "a.png", "-w", "w", "--bright"}, "not expected: --bright\n"},
      {{"graph", "--variant", "S", "--conf", "0.4"}, "not expected: --conf 0.4\n"},
      {{"import", "a.pth", "-o", "b", "--size", "100x128"}, "\"100x128\" is not HEIGHTxWIDTH"},
      {{"import", "a.pth", "-o", "b", "--size", "128"}, "\"128\" is not HEIGHTxWIDTH"},
      {{"import", "a.pth", "-o", "b", "--variant", "XL"}, "--variant: XL"},
      {{"import", "a.pth", "-o", "b", "--variant", "S", "--structure", "s.json"}, "excludes"},
      {{"forward", "-w", "w", "-i", "in"}, "--out is required"},
      {{"graph"}, "is required"},
      {{"graph", "--variant", "S", "-w", "w"}, "--variant"},
      {{"graph", "--variant", "S", "--plan"}, "excludes"},
      {{"eval", "-w", "w", "--images", "d"}, "--ann is required"},
      {{"audit", "-w", "w"}, "--images is required"},
      {{"audit", "-w", "w", "--images", "d", "--max-ap-loss", "0.01"}, "requires --ann"},
      {{"audit", "-w", "w", "--images", "d", "--min-snr", "loud"}, "--min-snr"},
      {{"audit", "-w", "w", "--images", "d", "--max-images", "-1"}, "from 0 to 1073741824"},
      {{"bench"}, "--weights is required"},
      {{"bench", "-w", "w", "--precision", "fp32,int8"}, "--precision: int8"},
      {{"bench", "-w", "w", "--mode", "eager"}, "--mode: eager"},
      {{"bench", "-w", "w", "--batch", "1,0"}, "--batch"},
      {{"bench", "-w", "w", "--seconds", "0"}, "--seconds: \"0\" is not a number from 0.001 to 3600"},
      {{"bench", "-w", "w", "--size", "100x128"}, "\"100x128\" is not HEIGHTxWIDTH"},
      {{"layers"}, "--weights is required"},
      {{"layers", "-w", "w", "--sort", "size"}, "--sort: size"},
      {{"layers", "-w", "w", "--compare", "own,cublas"}, "--compare: cublas"},
      {{"layers", "-w", "w", "--runs", "0"}, "--runs"},
      {{"layers", "-w", "w", "--seconds", "9"}, "--seconds requires --compare"},
      {{"doctor", "--device", "gpu"}, "\"gpu\" is not auto, cpu, cuda or cuda:N"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = run(c.arguments);
    CAPTURE(outcome.err);
    CAPTURE(c.message);
    CHECK(outcome.code == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.starts_with("damoyolo: "));
    CHECK(contains(outcome.err, c.message));
  }
}

TEST_CASE("cli: help and version are no errors") {
  for (const char* command : {"import", "detect", "eval", "forward", "bench", "layers", "graph", "doctor"}) {
    const Outcome outcome = run({command, "--help"});
    CHECK(outcome.code == 0);
    CHECK(contains(outcome.out, fmt::format("Usage: damoyolo {}", command)));
    CHECK(contains(run({"--help"}).out, command));
  }
  CHECK(run({"--version"}).out.starts_with("damoyolo "));
  CHECK(run({"--version"}).code == 0);
}

TEST_CASE("cli: the help is no wider than a hundred columns") {
  for (const char* command : {"import", "detect", "eval", "audit", "forward", "bench", "layers", "graph", "doctor"})
    for (const std::string& line : cli::split(run({command, "--help"}).out, '\n')) {
      CAPTURE(line);
      CHECK(line.size() <= 100);
      CHECK_FALSE(contains(line, "{false}"));
    }
}

TEST_CASE("cli: what cannot be used exits with 1 and names the file") {
  const test::TemporaryFolder folder;
  const auto failure = [](const std::vector<std::string>& arguments) {
    const Outcome outcome = run(arguments);
    CHECK(outcome.code == 1);
    return outcome.err;
  };
  test::write_file(folder.file("blank.names"), "\n \r\n");
  test::write_file(folder.file("list.json"), "[1]");
  const std::string none = folder.file("none"), out = folder.file("out");
  CHECK(contains(failure({"detect", "a.png", "-w", none}), none));
  CHECK(contains(failure({"detect", "-", "-w", kWeights}), "the list names no image"));
  CHECK(contains(failure({"import", none, "-o", out}), none));
  CHECK(contains(failure({"import", none, "-o", out, "--names", none}), "none: cannot be opened: No such file"));
  CHECK(contains(failure({"import", none, "-o", out, "--names", kDigits}), "is a directory"));
  CHECK(contains(failure({"import", none, "-o", out, "--names", folder.file("blank.names")}), "has no class names"));
  CHECK(contains(failure({"import", none, "-o", out, "--structure", folder.file("list.json")}), "not a JSON object"));
  CHECK(contains(failure({"detect", kDigits + "images", "-w", kWeights, "--out", folder.file("list.json")}),
                 "list.json: the folder cannot be made: Not a directory"));
  const std::string annotations = kDigits + "annotations.json", unwritable = folder.file("none/figures.json");
  CHECK(contains(failure({"eval", "-w", kWeights, "--images", none, "--ann", annotations}),
                 "none: is no folder, expected that of the annotated images"));
  // What takes long says so before it begins.
  const std::vector<std::string> images{"--images", kDigits + "images"};
  for (std::vector<std::string> command :
       {std::vector<std::string>{"eval", "--ann", annotations}, {"audit"}, {"bench"}}) {
    command.insert(command.end(), {"-w", kWeights, "--json", unwritable});
    command.insert(command.end(), images.begin(), images.end());
    const Outcome outcome = run(command);
    CHECK(outcome.code == 1);
    CHECK(contains(outcome.err, unwritable + ": cannot be written"));
    CHECK(outcome.out.empty());
  }
  CHECK(contains(failure({"layers", "-w", kWeights, "--json", unwritable}), unwritable + ": cannot be written"));
  CHECK(contains(failure({"detect", kDigits + "images", "-w", kWeights, "--no-draw", "--classes", "3,x"}),
                 "there is no class \"x\", expected a number from 0 to 9 or one of 0, 1,"));
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("cli: detect reports a broken image, and its neighbours are as without it") {
  const test::TemporaryFolder folder;
  const std::string first = kDigits + "images/000.png", last = kDigits + "images/001.png";
  const std::string broken = folder.file("broken.png"), out = folder.file("out");
  test::write_file(broken, test::read_file(first).substr(0, 2000));
  const Outcome outcome = run({"detect", first,
                               broken,   folder.file("none.png"),
                               last,     "-w",
                               kWeights, "--precision",
                               "fp32",   "--conf",
                               "0.3",    "--batch",
                               "3",      "--out",
                               out,      "--save-txt",
                               "--json", folder.file("all.json"),
                               "--coco", folder.file("coco.json")});
  CHECK(outcome.code == 1);
  CHECK(contains(outcome.err, broken));
  CHECK(contains(outcome.err, "2 of 4 images could not be read"));
  CHECK(contains(outcome.out, "wrote " + out + "/000.png"));
  CHECK(contains(outcome.out, "2 images, "));
  CHECK_FALSE(std::filesystem::exists(out + "/broken.png"));

  Detector detector(kWeights, {.precision = Precision::Fp32});
  const json images = read_json(folder.file("all.json"));
  REQUIRE(images.size() == 2);
  std::size_t detections = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string path = i == 0 ? first : last;
    const Image image = read_image(path);
    DetectParameters parameters;
    parameters.confidence = 0.3f;
    const std::vector<Detection> expected = detector.detect(image, parameters);
    const json& found = images[i];
    CHECK(found["image"] == path);
    CHECK(found["width"] == 256);
    CHECK(found["height"] == 256);
    for (const char* step : {"decode", "preprocess", "network", "postprocess"}) CHECK(found["ms"][step] > 0);
    REQUIRE(found["detections"].size() == expected.size());
    REQUIRE_FALSE(expected.empty());
    for (std::size_t d = 0; d < expected.size(); ++d) {
      const json& detection = found["detections"][d];
      CHECK(detection["class_id"] == expected[d].class_id);
      CHECK(detection["label"] == std::to_string(expected[d].class_id));
      CHECK(detection["score"].get<float>() == doctest::Approx(expected[d].score).epsilon(1e-4));
      for (std::size_t k = 0; k < 4; ++k)
        CHECK(detection["box"][k].get<float>() == doctest::Approx(expected[d].box[k]).epsilon(1e-4));
    }
    detections += expected.size();
    const Image picture = read_image(out + (i == 0 ? "/000.png" : "/001.png"));
    CHECK(picture.width == image.width);
    CHECK(picture.rgb != image.rgb);
    const std::string lines = test::read_file(out + (i == 0 ? "/000.txt" : "/001.txt"));
    CHECK(std::count(lines.begin(), lines.end(), '\n') == static_cast<std::ptrdiff_t>(expected.size()));
  }
  CHECK(read_json(folder.file("coco.json")).size() == detections);
}

TEST_CASE("cli: detect does not overwrite the images it reads") {
  const test::TemporaryFolder folder;
  const std::string image = folder.file("scene.png");
  const std::string before = test::read_file(kDigits + "images/000.png");
  test::write_file(image, before);
  std::filesystem::create_directory(folder.file("linked"));
  std::filesystem::create_symlink(image, folder.file("linked/scene.png"));
  for (const char* out : {".", "linked"}) {
    const Outcome outcome = run({"detect", image, "-w", kWeights, "--out", folder.file(out)});
    CHECK(outcome.code == 1);
    CHECK(contains(outcome.err, "scene.png: is an image and would be overwritten"));
    CHECK(test::read_file(image) == before);
  }
}

TEST_CASE("cli: figures take no input's place, and a pipe is not opened before there are any") {
  const test::TemporaryFolder folder;
  const std::string weights = folder.file("weights"), truth = folder.file("truth.json"), pipe = folder.file("pipe");
  std::filesystem::copy(kWeights, weights);
  std::filesystem::copy(kDigits + "annotations.json", truth);
  const auto refused = [](std::vector<std::string> command, const std::string& path) {
    command.insert(command.end(), {"--json", path});
    const Outcome outcome = run(command);
    CHECK(outcome.code == 1);
    CHECK(contains(outcome.err, path + ": is read or written for something else"));
  };
  const std::string images = kDigits + "images";
  for (const char* command : {"eval", "audit"})
    refused({command, "-w", weights, "--images", images, "--ann", truth}, truth);
  for (const char* command : {"bench", "layers"}) refused({command, "-w", weights}, weights);
  CHECK(test::read_file(truth) == test::read_file(kDigits + "annotations.json"));
  CHECK(std::filesystem::file_size(weights) == std::filesystem::file_size(kWeights));

  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(reader >= 0);
  cli::require_writable({pipe}, {});
  pollfd end{reader, POLLIN, 0};
  CHECK(poll(&end, 1, 0) == 0);
  close(reader);
}

TEST_CASE("cli: a file is the same by every path to it, and asking whether it can be written leaves nothing behind") {
  namespace fs = std::filesystem;
  const test::TemporaryFolder folder;
  const std::string input = folder.file("input"), fresh = folder.file("fresh"), link = folder.file("link");
  test::write_file(input, "read");
  fs::create_symlink("input", folder.file("symbolic"));
  fs::create_hard_link(input, folder.file("hard"));
  fs::create_symlink("fresh", link);

  const auto refused = [](const std::vector<std::string>& results, const std::vector<std::string>& inputs) {
    return contains(test::error_of([&] { cli::require_writable(results, inputs); }), "something else");
  };
  for (const char* name : {"input", "symbolic", "hard", "./input"}) {
    CHECK(refused({folder.file(name)}, {input}));
    CHECK_FALSE(refused({folder.file(name)}, {folder.file("missing")}));
  }
  CHECK(refused({fresh, fresh}, {}));
  CHECK(refused({link, fresh}, {}));
  CHECK_FALSE(refused({fresh, "", ""}, {""}));
  CHECK_FALSE(refused({link}, {fresh}));
  const std::string nowhere = folder.file("no/folder");
  CHECK(test::error_of([&] { cli::require_writable({fresh, nowhere}, {}); }) == nowhere + ": cannot be written");

  CHECK(fs::is_symlink(link));
  CHECK_FALSE(fs::exists(fresh));
  CHECK(test::read_file(input) == "read");
}

TEST_CASE("cli: detect's results take no other file's place") {
  const test::TemporaryFolder folder;
  const std::string image = folder.file("000.png"), weights = folder.file("weights"), results = folder.file("results");
  std::filesystem::copy(kDigits + "images/000.png", image);
  std::filesystem::copy(kWeights, weights);
  const auto refused = [&](const std::vector<std::string>& more, const std::string& path) {
    std::vector<std::string> arguments{"detect", image, "-w", weights, "--no-draw"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    CHECK(outcome.code == 1);
    CHECK(contains(outcome.err, path + ": is read or written for something else"));
  };
  refused({"--json", image}, image);
  refused({"--coco", weights}, weights);
  refused({"--json", results, "--coco", results}, results);
  CHECK(test::read_file(image) == test::read_file(kDigits + "images/000.png"));
  CHECK(std::filesystem::file_size(weights) == std::filesystem::file_size(kWeights));
  CHECK_FALSE(std::filesystem::exists(results));
}

TEST_CASE("cli: detect takes a list on stdin, keeps the wanted classes only, and is quiet when asked") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("all.json");
  const Outcome outcome = run({"detect", "-", "-w", kWeights, "--conf", "0.1", "--classes", "7, 0", "--no-draw", "-q",
                               "--out", folder.file("out"), "--json", path},
                              kDigits + "images/000.png\n");
  CHECK(outcome.code == 0);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.empty());
  CHECK_FALSE(std::filesystem::exists(folder.file("out")));
  const json images = read_json(path);
  REQUIRE(images.size() == 1);
  std::vector<int> classes;
  for (const json& detection : images[0]["detections"]) classes.push_back(detection["class_id"].get<int>());
  CHECK(std::count(classes.begin(), classes.end(), 0) > 0);
  CHECK(std::count(classes.begin(), classes.end(), 7) > 0);
  CHECK(std::count(classes.begin(), classes.end(), 0) + std::count(classes.begin(), classes.end(), 7) ==
        static_cast<std::ptrdiff_t>(classes.size()));
}

TEST_CASE("cli: forward writes what the detector gives") {
  const test::TemporaryFolder folder;
  const std::string in = folder.file("in.safetensors"), out = folder.file("out.safetensors");
  const std::vector<std::uint8_t> pixels = golden_bytes("cli.images", std::size_t{2} * 64 * 96 * 3);
  const auto write_input = [&](const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    Safetensors file;
    file.tensors[name] = {dtype, std::move(shape), std::as_bytes(std::span(pixels))};
    write_safetensors(in, file);
  };
  const std::vector<std::string> arguments{"forward", "-w", kWeights, "-i", in, "-o", out, "--precision", "fp32"};

  write_input("images", DType::U8, {2, 64, 96, 3});
  REQUIRE(run(arguments).code == 0);
  const SafetensorsFile result(out);
  const std::int64_t anchors = 8 * 12 + 4 * 6 + 2 * 3;
  const auto& tensors = result.contents().tensors;
  const TensorView &scores = tensors.at("scores"), &boxes = tensors.at("boxes");
  CHECK(scores.shape == std::vector<std::int64_t>{2, anchors, 10});
  CHECK(boxes.shape == std::vector<std::int64_t>{2, anchors, 4});
  const RawOutput expected = Detector(kWeights, {.precision = Precision::Fp32}).forward(pixels, 2, 64, 96);
  CHECK(to_floats(scores) == expected.scores);
  CHECK(to_floats(boxes) == expected.boxes);

  const auto failure = [&](const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    write_input(name, dtype, std::move(shape));
    const Outcome outcome = run(arguments);
    CHECK(outcome.code == 1);
    return outcome.err;
  };
  CHECK(contains(failure("image", DType::U8, {2, 64, 96, 3}), "has no tensor \"images\" (it has: image)"));
  CHECK(contains(failure("images", DType::I8, {2, 64, 96, 3}), "is I8, expected U8"));
  CHECK(contains(failure("images", DType::U8, {2, 3, 64, 96}), "has the shape [2, 3, 64, 96], expected"));
  CHECK(contains(failure("images", DType::U8, {2, 48, 128, 3}), "multiples of 32"));
}

TEST_CASE("cli: graph counts the operations before and after the passes") {
  for (const ModelSpec& model : released_variants()) {
    Graph graph = build_model(model, 1, model.input_height, model.input_width).graph;
    const std::size_t before = graph.nodes.size();
    optimize(graph);
    const Outcome outcome = run({"graph", "--variant", model.variant});
    CHECK(outcome.code == 0);
    CHECK(graph.nodes.size() < before);
    CHECK(outcome.out.ends_with(
        fmt::format("\n{} operations as built, {} after the passes\n", before, graph.nodes.size())));
    CHECK(contains(outcome.out, to_text(graph)));
    CHECK(contains(run({"graph", "--variant", model.variant, "--plain"}).out, fmt::format("{} operations, ", before)));
  }
  CHECK(run({"graph", "-w", kWeights, "--dot"}).out.starts_with("digraph"));
  const Outcome plan = run({"graph", "-w", kWeights, "--plan", "--batch", "2", "--precision", "fp32"});
  CHECK(plan.code == 0);
  CHECK(contains(plan.out, "batch 2"));
  CHECK(contains(plan.out, Detector(kWeights, {.precision = Precision::Fp32, .max_batch = 2}).plan_text(2)));
}

TEST_CASE("cli: doctor says what a device comes to, and fails when it is not there") {
  const Outcome outcome = run({"doctor", "--device", "cuda:1000"});
  CHECK(outcome.code == 1);
  CHECK(contains(outcome.out, describe_cpu().name));
  CHECK_FALSE(contains(outcome.out, "chooses"));
  CHECK(outcome.err.starts_with("damoyolo: "));
  const Outcome cpu = run({"doctor", "--device", "cpu"});
  CHECK(cpu.code == 0);
  CHECK(contains(cpu.out, "cpu chooses       cpu, as asked; "));
}

TEST_CASE("cli: doctor names the processor and what auto would choose") {
  const Outcome outcome = run({"doctor"});
  CHECK(outcome.code == 0);
  CHECK(contains(outcome.out, describe_cpu().name));
  CHECK(contains(outcome.out, choose_device("auto", Precision::Auto).reason));
}

TEST_CASE("cli: eval agrees with the PyTorch pipeline's detections, and leaves out images that are missing") {
  const test::TemporaryFolder folder;
  const std::string annotations = folder.file("annotations.json"), figures = folder.file("figures.json");
  test::write_file(annotations, annotations_of_first_images(kImages).dump());
  const CocoAnnotations truth = read_coco_annotations(annotations);

  const json expected = read_json(kDigits + "expected.json")["images"];
  std::vector<CocoDetection> detections;
  for (const CocoImage& image : truth.images) {
    for (const json& row : expected.at(image.file_name)) {
      const double x1 = row[2], y1 = row[3], x2 = row[4], y2 = row[5];
      detections.push_back({image.id, row[0].get<int>() + 1, {x1, y1, x2 - x1, y2 - y1}, row[1].get<double>()});
    }
  }
  const CocoPrecision pytorch = evaluate_coco(truth, detections);

  std::vector<std::string> arguments{
      "eval",  "-w",  kWeights,      "--images", kDigits + "images", "--ann", annotations, "--conf", "0.05",
      "--iou", "0.7", "--precision", "fp32",     "--batch",          "8",     "--json",    figures};
  const Outcome outcome = run(arguments);
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  const json found = read_json(figures);
  CHECK(found["images"] == kImages);
  CHECK(found["conf"] == 0.05);
  CHECK(std::abs(found["ap"].get<double>() - *pytorch.ap) < 0.003);
  CHECK(std::abs(found["ap50"].get<double>() - *pytorch.ap50) < 0.003);
  CHECK(found["classes"].size() == 10);
  CHECK(found["classes"][3]["name"] == "3");
  CHECK(contains(outcome.out, fmt::format("{:.4f}", found["ap"].get<double>())));

  test::write_file(annotations, annotations_of_first_images(kImages + 1).dump());
  const Outcome partial = run(arguments);
  CHECK(partial.code == 1);
  CHECK(contains(partial.err, "020.png"));
  CHECK(contains(partial.err, "1 of 21 images could not be read"));
  CHECK(read_json(figures) == found);

  // Names that are no class of the model: categories go by the order of their ids, when there are as many.
  json renamed = annotations_of_first_images(kImages);
  for (json& category : renamed["categories"]) category["name"] = "digit " + category["name"].get<std::string>();
  test::write_file(annotations, renamed.dump());
  CHECK(run(arguments).code == 0);
  CHECK(read_json(figures)["ap"] == found["ap"]);
  renamed["categories"].push_back({{"id", 99}, {"name", "letter"}});
  test::write_file(annotations, renamed.dump());
  const Outcome mismatch = run(arguments);
  CHECK(mismatch.code == 1);
  CHECK(contains(mismatch.err, "has 11 categories, among them \"digit 0\""));
}

TEST_CASE("cli: layers are kept in fp32 by name, whatever the precision") {
  const test::TemporaryFolder folder;
  const std::string in = folder.file("in.safetensors"), out = folder.file("out.safetensors");
  const std::vector<std::uint8_t> pixels = golden_bytes("cli.images", std::size_t{64} * 96 * 3);
  Safetensors file;
  file.tensors["images"] = {DType::U8, {1, 64, 96, 3}, std::as_bytes(std::span(pixels))};
  write_safetensors(in, file);
  const auto forward = [&](const std::string& precision, const std::string& names) {
    return run({"forward", "-w", kWeights, "-i", in, "-o", out, "--device", "cpu", "--precision", precision,
                "--keep-fp32", names});
  };
  const auto scores = [&] { return to_floats(SafetensorsFile(out).contents().tensors.at("scores")); };
  const Outcome unknown = forward("fp32", "head.*,neck.merge_5.conv4");
  CHECK(unknown.code == 1);
  CHECK(contains(unknown.err,
                 "no convolution of the graph is called \"neck.merge_5.conv4\", the nearest names are "
                 "neck.merge_5.conv3,"));
  const Outcome graph = run({"graph", "-w", kWeights, "--keep-fp32", "neck.merge_5.conv3"});
  CHECK(contains(graph.out, "neck.merge_5.conv3@"));
  CHECK(contains(graph.out, "in fp32"));
  CHECK(contains(graph.out, "\nkeep_fp32 "));

  REQUIRE(forward("fp32", "head.*").code == 0);
  const std::vector<float> exact = scores();
  if (!describe_cpu().bf16) return test::skip("the processor has no bf16 instructions");
  REQUIRE(forward("bf16", "backbone.*, neck.*,head.*").code == 0);
  CHECK(scores() == exact);
  REQUIRE(forward("bf16", "head.*").code == 0);
  CHECK(scores() != exact);
}

TEST_CASE("cli: audit compares with fp32 and names the layers to keep") {
  const test::TemporaryFolder folder;
  const std::string figures = folder.file("figures.json"), images = kDigits + "images";
  const auto audit = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"audit",       "-w",   kWeights, "--device", "cpu",
                                       "--precision", "bf16", "--json", figures};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  const Outcome exact = run({"audit", "-w", kWeights, "--images", images, "--device", "cpu", "--precision", "fp32"});
  CHECK(exact.code == 1);
  CHECK(contains(exact.err, "there is nothing to audit in fp32 (cpu"));
  if (!describe_cpu().bf16) {
    CHECK(contains(audit({"--images", images}).err, "bf16 was asked for, and this processor"));
    return test::skip("the processor has no bf16 instructions");
  }

  // Of four images the AP moves by 0.003 with the order in which a processor's instructions add.
  const std::string annotations = folder.file("annotations.json");
  test::write_file(annotations, annotations_of_first_images(kImages).dump());
  const Outcome good = audit({"--images", images, "--ann", annotations});
  CHECK(good.code == 0);
  CHECK(contains(good.out, "Nothing needs to be kept in fp32 for at most 0.003 of AP lost."));
  json found = read_json(figures);
  CHECK(found["images"] == kImages);
  CHECK(found["keep_fp32"].empty());
  CHECK(std::abs(found["ap_fp32"].get<double>() - found["before"]["ap"].get<double>()) <= 0.003);
  for (const json& layer : found["layers"]) CHECK(contains(good.out, layer["name"].get<std::string>()));

  const Outcome strict = audit({"--images", images, "--max-images", "1", "--min-snr", "57"});
  CHECK(strict.code == 0);
  CHECK(contains(strict.out, "For at least 57 dB at the head's outputs, keep "));
  found = read_json(figures);
  const std::vector<std::string> keep = found["keep_fp32"];
  REQUIRE_FALSE(keep.empty());
  CHECK(keep.size() < found["layers"].size() / 2);
  const auto error = [](const json& at) {
    return HeadError{at["cls_error"].get<double>(), at["reg_error"].get<double>()}.all();
  };
  CHECK(signal_to_noise(error(found["before"])) < 57);
  CHECK(signal_to_noise(error(found["after"])) >= 57);

  const std::string list = fmt::format("{}", fmt::join(keep, ","));
  CHECK(contains(strict.out, "--keep-fp32 " + list + "\n"));
  const Outcome kept = audit({"--images", images, "--max-images", "1", "--min-snr", "57", "--keep-fp32", list});
  CHECK(contains(kept.out, "Nothing needs to be kept"));
  CHECK(read_json(figures)["before"] == found["after"]);

  const std::string broken = folder.file("broken.png");
  test::write_file(broken, "no image");
  const Outcome partial = audit({"--images", images + "/000.png", broken});
  CHECK(partial.code == 1);
  CHECK(contains(partial.err, broken));
  CHECK(contains(partial.err, "1 of 2 images could not be read"));
}
