// The benchmarks: their arithmetic, their tables, and the form of what they write. No time is ever asserted.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "cli/comparison.h"
#include "cli/report.h"
#include "cli/roofline.h"
#include "cli/statistics.h"
#include "cli/table.h"
#include "engine/detector.h"
#include "tests/cli_run.h"
#include "tests/file_bytes.h"
#include "tests/json_schema.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;
using namespace damoyolo::cli;
using nlohmann::json;
using test::contains;
using test::Outcome;
using test::schema_errors;

namespace {

const std::string kWeights = "weights/demo/digits-ns.safetensors";

json read_json(const std::string& path) { return json::parse(test::read_file(path)); }

// The report that a command writes with --json, checked against the documented form.
json report_of(std::vector<std::string> arguments, Outcome* outcome = nullptr) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("report.json");
  arguments.insert(arguments.end(), {"-w", kWeights, "--device", "cpu", "--json", path});
  const Outcome result = test::run(arguments);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  if (outcome != nullptr) *outcome = result;
  json report = read_json(path);
  const auto errors = schema_errors(report, read_json("bench/report.schema.json"));
  CHECK_MESSAGE(errors.empty(), fmt::format("{}", fmt::join(errors, "\n")));
  return report;
}

}  // namespace

TEST_CASE("bench: percentiles lie between the nearest values") {
  const std::vector<double> values{1, 2, 3, 4, 5};
  CHECK(percentile(values, 0) == 1);
  CHECK(percentile(values, 0.5) == 3);
  CHECK(percentile(values, 0.25) == 2);
  CHECK(percentile(values, 0.95) == doctest::Approx(4.8));
  CHECK(percentile(values, 1) == 5);
  CHECK(percentile(std::vector<double>{7}, 0.99) == 7);
  CHECK(median({4, 1, 3, 2}) == 2.5);
}

TEST_CASE("bench: statistics are over all runs, and drift compares the halves in the order of the runs") {
  // Medians of the halves: 2 and 4; the one in the middle is in neither.
  const Statistics times = summarize(std::vector<double>{3, 1, 2, 9, 4, 5, 3});
  CHECK(times.runs == 7);
  CHECK(times.min == 1);
  CHECK(times.median == 3);
  CHECK(times.p95 == doctest::Approx(7.8));
  CHECK(times.p99 == doctest::Approx(8.76));
  CHECK(times.interquartile == doctest::Approx(4.5 - 2.5));
  REQUIRE(times.drift.has_value());
  CHECK(*times.drift == doctest::Approx(1.0));

  CHECK(*summarize(std::vector<double>{4, 2}).drift == doctest::Approx(1.0));
  const Statistics single = summarize(std::vector<double>{5});
  CHECK(single.median == 5);
  CHECK(single.p99 == 5);
  CHECK_FALSE(single.drift.has_value());
}

TEST_CASE("bench: tables line up, as text and as Markdown") {
  const Table table{{{"mode", false}, {"µs"}}, {{"default", "1.5"}, {"x", "12.25"}}};
  CHECK(to_text(table, false) ==
        "mode        µs\n"
        "default    1.5\n"
        "x        12.25\n");
  CHECK(to_text(table, true) ==
        "| mode    |    µs |\n"
        "| ------- | ----: |\n"
        "| default |   1.5 |\n"
        "| x       | 12.25 |\n");
  CHECK(three_digits(0.0123456) == "0.0123");
  CHECK(three_digits(1.234) == "1.23");
  CHECK(three_digits(12.34) == "12.3");
  CHECK(three_digits(999.7) == "1000");
  CHECK(three_digits(123456) == "123456");
  CHECK(three_digits(0) == "0");
}

TEST_CASE("bench: a step's floor is what takes longer, its operations or its bytes") {
  Ceilings ceilings;
  ceilings.copy_bytes_per_second = 100;
  ceilings.bf16_flops = 1000;
  StepTime step;
  step.bytes = 50;
  CHECK(*floor_seconds(step, "bf16", ceilings) == doctest::Approx(0.5));
  step.flops = 400;
  CHECK(*floor_seconds(step, "bf16", ceilings) == doctest::Approx(0.5));
  step.flops = 4000;
  CHECK(*floor_seconds(step, "bf16", ceilings) == doctest::Approx(4));
  CHECK_FALSE(floor_seconds(step, "fp32", ceilings).has_value());
  step.flops = 0;
  CHECK(floor_seconds(step, "fp32", ceilings).has_value());
  ceilings.copy_bytes_per_second = 0;
  CHECK_FALSE(floor_seconds(step, "bf16", ceilings).has_value());

  step.operation = "conv";
  step.kernel_size = 5;
  CHECK(operation_text(step) == "conv 5x5");
  step.pair = true;
  CHECK(operation_text(step) == "conv 5x5 + 1x1");
  step.pair = false;
  step.stride = 2;
  step.groups = 8;
  CHECK(operation_text(step) == "depthwise 5x5/2");
  step.operation = "spp_pool";
  CHECK(operation_text(step) == "spp_pool");
}

