#include "cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>
#include <tuple>

#include "cli/text.h"

namespace damoyolo::cli {
namespace {

// CLI::Range lets "nan" pass, and calls 1.5 a number that is not from 1 to 2 where a whole one is meant.
template <typename Number>
CLI::Validator number_in(Number least, Number most, const char* what) {
  const auto check = [=](std::string& text) {
    const char* const end = text.data() + text.size();
    Number value{};
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    return error == std::errc{} && rest == end && value >= least && value <= most
               ? std::string()
               : fmt::format("\"{}\" is not a {} from {} to {}", text, what, least, most);
  };
  return CLI::Validator(check, "");
}

const CLI::Validator& device_name() {
  static const CLI::Validator validator(
      [](std::string& text) {
        const std::string_view name = text;
        const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
        const std::string_view index = name.starts_with("cuda:") ? name.substr(5) : "";
        const bool known = name == "auto" || name == "cpu" || name == "cuda" ||
                           (!index.empty() && std::all_of(index.begin(), index.end(), is_digit));
        return known ? std::string() : fmt::format("\"{}\" is not auto, cpu, cuda or cuda:N", text);
      },
      "");
  return validator;
}

const std::vector<std::string> kPrecisions{"auto", "fp32", "bf16", "fp16"};
const std::vector<std::string> kModes{"default", "reduce-overhead", "max-autotune"};
constexpr const char* kPrecisionHelp = "Arithmetic of the network";
constexpr const char* kModeHelp =
    "On a GPU: launch kernels one by one, replay a captured graph, or time kernels first";

}  // namespace

CLI::Option* allow_only(CLI::Option& option, std::vector<std::string> values) {
  const std::string text = fmt::format("{}", fmt::join(values, "|"));
  return option.type_name(text)->check(CLI::IsMember(std::move(values)).description(""));
}

CLI::Option* allow_list(CLI::Option& option, std::vector<std::string> values) {
  return allow_only(option, std::move(values))->type_name("LIST")->delimiter(',');
}

CLI::Option* allow_range(CLI::Option& option, int least, int most) {
  return option.type_name(fmt::format("{}..{}", least, most))->check(number_in(least, most, "whole number"));
}

CLI::Option* allow_range(CLI::Option& option, double least, double most) {
  return option.type_name(fmt::format("{}..{}", least, most))->check(number_in(least, most, "number"));
}

CLI::Option* add_weights_option(CLI::App& command, std::string& path) {
  return command.add_option("-w,--weights", path, "Weights file, made by \"damoyolo import\"")->type_name("FILE");
}

void add_device_option(CLI::App& command, std::string& device) {
  command.add_option("--device", device, "Where the network runs")
      ->type_name("auto|cpu|cuda|cuda:N")
      ->check(device_name())
      ->capture_default_str();
}

void add_place_options(CLI::App& command, DetectorOptions& options) {
  add_device_option(command, options.device);
  const auto set_kept = [&options](const std::string& names) { options.keep_fp32 = split(names, ','); };
  command
      .add_option_function<std::string>(
          "--keep-fp32", set_kept,
          "Layers that compute in fp32 whatever the precision: convolutions as \"damoyolo graph\" names them, with "
          "commas between; neck.* stands for all that begin so")
      ->type_name("LIST");
  command.add_flag("--tf32", options.allow_tf32, "On a GPU: let fp32 convolutions use TF32 tensor cores");
  const auto set_kernels = [&options](const std::string& name) { options.kernels = kernel_source_from_name(name); };
  CLI::Option* kernels = command.add_option_function<std::string>(
      "--kernels", set_kernels,
      "On a GPU: who computes convolutions, cuDNN and cuBLASLt or this program's own kernels");
  allow_only(*kernels, {"auto", "library", "own"})->default_str("auto");
  command.add_flag_callback(
      "--no-overlap", [&options] { options.overlap = false; },
      "On a GPU: let each kernel end before the next one starts, and fetch nothing for it, also where they may "
      "overlap");
  command.add_flag_callback(
      "--no-pairs", [&options] { options.pairs = false; },
      "On a GPU: give each convolution a launch of its own, also where one could compute two");
  CLI::Option* streams = command.add_option(
      "--streams", options.streams, "On a GPU: streams, at most, on which branches of the network run side by side");
  allow_range(*streams, 1, kMaxStreams)->capture_default_str();
  CLI::Option* threads =
      command.add_option("--threads", options.threads, "Processor threads; 0: all that the process may use");
  allow_range(*threads, 0, 1024)->capture_default_str();
}

void add_device_options(CLI::App& command, DetectorOptions& options) {
  add_place_options(command, options);
  const auto set_precision = [&options](const std::string& name) { options.precision = precision_from_name(name); };
  CLI::Option* precision = command.add_option_function<std::string>("--precision", set_precision, kPrecisionHelp);
  allow_only(*precision, kPrecisions)->default_str("auto");
  const auto set_mode = [&options](const std::string& name) { options.mode = mode_from_name(name); };
  CLI::Option* mode = command.add_option_function<std::string>("--mode", set_mode, kModeHelp);
  allow_only(*mode, kModes)->default_str("reduce-overhead");
  command.add_flag("--warmup", options.warmup, "Run once before the first images, so that these find all ready");
}

void add_precisions_option(CLI::App& command, std::vector<std::string>& precisions) {
  allow_list(*command.add_option("--precision", precisions, kPrecisionHelp), kPrecisions)
      ->default_str(fmt::format("{}", fmt::join(precisions, ",")));
}

void add_modes_option(CLI::App& command, std::vector<std::string>& modes) {
  allow_list(*command.add_option("--mode", modes, kModeHelp), kModes)
      ->default_str(fmt::format("{}", fmt::join(modes, ",")));
}

void add_size_option(CLI::App& command, DetectorOptions& options) {
  const auto set = [&options](const std::string& text) { std::tie(options.height, options.width) = parse_size(text); };
  command.add_option_function<std::string>("--size", set, "Network pixels, multiples of 32 (default: the model's)")
      ->type_name("HEIGHTxWIDTH");
}

void add_report_options(CLI::App& command, std::string& json, bool& markdown) {
  command.add_option("--json", json, "Write every figure to this file (docs/benchmark-format.md)")->type_name("FILE");
  command.add_flag("--markdown", markdown, "Print tables in Markdown");
}

void add_batch_option(CLI::App& command, int& batch) {
  allow_range(*command.add_option("--batch", batch, "Images that run together"), 1, 1024)->capture_default_str();
}

void add_threshold_options(CLI::App& command, std::optional<double>& confidence, std::optional<double>& iou,
                           const std::string& default_confidence, const std::string& default_iou) {
  allow_range(*command.add_option("--conf", confidence, "Keep detections with a higher score"), 0.0, 1.0)
      ->default_str(default_confidence);
  CLI::Option* overlap =
      command.add_option("--iou", iou, "Suppress boxes that overlap more with a better one of their class");
  allow_range(*overlap, 0.0, 1.0)->default_str(default_iou);
}

std::pair<int, int> parse_size(const std::string& text) {
  const char* const end = text.data() + text.size();
  int height = 0, width = 0;
  const auto [cross, height_error] = std::from_chars(text.data(), end, height);
  bool parsed = height_error == std::errc{} && cross != end && *cross == 'x';
  if (parsed) {
    const auto [rest, width_error] = std::from_chars(cross + 1, end, width);
    parsed = width_error == std::errc{} && rest == end;
  }
  const auto usable = [](int size) { return size > 0 && size <= 16384 && size % 32 == 0; };
  if (!parsed || !usable(height) || !usable(width))
    throw CLI::ValidationError("--size",
                               fmt::format("\"{}\" is not HEIGHTxWIDTH in multiples of 32, as in 384x640", text));
  return {height, width};
}

}  // namespace damoyolo::cli
