// Options that several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/detector.h"

namespace damoyolo::cli {

// What an option may be, checked and named in the help. They return the option.
CLI::Option* allow_only(CLI::Option& option, std::vector<std::string> values);
CLI::Option* allow_list(CLI::Option& option, std::vector<std::string> values);  // several, with commas between
CLI::Option* allow_range(CLI::Option& option, int least, int most);             // whole numbers
CLI::Option* allow_range(CLI::Option& option, double least, double most);

// -w: a weights file.
CLI::Option* add_weights_option(CLI::App& command, std::string& path);

// --device.
void add_device_option(CLI::App& command, std::string& device);

// This, --keep-fp32, --tf32, --kernels, --no-overlap, --no-pairs, --streams, --threads.
void add_place_options(CLI::App& command, DetectorOptions& options);

// These, and --precision, --mode, --warmup.
void add_device_options(CLI::App& command, DetectorOptions& options);

// --precision and --mode with several values each.
void add_precisions_option(CLI::App& command, std::vector<std::string>& precisions);
void add_modes_option(CLI::App& command, std::vector<std::string>& modes);

// --size, the network's.
void add_size_option(CLI::App& command, DetectorOptions& options);

// --json and --markdown, of the benchmarks.
void add_report_options(CLI::App& command, std::string& json, bool& markdown);

// --batch, how many images run together.
void add_batch_option(CLI::App& command, int& batch);

// --conf and --iou, from 0 to 1.
void add_threshold_options(CLI::App& command, std::optional<double>& confidence, std::optional<double>& iou,
                           const std::string& default_confidence, const std::string& default_iou);

// HEIGHTxWIDTH, as in "384x640"; both must be positive multiples of 32 of at most 16384. Throws CLI::ValidationError.
std::pair<int, int> parse_size(const std::string& text);

}  // namespace damoyolo::cli
