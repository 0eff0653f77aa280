// Times every kernel that computes the layers of the table (bench/layers), our own beside the libraries', on a GPU:
//   build/layer-bench --variants T,S,M,L --batch 1,8,32 --json layers.json
//
// Each is checked against the host first, on a part of the output. Runs are captured and take turns on tensors that
// are twice the size of the second-level cache together, so that each finds its input in device memory (--warm: the
// same tensors again and again). Per layer: the best of ours, the best of the libraries', their ratio, and the
// roofline's share of the best time of ours; per batch the geometric mean of the ratios. Pairs of convolutions that
// one launch may compute are timed beside two launches of what was fastest for each of them, whosever it was.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/layers/cost_fit.h"
#include "bench/layers/layer_check.h"
#include "bench/layers/layer_table.h"
#include "bench/program.h"
#include "engine/core/error.h"
#include "engine/cuda/backend.h"
#include "engine/cuda/ceilings.h"
#include "engine/cuda/conv_split.h"
#include "engine/cuda/conv_timing.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/kernel_choice.h"
#include "engine/cuda/library.h"
#include "engine/cuda/time_shares.h"
#include "gen/commit.h"

namespace {

using namespace damoyolo;
using namespace damoyolo::cuda;

struct Options {
  std::vector<std::string> variants{"T", "S", "M", "L"}, kernels{"own", "library"};
  std::vector<int> batches{1, 8, 32};
  std::string layers = "bench/layers/layers.json", json;
  int device = 0;
  double seconds = 480;
  bool all = false, warm = false, overlap = false, table = false;
};

struct Timed {
  ConvCandidate candidate;
  CandidateTime time;
  bool own = false;
};

struct Result {
  const Layer* layer = nullptr;
  ConvProblem problem;
  double floor_seconds = 0;
  std::vector<Timed> timed;

  // The fastest of ours, or of the others; null when none was timed.
  const Timed* best(bool own) const {
    const Timed* best = nullptr;
    for (const Timed& one : timed)
      if (one.own == own && one.time.error.empty() && (best == nullptr || one.time.seconds < best->time.seconds))
        best = &one;
    return best;
  }
  bool is_pair() const { return problem.then.c > 0; }
  // The libraries' time over ours, or that of two launches over a pair's: above 1, ours is faster.
  std::optional<double> ratio() const {
    const Timed *own = best(true), *library = best(false);
    if (own == nullptr || library == nullptr) return std::nullopt;
    return library->time.seconds / own->time.seconds;
  }
};

double bytes_of(const ConvProblem& p) {
  const auto bytes = [](const Shape& shape, DType type) {
    return static_cast<double>(shape.elements()) * static_cast<double>(size_of(type));
  };
  const double residual = p.residual == ConvProblem::Residual::None   ? 0
                          : p.residual == ConvProblem::Residual::Same ? bytes(p.out, p.type)
                                                                      : bytes(p.out, p.type) / 4;
  const double weights =
      static_cast<double>(p.kernel * p.kernel) * p.in.c * p.out.c + static_cast<double>(p.out.c) * p.then.c;
  const double second = static_cast<double>(p.out.pixels()) * p.then.c * static_cast<double>(size_of(p.type));
  return bytes(p.in, p.type) + (p.keep ? bytes(p.out, p.out_type) : 0) + second + residual +
         weights * static_cast<double>(size_of(p.type));
}

double flops_of(const ConvProblem& p) {
  return 2.0 * (p.kernel * p.kernel * p.in.c + p.then.c) * static_cast<double>(p.out.elements());
}

// The two launches of a pair, with the kernels for both.
class KernelsApart : public ConvKernel {
 public:
  KernelsApart(const ConvProblem& problem, const ConvWeights& weights, const ConvCandidate& first,
               const ConvCandidate& second)
      : first_(first.make(weights)), second_(second.make({weights.then_weight, weights.then_bias})) {
    const ConvPair pair{describe(problem), problem, {}, {first_.get(), second_.get()}};
    both_ = apart(pair).make(weights);
  }

