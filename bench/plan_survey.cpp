// What a GPU would run, counted without one: for every convolution in the plan of a variant, the kernel that would be
// tried first, as cuDNN proposes for an H100 that is only described and as our heuristics rank our own. Ours compute
// pairs in one launch where that is predicted to be faster.
//   build/plan-survey --variants S,L --batch 1,32 [--no-pairs]
//
// Times are predictions. What is counted is not: a library's kernel may need tensors copied in its workspace, and
// leave a rest to our epilogue kernel, and each is a launch more.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/layers/layer_table.h"
#include "bench/layers/variant_plan.h"
#include "bench/program.h"
#include "engine/core/error.h"
#include "engine/cuda/conv_methods.h"
#include "engine/cuda/conv_problem.h"
#include "engine/cuda/conv_split.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/cudnn_convolution.h"
#include "engine/cuda/described_device.h"
#include "engine/cuda/kernel_choice.h"
#include "engine/cuda/plan.h"
#include "engine/model/spec.h"

namespace {

using namespace damoyolo;
using namespace damoyolo::cuda;

struct Options {
  std::vector<std::string> variants{"S"};
  std::vector<int> batches{1};
  std::string precision = "bf16";
  bool each = false, pairs = true;
};

struct Choice {
  std::string name;
  double seconds = 0;
  bool copies = false, epilogue = false;
};

struct Totals {
  int convolutions = 0, copies = 0, epilogues = 0;
  // By step, if every step begins as soon as it may: when it is over, and how many launches have come one after
  // another.
  std::vector<double> end;
  std::vector<int> chain;

  int launches(std::size_t steps) const { return static_cast<int>(steps) + copies + epilogues; }
};

// What a plan without autotuning takes from the libraries. cuBLASLt cannot be asked without a device; what it
// documents to do, it is taken to do.
std::optional<Choice> library_choice(const ConvProblem& problem, const Libraries& libraries) {
  std::optional<Choice> best;
  for (const ConvMethod& method : conv_methods(problem, {true, true, libraries.device})) {
    Choice choice{describe(method.split), method.predicted_seconds, false, method.split.epilogue};
    if (method.kind == ConvMethod::Kind::Depthwise) {
      choice.name = "own:depthwise";
    } else if (method.kind == ConvMethod::Kind::CublasLt) {
      choice.name = "cublaslt:" + choice.name;
    } else {
      const auto configs = cudnn_configs(*libraries.cudnn, method.split);
      const CudnnConfig* found = first_ready_made(configs);
      if (found == nullptr) continue;
      const double copying = copy_seconds(found->workspace_bytes, libraries.device);
      choice.name = found->name;
      choice.seconds += copying;
      choice.copies = copying > 0;
    }
    if (!best || choice.seconds < best->seconds) best = choice;
  }
  return best;
}

std::optional<Choice> own_choice(const ConvProblem& problem, const Libraries& libraries) {
  if (problem.groups > 1) return library_choice(problem, libraries);
  const auto candidates = own_candidates(problem, libraries.device, 1);
  if (candidates.empty()) return std::nullopt;
  return Choice{candidates.front().name, candidates.front().predicted_seconds, false, false};
}

class Survey {
 public:
  explicit Survey(const Options& options)
      : options_(options), type_(dtype_of(options.precision)), libraries_(libraries_for(kH100)) {
    if (libraries_.cudnn == nullptr) throw Error("{}", fmt::join(libraries_.report, "; "));
    fmt::print("{}\n{:<8}{:>6}  {:<10}{:>13}{:>10}{:>10}{:>8}{:>11}{:>16}\n", fmt::join(libraries_.report, "\n"),
               "variant", "batch", "kernels", "convolutions", "launches", "in a row", "copies", "epilogues",
               "predicted us");
  }

