#include <fmt/ostream.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/measure.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/result_files.h"
#include "cli/table.h"
#include "cli/text.h"
#include "engine/ceilings.h"
#include "engine/core/error.h"
#include "engine/detector.h"
#include "loader/sources.h"

namespace damoyolo::cli {
namespace {

// Of the repository, where the program is usually run.
constexpr const char* kBundledPictures = "weights/demo";

struct BenchOptions {
  DetectorOptions detector;
  std::string weights, images, json;
  std::vector<std::string> precisions{"fp32", "auto"}, modes{"default", "reduce-overhead"};
  std::vector<int> batches{1, 2, 4, 8, 16, 32};
  double seconds = 1;
  bool markdown = false;
};

// Every one once; a CPU has no modes.
std::vector<DetectorOptions> combinations_of(const BenchOptions& options) {
  const bool gpu = gpu_number(options.detector.device).has_value();
  std::vector<DetectorOptions> combinations;
  for (const std::string& precision : options.precisions)
    for (const std::string& mode : gpu ? options.modes : std::vector<std::string>{"default"})
      for (const int batch : options.batches) {
        DetectorOptions one = options.detector;
        one.precision = precision_from_name(precision);
        if (one.precision == Precision::Auto) one.precision = choose_device(one.device, one.precision).precision;
        one.mode = mode_from_name(mode);
        one.max_batch = batch;
        const bool known = std::ranges::any_of(combinations, [&](const DetectorOptions& other) {
          return other.precision == one.precision && other.mode == one.mode && other.max_batch == one.max_batch;
        });
        if (!known) combinations.push_back(one);
      }
  return combinations;
}

std::vector<std::string> pictures_of(const BenchOptions& options, Console& console) {
  if (!options.images.empty()) return expand_sources({options.images}, console.in);
  if (std::filesystem::is_directory(kBundledPictures)) return expand_sources({kBundledPictures}, console.in);
  fmt::print(console.out, "There is no folder {} here, so end to end is left out; --images names another.\n\n",
             kBundledPictures);
  return {};
}

std::string ratio(double value) { return fmt::format("{:.2f}x", value); }
std::string percent(double part) { return fmt::format("{:.1f} %", 100 * part); }

// What the tables say of one entry, by column.
class Tables {
 public:
  Tables(const Report& report, bool markdown, std::size_t pictures, Console& console)
      : report_(report), markdown_(markdown), pictures_(pictures), console_(console) {
    gpu_ = !report.threads.has_value();
  }

  void print() {
    print_network();
    if (pictures_ > 0) {
      print_end_to_end();
      print_stages();
    }
    print_summary();
  }

 private:
  Table table(std::vector<std::string> numbers) const {
    Table table;
    table.columns.push_back({"precision", false});
    if (gpu_) table.columns.push_back({"mode", false});
    table.columns.push_back({"batch"});
    for (std::string& title : numbers) table.columns.push_back({std::move(title)});
    return table;
  }

  void add_row(Table& table, const Workload& workload, std::vector<std::string> cells) const {
    std::vector<std::string> row{workload.precision};
    if (workload.mode) row.push_back(*workload.mode);
    row.push_back(std::to_string(workload.batch));
    row.insert(row.end(), cells.begin(), cells.end());
    table.rows.push_back(std::move(row));
  }

  void print(std::string_view title, const Table& table, std::string_view notes) const {
    fmt::print(console_.out, "{}{}\n{}{}\n{}\n\n", markdown_ ? "### " : "", title, markdown_ ? "\n" : "",
               to_text(table, markdown_), notes);
  }

  static std::vector<std::string> times_of(const Entry& entry) {
    const Statistics& times = entry.milliseconds;
    const std::string drift = times.drift ? percent(*times.drift) : "";
    return {three_digits(times.median),
            three_digits(times.min),
            three_digits(times.p95),
            three_digits(times.p99),
            percent(times.interquartile / times.median),
            times.drift && *times.drift > kSteadyDrift ? "! " + drift : drift,
            std::to_string(times.runs),
            three_digits(1e6 / entry.us_per_image()),
            three_digits(entry.us_per_image() / 1000)};
  }

  void print_network() const {
    Table network = table({"median ms", "min ms", "p95 ms", "p99 ms", "spread", "drift", "runs", "images/s",
                           "ms/image", "memory MB", "plan s", "warm start s"});
    for (const Entry& entry : report_.entries) {
      if (entry.end_to_end) continue;
      std::vector<std::string> cells = times_of(entry);
      cells.push_back(three_digits(static_cast<double>(entry.memory_bytes) / 1e6));
      cells.push_back(three_digits(entry.plan_seconds));
      cells.push_back(three_digits(entry.warm_start_seconds));
      add_row(network, entry.workload, std::move(cells));
    }
    print(
        "Network", network,
        "From pixels of the network's size to the scores and boxes of every anchor, both in the device's memory.\n"
        "Not in it: reading, decoding and resizing pictures, copies to and from the device, threshold, suppression.\n"
        "Spread: third quartile less first quartile. Drift: between the medians of the first and the second half of\n"
        "the runs; \"!\" marks more than 3 %, which is not to be relied on. Memory: what it adds to the device's. "
        "Warm\n"
        "start: from the weights on disk to the first result, once the libraries are loaded; plan: the part of it "
        "that\n"
        "builds the plan.");
  }

  void print_end_to_end() const {
    Table times =
        table({"median ms", "min ms", "p95 ms", "p99 ms", "spread", "drift", "runs", "images/s", "ms/image"});
    for (const Entry& entry : report_.entries)
      if (entry.end_to_end) add_row(times, entry.workload, times_of(entry));
    print("End to end", times,
          fmt::format(
              "From encoded pictures in the host's memory ({}) to boxes in their pixels: decoding, copies both\n"
              "ways, resizing, network, threshold, suppression. Not in it: reading from disk, drawing, writing.\n"
              "One batch after another: the next is not decoded while one is computed.",
              counted(pictures_, "picture")));
  }