  std::string name() const override { return both_->name(); }
  std::size_t workspace_bytes() const override { return both_->workspace_bytes(); }
  void run(const ConvPointers& pointers, kernels::Stream stream) override { both_->run(pointers, stream); }

 private:
  std::unique_ptr<ConvKernel> first_, second_, both_;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        environment_(open_environment(options.device)),
        runtime_(*environment_.runtime),
        stream_(make_stream(runtime_)),
        libraries_(open_libraries()),
        ceilings_(measure_ceilings(environment_)) {}

  void run(const std::vector<Layer>& layers) {
    for (const std::string& line : libraries_.report) fmt::print("{}\n", line);
    fmt::print("{}; copies {:.0f} GB/s, products in bf16 {:.0f} TFLOP/s\n\n", environment_.gpu,
               ceilings_.copy_bytes_per_second / 1e9, ceilings_.bf16_flops / 1e12);
    TimeShares shares(options_.seconds, std::ssize(layers) * std::ssize(options_.batches));
    for (const int batch : options_.batches)
      for (const Layer& layer : layers) {
        results_.push_back(measure(layer, batch, shares.next_deadline()));
        print(results_.back());
        if (TimeShares::Clock::now() > written_ + kBetweenReports) write_report();
      }
    write_report();
    fmt::print("\n");
    for (const int batch : options_.batches) print_summary(batch);
  }

 private:
  nlohmann::json report() const;

  // Now and then: a fault of the GPU, or an end from outside, leaves what has been timed until then.
  void write_report() {
    if (options_.json.empty()) return;
    const std::string partial = options_.json + ".partial";
    std::ofstream file(partial);
    file << report().dump(1) << '\n';
    file.close();
    if (!file) throw Error("{}: cannot be written", partial);
    std::filesystem::rename(partial, options_.json);
    written_ = TimeShares::Clock::now();
  }

  std::vector<Timed> candidates(const ConvProblem& problem) {
    std::vector<ConvCandidate> own, library;
    if (wants("own")) own = own_candidates(problem, libraries_.device, options_.all ? ~std::size_t{0} : kOwn);
    if (wants("library") && libraries_.cudnn != nullptr)
      library = conv_candidates(problem, libraries_, KernelSource::Library, Proposals::All);
    // In turns, so that neither side is cut short alone when there is no time for all.
    std::vector<Timed> all;
    for (std::size_t i = 0; i < std::max(own.size(), library.size()); ++i) {
      if (i < own.size()) all.push_back({std::move(own[i]), {}, true});
      if (i < library.size()) all.push_back({std::move(library[i]), {}, false});
    }
    return all;
  }

  // The fastest that was timed for a problem; null when none was.
  const Timed* fastest(const ConvProblem& problem) const {
    const Timed* fastest = nullptr;
    for (const Result& result : results_)
      if (result.problem == problem)
        for (const Timed* best : {result.best(true), result.best(false)})
          if (best != nullptr && (fastest == nullptr || best->time.seconds < fastest->time.seconds)) fastest = best;
    return fastest;
  }

  // Puts the two launches in front, where both have been timed.
  void add_apart(const ConvProblem& pair, std::vector<Timed>& timed) const {
    const Timed *first = fastest(first_of(pair)), *second = fastest(second_of(pair));
    if (first == nullptr || second == nullptr) return;
    ConvCandidate both{kApart, first->candidate.predicted_seconds + second->candidate.predicted_seconds,
                       [pair, one = first->candidate, other = second->candidate](const ConvWeights& weights) {
                         return std::make_unique<KernelsApart>(pair, weights, one, other);
                       }};
    timed.insert(timed.begin(), {std::move(both), {}, false});
  }