  void run(const ModelSpec& spec, int batch) {
    VariantPlan planned = plan_of(spec, batch, type_);
    for (const bool own : {false, true}) {
      if (own && type_ == DType::F32) continue;  // ours are for 16 bits
      if (own && options_.pairs) planned.plan = with_pairs(planned.graph);
      const Totals totals = count(planned, own ? own_choice_ : library_choice_);
      fmt::print("{:<8}{:>6}  {:<10}{:>13}{:>10}{:>10}{:>8}{:>11}{:>16.0f}\n", spec.variant, batch,
                 own ? "own" : "libraries", totals.convolutions, totals.launches(planned.plan.steps.size()),
                 *std::ranges::max_element(totals.chain), totals.copies, totals.epilogues,
                 *std::ranges::max_element(totals.end) * 1e6);
    }
  }

 private:
  using Choose = std::function<std::optional<Choice>(const ConvProblem&)>;

  Plan with_pairs(const Graph& graph) const {
    PlanOptions options;
    options.activations = type_;
    const auto seconds = [&](const ConvProblem& problem) {
      const std::optional<Choice> choice = own_choice_(problem);
      return choice ? choice->seconds : std::numeric_limits<double>::infinity();
    };
    return lower_joining(graph, options, [&](const Step& step) {
      const ConvProblem pair = conv_problem(graph, step, false);
      return seconds(pair) < seconds(first_of(pair)) + seconds(second_of(pair));
    });
  }

  Totals count(const VariantPlan& planned, const Choose& choose) const {
    const auto& [graph, plan] = planned;
    Totals totals;
    for (const Step& step : plan.steps) {
      double begin = 0, seconds = kLaunchSeconds;
      int chain = 0, launches = 1;
      for (const int before : step.dependencies) {
        begin = std::max(begin, totals.end[static_cast<std::size_t>(before)]);
        chain = std::max(chain, totals.chain[static_cast<std::size_t>(before)]);
      }
      if (step.kind == StepKind::Conv) {
        const ConvProblem problem = conv_problem(graph, step, false);
        const std::string node = name_of(step, graph);
        const std::optional<Choice> choice = choose(problem);
        if (!choice) throw Error("{}: nothing computes it", node);
        if (options_.each)
          fmt::print("  {:<34} {:<64} {}{}{} {:.1f} us\n", node, describe(problem), choice->name,
                     choice->copies ? ", copies" : "", choice->epilogue ? ", epilogue" : "", choice->seconds * 1e6);
        totals.convolutions += step.then == kNone ? 1 : 2;
        totals.copies += choice->copies;
        totals.epilogues += choice->epilogue;
        launches += choice->copies + choice->epilogue;
        seconds = choice->seconds;
      } else {
        seconds += static_cast<double>(bytes_moved(step, graph)) / libraries_.device.bytes_per_second;
      }
      totals.end.push_back(begin + seconds);
      totals.chain.push_back(chain + launches);
    }
    return totals;
  }

  static DType dtype_of(const std::string& precision) {
    return precision == "fp32" ? DType::F32 : precision == "fp16" ? DType::F16 : DType::BF16;
  }

  Options options_;
  DType type_;
  Libraries libraries_;
  Choose library_choice_ =
      remembered([this](const ConvProblem& problem) { return library_choice(problem, libraries_); });
  Choose own_choice_ = remembered([this](const ConvProblem& problem) { return own_choice(problem, libraries_); });
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Counts what a GPU would run for DAMO-YOLO, on an H100 that need not be here", "plan-survey");
  app.add_option("--variants", options.variants, "Whose plans")->delimiter(',')->capture_default_str();
  app.add_option("--batch", options.batches, "Images")
      ->delimiter(',')
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  app.add_option("--precision", options.precision, "Of weights and activations")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}))
      ->capture_default_str();
  app.add_flag_callback(
      "--no-pairs", [&options] { options.pairs = false; }, "Every convolution in a launch of its own");
  app.add_flag("--each", options.each, "Every convolution and its kernel");
  return parse_and_run(app, argc, argv, [&] {
    Survey survey(options);
    for (const std::string& variant : options.variants)
      for (const int batch : options.batches) survey.run(released_variant(variant), batch);
  });
}