TEST_CASE("bench: the schema's checker finds what does not fit") {
  const json schema = read_json("bench/report.schema.json");
  json report =
      json::parse(R"({"device": "d", "driver": null, "cuda": null, "cudnn": null, "commit": null, "date": "t",
    "ceilings": {"copy_gbs": 1.5, "bf16_tflops": null}, "layers": [], "accuracy": [],
    "entries": [{"engine": "torch", "variant": "T", "size": "640x640", "precision": "tf32", "mode": "eager", "batch": 1,
      "span": "network", "median_ms": 1, "min_ms": 1, "p95_ms": 1, "p99_ms": 1, "us_per_image": 1000,
      "device_memory_mb": null, "first_result_s": null}]})");
  CHECK(schema_errors(report, schema).empty());
  const auto wrong = [&](const char* pointer, const json& value) {
    json changed = report;
    changed[json::json_pointer(pointer)] = value;
    return schema_errors(changed, schema);
  };
  CHECK(wrong("/device", 1) == std::vector<std::string>{"/device: is number"});
  CHECK(wrong("/entries/0/batch", 0) == std::vector<std::string>{"/entries/0/batch: 0 is too small"});
  CHECK(wrong("/entries/0/batch", 1.5) == std::vector<std::string>{"/entries/0/batch: is number"});
  CHECK(wrong("/entries/0/span", "both").size() == 1);
  CHECK(wrong("/entries/0/speed", 1) == std::vector<std::string>{"/entries/0: has an unknown speed"});
  report.erase("date");
  CHECK(schema_errors(report, schema) == std::vector<std::string>{": has no date"});
}

TEST_CASE("bench: every combination has both spans, in the documented form") {
  Outcome outcome;
  const json report = report_of(
      {"bench", "--precision", "fp32,fp32", "--batch", "2,1", "--seconds", "0.01", "--size", "64x96"}, &outcome);
  CHECK(report["driver"].is_null());
  CHECK(report["threads"] > 0);
  CHECK(report["cold_start_s"] > 0);
  CHECK(report["ceilings"]["copy_gbs"] > 0);
  CHECK(report["ceilings"]["fp32_tflops"] > 0);
  CHECK(contains(report["command"].get<std::string>(), "damoyolo bench --precision fp32,fp32"));
  CHECK(report["left_out"].empty());

  REQUIRE(report["entries"].size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    const json& entry = report["entries"][i];
    CAPTURE(entry.dump());
    CHECK(entry["engine"] == "damoyolo");
    CHECK(entry["variant"] == "Ns");
    CHECK(entry["size"] == "64x96");
    CHECK(entry["precision"] == "fp32");
    CHECK(entry["mode"].is_null());
    CHECK(entry["batch"] == (i < 2 ? 2 : 1));
    CHECK(entry["span"] == (i % 2 == 0 ? "network" : "end_to_end"));
    CHECK(entry["runs"] >= 3);
    CHECK(entry["min_ms"] > 0);
    CHECK(entry["min_ms"] <= entry["median_ms"]);
    CHECK(entry["median_ms"] <= entry["p95_ms"]);
    CHECK(entry["p95_ms"] <= entry["p99_ms"]);
    CHECK(entry["us_per_image"].get<double>() ==
          doctest::Approx(1000 * entry["median_ms"].get<double>() / entry["batch"].get<double>()));
    CHECK(entry["device_memory_mb"] > 1);
    CHECK(entry["plan_s"] > 0);
    CHECK(entry["warm_start_s"] > entry["plan_s"]);
    CHECK(entry["first_result_s"].is_null());
    CHECK(entry.contains("stages") == (i % 2 == 1));
  }
  const json& stages = report["entries"][1]["stages"];
  for (const char* stage : {"decode_ms", "preprocess_ms", "network_ms", "postprocess_ms"}) CHECK(stages[stage] > 0);
  CHECK(stages["copy_ms"].is_null());

  for (const char* title : {"Network", "End to end", "Stages of end to end", "Summary", "30 FPS streams"})
    CHECK(contains(outcome.out, title));
}