  Result measure(const Layer& layer, int batch, TimeShares::Clock::time_point deadline) {
    Result result{&layer, with_batch(layer.problem, batch), 0, {}};
    const ConvProblem& problem = result.problem;
    if (ceilings_.bf16_flops > 0 && ceilings_.copy_bytes_per_second > 0)
      result.floor_seconds =
          std::max(flops_of(problem) / ceilings_.bf16_flops, bytes_of(problem) / ceilings_.copy_bytes_per_second);
    LayerCheck check(runtime_, stream_.get(), problem, kCheckedPixels);
    TimingOptions timing;
    timing.overlap = options_.overlap;
    timing.deadline = deadline;
    if (!options_.warm) timing.rotated_bytes = 2 * static_cast<std::size_t>(libraries_.device.l2_bytes);
    timing.check = [&](ConvKernel& kernel) {
      const double error = check.relative_error(kernel);
      if (!(error < kLayerTolerance)) throw Error("its relative error is {:.2g}", error);
    };
    result.timed = candidates(problem);
    if (result.is_pair()) add_apart(problem, result.timed);
    std::vector<ConvCandidate> asked;
    for (const Timed& one : result.timed) asked.push_back(one.candidate);
    const auto times = time_candidates(runtime_, stream_.get(), problem, asked, check.weights(), timing);
    for (std::size_t i = 0; i < times.size(); ++i) result.timed[i].time = times[i];
    return result;
  }

  bool wants(const char* kernels) const { return std::ranges::count(options_.kernels, kernels) > 0; }

  static std::string text_of(const Timed* timed) {
    return timed == nullptr ? "-" : fmt::format("{:.2f} us {}", timed->time.seconds * 1e6, timed->time.name);
  }

  void print(const Result& result) const {
    const Timed *own = result.best(true), *library = result.best(false);
    const std::optional<double> ratio = result.ratio();
    fmt::print("batch {:<3} {:<70} {:<46} {:<60} {:>6} {:>5}\n", result.problem.in.n, describe(result.problem),
               text_of(own), text_of(library), ratio ? fmt::format("{:.2f}x", *ratio) : "-",
               own != nullptr && result.floor_seconds > 0
                   ? fmt::format("{:.0f} %", 100 * result.floor_seconds / own->time.seconds)
                   : "-");
    for (const Timed& one : result.timed)
      if (!one.time.error.empty()) fmt::print("          not timed: {}: {}\n", one.time.name, one.time.error);
    std::fflush(stdout);
  }

  std::vector<const Result*> of_batch(int batch) const {
    std::vector<const Result*> found;
    for (const Result& result : results_)
      if (result.problem.in.n == batch) found.push_back(&result);
    return found;
  }

  // The geometric mean, the smallest ratio, and how many layers have one.
  struct Summary {
    double mean = 0, smallest = 0;
    int layers = 0;
  };
  Summary summary(int batch, bool pairs) const {
    Summary summary;
    double logarithms = 0;
    for (const Result* result : of_batch(batch))
      if (const std::optional<double> ratio = result->ratio(); ratio && result->is_pair() == pairs) {
        logarithms += std::log(*ratio);
        summary.smallest = summary.layers == 0 ? *ratio : std::min(summary.smallest, *ratio);
        ++summary.layers;
      }
    if (summary.layers > 0) summary.mean = std::exp(logarithms / summary.layers);
    return summary;
  }

  int not_timed(int batch) const {
    std::ptrdiff_t count = 0;
    for (const Result* result : of_batch(batch))
      count += std::ranges::count_if(result->timed, [](const Timed& one) { return !one.time.error.empty(); });
    return static_cast<int>(count);
  }

  void print_summary(int batch) const {
    fmt::print("batch {}: ", batch);
    for (const bool pairs : {false, true})
      if (const Summary found = summary(batch, pairs); found.layers > 0)
        fmt::print("{} {:.3f}x (geometric mean of {} {}), smallest {:.2f}x; ",
                   pairs ? "one launch over two" : "own over library", found.mean, found.layers,
                   pairs ? "pairs" : "layers", found.smallest);
    fmt::print("{} candidates not timed\n", not_timed(batch));
  }

  static constexpr std::size_t kOwn = 8;  // of each generation
  static constexpr int kCheckedPixels = 64;
  static constexpr std::chrono::seconds kBetweenReports{5};

