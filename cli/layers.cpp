#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/comparison.h"
#include "cli/measure.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/result_files.h"
#include "cli/roofline.h"
#include "cli/table.h"
#include "cli/text.h"
#include "engine/detector.h"

namespace damoyolo::cli {
namespace {

struct LayersOptions {
  DetectorOptions detector;
  std::string weights, json, sort = "order";
  std::vector<std::string> compare;
  int repetitions = 20;
  double compare_seconds = 60;
  bool markdown = false;
};

// What candidates' names begin with, for ProfileOptions::compare.
std::vector<std::string> kernels_of(const std::vector<std::string>& names) {
  std::vector<std::string> beginnings;
  for (const std::string& name : names) {
    if (name != "library") beginnings.emplace_back("own");
    if (name != "own") beginnings.insert(beginnings.end(), {"cudnn", "cublaslt"});
  }
  return beginnings;
}

Profile profile(Detector& detector, const LayersOptions& options) {
  const int batch = options.detector.max_batch;
  Profile result;
  result.workload = workload_of(detector.model(), detector.device(), options.detector);
  result.steps = detector.profile({batch, options.repetitions, kernels_of(options.compare), options.compare_seconds});
  result.run_seconds = median(detector.time_network(batch, options.repetitions).alone);
  return result;
}

// Steps taken together.
struct Sum {
  std::size_t steps = 0;
  double seconds = 0, flops = 0, bytes = 0;
  std::optional<double> floor = 0;

  void add(const StepTime& step, std::optional<double> step_floor) {
    ++steps;
    seconds += step.seconds;
    flops += static_cast<double>(step.flops);
    bytes += static_cast<double>(step.bytes);
    floor = floor && step_floor ? std::optional(*floor + *step_floor) : std::nullopt;
  }
};

std::string percent(double part) { return fmt::format("{:.1f}", 100 * part); }

std::vector<Column> with_figures(std::vector<Column> columns, bool counts) {
  columns.insert(columns.end(), {{"µs"}, {"share %"}});
  if (counts) columns.insert(columns.end(), {{"GFLOP"}, {"MB"}});
  columns.insert(columns.end(), {{"GFLOP/s"}, {"GB/s"}, {"floor µs"}, {"roofline %"}});
  return columns;
}

std::vector<std::string> with_figures(std::vector<std::string> row, bool counts, const Sum& sum, double whole) {
  row.insert(row.end(), {microseconds(sum.seconds), percent(sum.seconds / whole)});
  if (counts) row.insert(row.end(), {three_digits(sum.flops / 1e9), three_digits(sum.bytes / 1e6)});
  row.insert(row.end(), {sum.flops > 0 ? three_digits(sum.flops / sum.seconds / 1e9) : "",
                         three_digits(sum.bytes / sum.seconds / 1e9), sum.floor ? microseconds(*sum.floor) : "",
                         sum.floor ? percent(*sum.floor / sum.seconds) : ""});
  return row;
}

class Tables {
 public:
  Tables(const Profile& profile, const Ceilings& ceilings) : profile_(profile) {
    for (const StepTime& step : profile.steps)
      floors_.push_back(floor_seconds(step, profile.workload.precision, ceilings));
  }

  Table steps(bool by_time) const {
    Table table{with_figures({{"step"}, {"node", false}, {"operation", false}, {"in", false}, {"out", false}}, false),
                {}};
    table.columns.push_back({"kernel", false});
    for (const std::size_t i : order(by_time)) {
      const StepTime& step = profile_.steps[i];
      Sum one;
      one.add(step, floors_[i]);
      table.rows.push_back(
          with_figures({std::to_string(i), step.node, operation_text(step), shape_text(step.in), shape_text(step.out)},
                       false, one, profile_.sum_seconds()));
      table.rows.back().push_back(step.kernel);
    }
    return table;
  }