  void print_stages() const {
    Table stages = table({"decode", "copy", "preprocess", "network", "postprocess", "end to end"});
    for (const Entry& entry : report_.entries) {
      if (!entry.stages) continue;
      std::vector<std::string> cells;
      for (const auto& stage : {entry.stages->decode, entry.stages->copy, entry.stages->preprocess,
                                entry.stages->network, entry.stages->postprocess})
        cells.push_back(stage ? three_digits(*stage) : "");
      cells.push_back(three_digits(entry.milliseconds.median));
      add_row(stages, entry.workload, std::move(cells));
    }
    print(
        "Stages of end to end, ms of a batch", stages,
        gpu_ ? "Medians, so they need not add up. Preprocess (resizing) and postprocess (boxes, suppression) are the\n"
               "plan's first and last step, timed by themselves; network is what else lies between the copies."
             : "Medians, so they need not add up. There is nothing to copy on a processor.");
  }

  const Entry* find(const Workload& workload, bool end_to_end) const {
    const auto found = std::ranges::find_if(report_.entries, [&](const Entry& entry) {
      return entry.workload == workload && entry.end_to_end == end_to_end;
    });
    return found != report_.entries.end() ? &*found : nullptr;
  }

  // How much less time an image takes than in another workload.
  std::string gain_over(const Entry& entry, Workload other) const {
    const Entry* const base = find(other, false);
    return base != nullptr ? ratio(base->us_per_image() / entry.us_per_image()) : "";
  }

  static std::string streams(const Entry* entry) {
    return entry != nullptr ? fmt::format("{:.0f}", std::floor(1e6 / entry->us_per_image() / 30)) : "";
  }

  void print_summary() const {
    std::vector<std::string> titles{"ms/image", gpu_ ? "over fp32 default" : "over fp32", "over batch 1",
                                    "30 FPS streams"};
    if (pictures_ > 0) titles.emplace_back("streams end to end");
    Table summary = table(std::move(titles));
    for (const Entry& entry : report_.entries) {
      if (entry.end_to_end) continue;
      Workload plain = entry.workload, single = entry.workload;
      plain.precision = "fp32";
      if (plain.mode) plain.mode = name_of(Mode::Default);
      single.batch = 1;
      std::vector<std::string> cells{three_digits(entry.us_per_image() / 1000), gain_over(entry, plain),
                                     gain_over(entry, single), streams(&entry)};
      if (pictures_ > 0) cells.push_back(streams(find(entry.workload, true)));
      add_row(summary, entry.workload, std::move(cells));
    }
    print(
        "Summary", summary,
        fmt::format("Times and gains are of the network, for each image: over {} at the same batch, and over batch 1\n"
                    "otherwise the same. Streams: how many cameras of 30 pictures a second it keeps up with.",
                    gpu_ ? "fp32 launched kernel by kernel" : "fp32"));
  }

  const Report& report_;
  bool markdown_, gpu_;
  std::size_t pictures_;
  Console& console_;
};

void print_left_out(const std::vector<LeftOut>& left_out, Console& console) {
  for (const LeftOut& one : left_out)
    fmt::print(console.out, "left out: {}{}, batch {}: {}\n", one.workload.precision,
               one.workload.mode ? " " + *one.workload.mode : "", one.workload.batch, one.reason);
}

int bench(BenchOptions options, Console& console) {
  require_writable({options.json}, {options.weights});
  const DeviceChoice device = choose_device(options.detector.device, Precision::Auto);
  options.detector.device = device.device;
  MeasureOptions asked{options.weights, combinations_of(options), {}, options.seconds};
  const ModelSpec model = model_of(options.weights, options.detector);
  asked.images = pictures_of(options, console);
  Report report = begin_report(device, options.detector.threads, console.typed);
  fmt::print(console.out, "{}\n{}\n", describe(model), header_text(report));
  console.out.flush();
  Measured measured = measure(asked);
  report.entries = std::move(measured.entries);
  report.left_out = std::move(measured.left_out);
  report.cold_start_seconds = measured.cold_start_seconds;
  Tables(report, options.markdown, asked.images.size(), console).print();
  print_left_out(report.left_out, console);
  if (!options.json.empty()) {
    write_json(report, options.json);
    fmt::print(console.out, "wrote {}\n", options.json);
  }
  if (report.entries.empty())
    throw Error("none of {} could be measured", counted(asked.combinations.size(), "combination"));
  return 0;
}

}  // namespace

Action add_bench(CLI::App& command) {
  const auto options = std::make_shared<BenchOptions>();
  add_weights_option(command, options->weights)->required();
  add_place_options(command, options->detector);
  add_precisions_option(command, options->precisions);
  add_modes_option(command, options->modes);
  CLI::Option* batches = command.add_option("--batch", options->batches, "Images that run together");
  allow_range(*batches, 1, 1024)
      ->type_name("LIST")
      ->delimiter(',')
      ->default_str(fmt::format("{}", fmt::join(options->batches, ",")));
  add_size_option(command, options->detector);
  CLI::Option* seconds =
      command.add_option("--seconds", options->seconds, "That each combination is measured for, each way");
  allow_range(*seconds, 0.001, 3600.0)->type_name("SECONDS")->capture_default_str();
  command.add_option("--images", options->images, "Pictures for the end-to-end runs: a folder, a pattern or a file")
      ->type_name("SOURCE")
      ->default_str(kBundledPictures);
  add_report_options(command, options->json, options->markdown);
  return [options](Console& console) { return bench(*options, console); };
}

}  // namespace damoyolo::cli