TEST_CASE("bench: what cannot be run is left out, and fails only when nothing is left") {
  Outcome outcome;
  const json report = report_of(
      {"bench", "--precision", "fp16,fp32", "--batch", "1", "--seconds", "0.01", "--size", "64x96", "--markdown"},
      &outcome);
  CHECK(report["entries"].size() == 2);
  CHECK(report["entries"][0]["size"] == "64x96");
  REQUIRE(report["left_out"].size() == 1);
  CHECK(report["left_out"][0]["precision"] == "fp16");
  CHECK(contains(report["left_out"][0]["reason"].get<std::string>(), "the CPU backend has no fp16"));
  CHECK(contains(outcome.out, "left out: fp16, batch 1: the CPU backend has no fp16"));
  CHECK(contains(outcome.out, "| precision |"));

  const Outcome none = test::run({"bench", "-w", kWeights, "--device", "cpu", "--precision", "fp16", "--batch", "1"});
  CHECK(none.code == 1);
  CHECK(contains(none.err, "none of 1 combination could be measured"));
  CHECK(test::run({"bench", "-w", kWeights, "--device", "cpu", "--images", "no-such.png"}).code == 1);
  CHECK(test::run({"layers", "-w", "no-such.safetensors"}).code == 1);
}

TEST_CASE("layers: other kernels stand below the plan's, and what had no turn is said") {
  Profile profile;
  CHECK(comparison_text(profile, false) == "Nothing to compare: each step has one kernel here.\n");
  profile.workload = {"T", "64x64", "bf16", "max-autotune", 1};
  StepTime alone, step;
  alone.node = "input";
  step.node = "head.0";
  step.kernel = "own:a";
  step.seconds = 2e-6;
  step.candidates = {{"cudnn:b", 3e-6}};
  profile.steps = {alone, step};
  const std::string complete =
      "node     µs  to the plan's  kernel\n"
      "head.0  2.0                 own:a\n"
      "        3.0          1.50x  cudnn:b\n";
  CHECK(comparison_text(profile, false) == complete);
  profile.steps[1].without_turn = 4;
  CHECK(comparison_text(profile, false) == complete +
                                               "                            4 not timed\n"
                                               "There was no time for 4 of 5 kernels: --seconds gives more.\n");

  const test::TemporaryFolder folder;
  const std::string path = folder.file("report.json");
  Report report;
  report.profiles = {profile};
  write_json(report, path);
  const json written = read_json(path);
  CHECK(schema_errors(written, read_json("bench/report.schema.json")).empty());
  CHECK(written["layers"][0]["steps"][1]["without_turn"] == 4);
  CHECK_FALSE(written["layers"][0]["steps"][0].contains("without_turn"));
}

TEST_CASE("layers: every step of the plan, with totals that add up") {
  Outcome outcome;
  const json report = report_of({"layers", "--precision", "fp32", "--batch", "2", "--size", "64x96", "--runs", "2",
                                 "--compare", "own,library", "--sort", "time"},
                                &outcome);
  CHECK(report["entries"].empty());
  REQUIRE(report["layers"].size() == 1);
  const json& profile = report["layers"][0];
  CHECK(profile["batch"] == 2);
  CHECK(profile["size"] == "64x96");
  CHECK(profile["run_us"] > 0);

  Detector detector(kWeights,
                    {.device = "cpu", .precision = Precision::Fp32, .max_batch = 2, .height = 64, .width = 96});
  const std::vector<StepTime> steps = detector.profile({.batch = 2, .repetitions = 1});
  REQUIRE(profile["steps"].size() == steps.size());
  double sum = 0;
  std::set<std::string> stages;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const json& step = profile["steps"][i];
    CHECK(step["node"] == steps[i].node);
    CHECK(step["kernel"] == steps[i].kernel);
    CHECK(step["out"] == json({steps[i].out.n, steps[i].out.h, steps[i].out.w, steps[i].out.c}));
    CHECK(step["out"][0] == 2);
    CHECK(step["flops"] == steps[i].flops);
    CHECK(step["floor_us"] > 0);
    sum += step["time_us"].get<double>();
    stages.insert(step["stage"].get<std::string>());
  }
  CHECK(profile["steps"][0]["in"] == json({2, 64, 96, 3}));
  CHECK(profile["sum_us"].get<double>() == doctest::Approx(sum).epsilon(1e-4));
  CHECK(stages == std::set<std::string>{"input", "backbone", "neck", "head"});

  CHECK(contains(outcome.out, "Nothing to compare"));
  CHECK(contains(outcome.out, "the sum is"));
  for (const StepTime& step : steps) CHECK(contains(outcome.out, step.node));
}
