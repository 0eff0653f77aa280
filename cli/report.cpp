#include "cli/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "cli/json_file.h"
#include "cli/roofline.h"
#include "cli/table.h"
#include "cli/text.h"
#include "engine/core/error.h"
#include "gen/commit.h"

namespace damoyolo::cli {
namespace {

using Json = nlohmann::ordered_json;

// No clock tells more than six digits.
double rounded(double value) { return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr); }

Json number(std::optional<double> value) { return value ? Json(rounded(*value)) : Json(); }

Json text(const std::optional<std::string>& value) { return value && !value->empty() ? Json(*value) : Json(); }

// Of a ceiling, in units of `unit`.
Json ceiling(double value, double unit) { return value > 0 ? Json(rounded(value / unit)) : Json(); }

std::string rate_text(double value, double unit, const char* name) {
  return value > 0 ? fmt::format("{} {}", three_digits(value / unit), name) : "not measured";
}

Json json_of(const Workload& workload) {
  return {{"engine", "damoyolo"},        {"variant", workload.variant},
          {"size", workload.size},       {"precision", workload.precision},
          {"mode", text(workload.mode)}, {"batch", workload.batch}};
}

Json json_of(const Ceilings& ceilings) {
  return {{"copy_gbs", ceiling(ceilings.copy_bytes_per_second, 1e9)},
          {"bf16_tflops", ceiling(ceilings.bf16_flops, 1e12)},
          {"fp16_tflops", ceiling(ceilings.fp16_flops, 1e12)},
          {"fp32_tflops", ceiling(ceilings.fp32_flops, 1e12)},
          {"tf32_tflops", ceiling(ceilings.tf32_flops, 1e12)}};
}

Json json_of(const Stages& stages) {
  return {{"decode_ms", number(stages.decode)},
          {"copy_ms", number(stages.copy)},
          {"preprocess_ms", number(stages.preprocess)},
          {"network_ms", number(stages.network)},
          {"postprocess_ms", number(stages.postprocess)}};
}

Json json_of(const Entry& entry) {
  const Statistics& times = entry.milliseconds;
  Json json = json_of(entry.workload);
  json["span"] = entry.end_to_end ? "end_to_end" : "network";
  json["runs"] = times.runs;
  json["median_ms"] = rounded(times.median);
  json["min_ms"] = rounded(times.min);
  json["p95_ms"] = rounded(times.p95);
  json["p99_ms"] = rounded(times.p99);
  json["iqr_ms"] = rounded(times.interquartile);
  json["drift"] = number(times.drift);
  json["us_per_image"] = rounded(entry.us_per_image());
  json["device_memory_mb"] = rounded(static_cast<double>(entry.memory_bytes) / 1e6);
  json["first_result_s"] = Json();  // from a process of its own: bench/compare.py
  json["warm_start_s"] = rounded(entry.warm_start_seconds);
  json["plan_s"] = rounded(entry.plan_seconds);
  if (entry.stages) json["stages"] = json_of(*entry.stages);
  return json;
}

Json json_of(const Shape& shape) { return {shape.n, shape.h, shape.w, shape.c}; }

Json json_of(const StepTime& step, const std::string& precision, const Ceilings& ceilings) {
  const std::optional<double> floor = floor_seconds(step, precision, ceilings);
  Json json{{"node", step.node},
            {"stage", stage_of(step.node)},
            {"operation", operation_text(step)},
            {"kernel", step.kernel},
            {"in", json_of(step.in)},
            {"out", json_of(step.out)},
            {"time_us", rounded(1e6 * step.seconds)},
            {"flops", step.flops},
            {"bytes", step.bytes},
            {"floor_us", floor ? Json(rounded(1e6 * *floor)) : Json()}};
  for (const KernelTime& other : step.candidates)
    json["alternatives"].push_back({{"kernel", other.kernel}, {"time_us", rounded(1e6 * other.seconds)}});
  if (step.without_turn > 0) json["without_turn"] = step.without_turn;
  return json;
}

Json json_of(const Profile& profile, const Ceilings& ceilings) {
  Json json = json_of(profile.workload);
  json["sum_us"] = rounded(1e6 * profile.sum_seconds());
  json["run_us"] = rounded(1e6 * profile.run_seconds);
  json["steps"] = Json::array();
  for (const StepTime& step : profile.steps)
    json["steps"].push_back(json_of(step, profile.workload.precision, ceilings));
  return json;
}

}  // namespace

double Profile::sum_seconds() const {
  return std::accumulate(steps.begin(), steps.end(), 0.0,
                         [](double sum, const StepTime& step) { return sum + step.seconds; });
}

Report begin_report(const DeviceChoice& device, int threads, std::string command) {
  Report report;
  if (const std::optional<int> gpu = gpu_number(device.device)) {
    report.device = gpu_at(find_gpus(), *gpu).name;
    report.software = gpu_software(*gpu);
  } else {
    const CpuDescription cpu = describe_cpu();
    report.device = cpu.name;
    report.threads = threads > 0 ? threads : cpu.threads;
  }
  report.commit = kCommit;
  report.date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                            fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  report.command = std::move(command);
  report.ceilings = measure_ceilings(device.device, threads);
  return report;
}

std::string header_text(const Report& report) {
  std::string text = report.device;
  if (report.threads) text += ", " + counted(static_cast<std::size_t>(*report.threads), "thread");
  for (const auto& [name, version] :
       {std::pair{"driver", report.software.driver}, {"CUDA", report.software.cuda}, {"cuDNN", report.software.cudnn}})
    if (!version.empty()) text += fmt::format(", {} {}", name, version);
  if (!report.commit.empty()) text += ", commit " + report.commit;
  text += fmt::format(", {}\nat best: copies {}", report.date,
                      rate_text(report.ceilings.copy_bytes_per_second, 1e9, "GB/s"));
  for (const auto& [name, flops] : {std::pair{"fp32", report.ceilings.fp32_flops},
                                    {"tf32", report.ceilings.tf32_flops},
                                    {"bf16", report.ceilings.bf16_flops},
                                    {"fp16", report.ceilings.fp16_flops}})
    if (flops > 0) text += fmt::format(", {} products {}", name, rate_text(flops, 1e12, "TFLOP/s"));
  return text + "\n";
}

void write_json(const Report& report, const std::string& path) {
  Json json{{"device", report.device},
            {"driver", text(report.software.driver)},
            {"cuda", text(report.software.cuda)},
            {"cudnn", text(report.software.cudnn)},
            {"threads", report.threads ? Json(*report.threads) : Json()},
            {"commit", text(report.commit)},
            {"date", report.date},
            {"command", report.command},
            {"cold_start_s", number(report.cold_start_seconds)},
            {"ceilings", json_of(report.ceilings)},
            {"entries", Json::array()},
            {"left_out", Json::array()},
            {"layers", Json::array()},
            {"accuracy", Json::array()}};
  for (const Entry& entry : report.entries) json["entries"].push_back(json_of(entry));
  for (const LeftOut& left_out : report.left_out) {
    json["left_out"].push_back(json_of(left_out.workload));
    json["left_out"].back()["reason"] = left_out.reason;
  }
  for (const Profile& profile : report.profiles) json["layers"].push_back(json_of(profile, report.ceilings));
  write_json_file(path, json);
}

}  // namespace damoyolo::cli
