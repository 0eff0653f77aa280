// What the benchmarks write: docs/benchmark-format.md and bench/report.schema.json, as structs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/statistics.h"
#include "engine/ceilings.h"
#include "engine/device.h"
#include "engine/profile.h"

namespace damoyolo::cli {

// What is run: the same in entries, profiles and what was left out.
struct Workload {
  std::string variant, size;        // "T", "640x640"
  std::string precision;            // "fp32", "tf32", "bf16" or "fp16"
  std::optional<std::string> mode;  // none on a CPU
  int batch = 1;

  bool operator==(const Workload&) const = default;
};

// Milliseconds of a batch; none where a stage cannot be told apart.
struct Stages {
  std::optional<double> decode, copy, preprocess, network, postprocess;
};

struct Entry {
  Workload workload;
  bool end_to_end = false;
  Statistics milliseconds;  // of a batch
  std::int64_t memory_bytes = 0;
  double warm_start_seconds = 0, plan_seconds = 0;
  std::optional<Stages> stages;

  double us_per_image() const { return 1000 * milliseconds.median / workload.batch; }
};

struct LeftOut {
  Workload workload;
  std::string reason;
};

struct Profile {
  Workload workload;
  std::vector<StepTime> steps;
  double run_seconds = 0;  // median of whole runs

  double sum_seconds() const;  // of the steps
};

struct Report {
  std::string device;
  GpuSoftware software;        // empty on a CPU
  std::optional<int> threads;  // none on a GPU
  std::string commit, date, command;
  std::optional<double> cold_start_seconds;  // to the first result, with everything that is loaded once
  Ceilings ceilings;
  std::vector<Entry> entries;
  std::vector<LeftOut> left_out;
  std::vector<Profile> profiles;
};

// The report of a run that begins now; with the device's ceilings, which takes a few seconds.
Report begin_report(const DeviceChoice& device, int threads, std::string command);

// On what it was measured, for the reader of the tables.
std::string header_text(const Report& report);

// Throws Error when the file cannot be written.
void write_json(const Report& report, const std::string& path);

}  // namespace damoyolo::cli