  Options options_;
  Environment environment_;
  Runtime& runtime_;
  Owned<CUstream_st> stream_;
  Libraries libraries_;  // given the stream, and so the first to go
  Ceilings ceilings_;
  std::vector<Result> results_;
  TimeShares::Clock::time_point written_ = TimeShares::Clock::now();
};

nlohmann::json Bench::report() const {
  nlohmann::json report;
  report["device"] = gpu_at(cuda::find_gpus(), options_.device).name;
  report["traits"] = libraries_.device;
  report["commit"] = kCommit;
  report["libraries"] = libraries_.report;
  report["caches"] = options_.warm ? "warm" : "rotated";
  report["overlap"] = options_.overlap;
  report["ceilings"] = {{"copy_gbs", ceilings_.copy_bytes_per_second / 1e9},
                        {"bf16_tflops", ceilings_.bf16_flops / 1e12}};
  report["layers"] = nlohmann::json::array();
  for (const Result& result : results_) {
    nlohmann::json entry{{"layer", describe(result.problem)},    {"batch", result.problem.in.n},
                         {"variants", result.layer->count},      {"flops", flops_of(result.problem)},
                         {"bytes", bytes_of(result.problem)},    {"floor_us", result.floor_seconds * 1e6},
                         {"candidates", nlohmann::json::array()}};
    for (const Timed& one : result.timed) {
      nlohmann::json candidate{{"kernel", one.time.name}, {"predicted_us", one.candidate.predicted_seconds * 1e6}};
      if (one.time.error.empty())
        candidate["us"] = one.time.seconds * 1e6;
      else
        candidate["error"] = one.time.error;
      entry["candidates"].push_back(std::move(candidate));
    }
    entry["pair"] = result.is_pair();
    if (const auto ratio = result.ratio()) entry[result.is_pair() ? "two_over_one" : "library_over_own"] = *ratio;
    report["layers"].push_back(std::move(entry));
  }
  for (const int batch : options_.batches) {
    const Summary found = summary(batch, false), pairs = summary(batch, true);
    report["summary"].push_back({{"batch", batch},
                                 {"layers", found.layers},
                                 {"geometric_mean", found.mean},
                                 {"smallest", found.smallest},
                                 {"pairs", pairs.layers},
                                 {"geometric_mean_of_pairs", pairs.mean},
                                 {"smallest_of_pairs", pairs.smallest},
                                 {"not_timed", not_timed(batch)}});
  }
  return report;
}

void run(const Options& options) {
  if (options.table) {
    fmt::print("{}", layers_to_json(layers_of_variants()));
    return;
  }
  const GpuList gpus = cuda::find_gpus();
  if (gpus.gpus.empty()) throw Error("layers are timed on a GPU, and {}", gpus.why_none);
  std::vector<Layer> layers = read_layers(options.layers);
  std::erase_if(layers, [&](const Layer& layer) {
    return std::ranges::none_of(options.variants,
                                [&](const std::string& variant) { return layer.count.contains(variant); });
  });
  if (layers.empty()) throw Error("no layer is of {}", fmt::join(options.variants, ", "));
  Bench bench(options);
  bench.run(layers);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times the kernels that compute the layers of DAMO-YOLO", "layer-bench");
  app.add_option("--variants", options.variants, "Whose layers")->delimiter(',')->capture_default_str();
  app.add_option("--batch", options.batches, "Images")
      ->delimiter(',')
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  app.add_option("--kernels", options.kernels, "Which ones")
      ->delimiter(',')
      ->check(CLI::IsMember({"own", "library"}))
      ->capture_default_str();
  app.add_option("--device", options.device, "Number of the GPU")->capture_default_str();
  app.add_option("--seconds", options.seconds, "For all of it, in equal parts")->capture_default_str();
  app.add_option("--layers", options.layers, "The table")->capture_default_str();
  app.add_option("--json", options.json, "Write every time to this file");
  app.add_flag("--all", options.all, "Every configuration of our own kernels, not only the best by prediction");
  app.add_flag("--warm", options.warm, "The same tensors again and again, in the cache as far as they fit");
  app.add_flag("--overlap", options.overlap, "Let a run of ours begin while the one before it ends");
  app.add_flag("--table", options.table, "Print the layer table, made anew from the variants, and end");
  return parse_and_run(app, argc, argv, [&] { run(options); });
}