  Table stages() const {
    Table table{with_figures({{"stage", false}, {"steps"}}, true), {}};
    for (const std::string_view stage : {"input", "backbone", "neck", "head", "results", "all"}) {
      Sum sum;
      for (std::size_t i = 0; i < profile_.steps.size(); ++i)
        if (stage == "all" || stage_of(profile_.steps[i].node) == stage) sum.add(profile_.steps[i], floors_[i]);
      if (sum.steps > 0)
        table.rows.push_back(
            with_figures({std::string(stage), std::to_string(sum.steps)}, true, sum, profile_.sum_seconds()));
    }
    return table;
  }

 private:
  static std::string shape_text(const Shape& shape) {
    return shape.elements() > 0 ? fmt::format("{}x{}x{}x{}", shape.n, shape.h, shape.w, shape.c) : "";
  }

  std::vector<std::size_t> order(bool by_time) const {
    std::vector<std::size_t> places(profile_.steps.size());
    std::iota(places.begin(), places.end(), std::size_t{0});
    if (by_time)
      std::ranges::stable_sort(places, std::greater{}, [&](std::size_t i) { return profile_.steps[i].seconds; });
    return places;
  }

  const Profile& profile_;
  std::vector<std::optional<double>> floors_;
};

int layers(const LayersOptions& options, Console& console) {
  require_writable({options.json}, {options.weights});
  Detector detector(options.weights, options.detector);
  Report report = begin_report(detector.device(), options.detector.threads, console.typed);
  fmt::print(console.out, "{}, batch {}, {}\n{}\n", describe(detector.model()), options.detector.max_batch,
             name_of(detector.device().precision), header_text(report));
  report.profiles.push_back(profile(detector, options));

  const Profile& measured = report.profiles.front();
  const Tables tables(measured, report.ceilings);
  fmt::print(console.out, "{}\n", to_text(tables.steps(options.sort == "time"), options.markdown));
  fmt::print(console.out, "{}\n", to_text(tables.stages(), options.markdown));
  fmt::print(console.out,
             "The steps by themselves take {:.3f} ms together, a whole run {:.3f} ms: the sum is {:.0f} % of it.\n"
             "Floor: the larger of operations and of bytes (inputs, weights and outputs, each once) over what the "
             "device\ncan do at best; roofline: the floor as a part of the time.\n",
             1e3 * measured.sum_seconds(), 1e3 * measured.run_seconds,
             100 * measured.sum_seconds() / measured.run_seconds);
  if (!options.compare.empty()) fmt::print(console.out, "\n{}", comparison_text(measured, options.markdown));
  if (!options.json.empty()) {
    write_json(report, options.json);
    fmt::print(console.out, "wrote {}\n", options.json);
  }
  return 0;
}

}  // namespace

Action add_layers(CLI::App& command) {
  const auto options = std::make_shared<LayersOptions>();
  add_weights_option(command, options->weights)->required();
  add_device_options(command, options->detector);
  add_batch_option(command, options->detector.max_batch);
  add_size_option(command, options->detector);
  allow_only(*command.add_option("--sort", options->sort, "By time, or as they run"), {"time", "order"})
      ->capture_default_str();
  CLI::Option* compare = command.add_option(
      "--compare", options->compare,
      "On a GPU: time these kernels, too: own, library, all; with --mode max-autotune all that the libraries have");
  allow_list(*compare, {"own", "library", "all"});
  CLI::Option* seconds = command.add_option("--seconds", options->compare_seconds,
                                            "That --compare may take, an equal part for each convolution");
  allow_range(*seconds, 0.001, 86400.0)->type_name("SECONDS")->needs(compare)->capture_default_str();
  CLI::Option* repetitions = command.add_option("--runs", options->repetitions, "Of each step");
  allow_range(*repetitions, 1, 100000)->capture_default_str();
  add_report_options(command, options->json, options->markdown);
  return [options](Console& console) { return layers(*options, console); };
}

}  // namespace damoyolo::cli
