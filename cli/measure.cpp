#include "cli/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>

#include "cli/pictures.h"
#include "cli/stopwatch.h"
#include "cli/text.h"
#include "engine/core/error.h"
#include "engine/profile.h"

namespace damoyolo::cli {
namespace {

constexpr int kRounds = 10;
constexpr std::size_t kLeastRuns = 3;

bool on_gpu(const DeviceChoice& device) { return gpu_number(device.device).has_value(); }

struct EndToEndRun {
  double seconds = 0, decode = 0;
  StageTimes stages;
};

struct StartUp {
  double plan_seconds = 0, warm_start_seconds = 0;
  std::int64_t memory_bytes = 0;
};

// A combination while it is measured.
struct Lane {
  std::size_t place = 0;  // among the combinations
  Workload workload;
  std::shared_ptr<std::string> trouble = std::make_shared<std::string>();  // why it cannot be relied on
  std::unique_ptr<Detector> detector;
  StartUp start_up;
  double expected_seconds = 0;  // of a run
  std::vector<double> network;  // seconds of runs
  std::vector<EndToEndRun> end_to_end;
  std::optional<Stages> stages;
};

// Linux promises memory that it does not have, and ends the process that uses it.
void require_memory(std::int64_t bytes) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("MemAvailable:")) continue;
    const std::int64_t available = 1024 * std::stoll(line.substr(line.find(':') + 1));
    if (bytes > available)
      throw Error("it takes {}, and {} are free", bytes_text(static_cast<std::uintmax_t>(bytes)),
                  bytes_text(static_cast<std::uintmax_t>(available)));
  }
}

std::vector<Image> first_images(Pictures& pictures, std::size_t count) {
  if (!pictures.empty()) return pictures.decode(count);
  constexpr int kSide = 256;
  return std::vector<Image>(count, Image{kSide, kSide, noise(std::size_t{3} * kSide * kSide)});
}

Lane start(const std::string& weights, const DetectorOptions& options, Pictures& pictures) {
  Lane lane;
  DetectorOptions told = options;
  told.warn = [trouble = lane.trouble](const std::string& text) { *trouble = text; };
  const std::vector<Image> images = first_images(pictures, static_cast<std::size_t>(options.max_batch));

  const Stopwatch watch;
  lane.detector = std::make_unique<Detector>(weights, told);
  const Stopwatch plan;
  lane.detector->plan_text(options.max_batch);
  lane.start_up.plan_seconds = plan.seconds();
  if (!on_gpu(lane.detector->device())) require_memory(lane.detector->memory_bytes());
  lane.detector->detect(std::vector<ImageView>(images.begin(), images.end()));
  lane.start_up.warm_start_seconds = watch.seconds();

  lane.workload = workload_of(lane.detector->model(), lane.detector->device(), options);
  lane.start_up.memory_bytes = lane.detector->memory_bytes();
  lane.expected_seconds = lane.detector->time_network(options.max_batch, 1).alone.front();
  if (!lane.trouble->empty()) throw Error("{}", *lane.trouble);
  return lane;
}

// What the process's first detector takes, with everything it loads.
std::optional<double> cold_start(const MeasureOptions& options, Pictures& pictures) {
  DetectorOptions single = options.combinations.front();
  single.max_batch = 1;
  try {
    return start(options.weights, single, pictures).start_up.warm_start_seconds;
  } catch (const Error&) {
    return std::nullopt;  // its combination says why
  }
}

EndToEndRun run_end_to_end(Lane& lane, Pictures& pictures) {
  EndToEndRun run;
  const Stopwatch watch;
  const std::vector<Image> images = pictures.decode(static_cast<std::size_t>(lane.workload.batch));
  run.decode = watch.seconds();
  lane.detector->detect(std::vector<ImageView>(images.begin(), images.end()), {}, &run.stages);
  run.seconds = watch.seconds();
  return run;
}

// The part of a round that falls to one combination. A round ends when each has had its part of the time, however
// many runs that is; what takes longer than a round has fewer turns.
void take_turn(Lane& lane, int round, double seconds, Pictures& pictures) {
  const double until = seconds * round / kRounds;
  const std::size_t least = std::min(kLeastRuns, static_cast<std::size_t>(round));
  const double measured = std::accumulate(lane.network.begin(), lane.network.end(), 0.0);
  if (measured < until || lane.network.size() < least) {
    const double missing = std::ceil((until - measured) / lane.expected_seconds);
    const auto times = lane.detector->time_network(lane.workload.batch, std::max(1, static_cast<int>(missing))).alone;
    lane.network.insert(lane.network.end(), times.begin(), times.end());
  }
  if (pictures.empty()) return;
  double sum = 0;
  for (const EndToEndRun& run : lane.end_to_end) sum += run.seconds;
  while (sum < until || lane.end_to_end.size() < least) {
    lane.end_to_end.push_back(run_end_to_end(lane, pictures));
    sum += lane.end_to_end.back().seconds;
  }
}

Stages stages_of(Lane& lane) {
  const auto milliseconds = [&](const std::function<double(const EndToEndRun&)>& seconds) {
    std::vector<double> values;
    for (const EndToEndRun& run : lane.end_to_end) values.push_back(1000 * seconds(run));
    return median(values);
  };
  Stages stages;
  stages.decode = milliseconds([](const EndToEndRun& run) { return run.decode; });
  stages.network = milliseconds([](const EndToEndRun& run) { return run.stages.network; });
  if (!on_gpu(lane.detector->device())) {
    stages.preprocess = milliseconds([](const EndToEndRun& run) { return run.stages.preprocess; });
    stages.postprocess = milliseconds([](const EndToEndRun& run) { return run.stages.postprocess; });
    return stages;
  }
  // A GPU computes everything between the copies as one; its first and last step are timed by themselves.
  stages.copy = milliseconds([](const EndToEndRun& run) { return run.stages.preprocess + run.stages.postprocess; });
  const std::vector<StepTime> steps = lane.detector->profile({.batch = lane.workload.batch, .detecting = true});
  stages.preprocess = 1000 * steps.front().seconds;
  stages.postprocess = 1000 * steps.back().seconds;
  *stages.network -= *stages.preprocess + *stages.postprocess;
  return stages;
}

// A combination in trouble, which has run out of memory most likely, must not take the others with it.
void attempt(Lane& lane, const std::function<void()>& work) {
  if (!lane.trouble->empty()) return;
  try {
    work();
  } catch (const Error& error) {
    *lane.trouble = error.what();
  }
}

void add_entries(const Lane& lane, std::vector<Entry>& entries) {
  const auto add = [&](const std::vector<double>& milliseconds, bool end_to_end) {
    entries.push_back({lane.workload, end_to_end, summarize(milliseconds), lane.start_up.memory_bytes,
                       lane.start_up.warm_start_seconds, lane.start_up.plan_seconds,
                       end_to_end ? lane.stages : std::nullopt});
  };
  std::vector<double> network, end_to_end;
  for (const double seconds : lane.network) network.push_back(1000 * seconds);
  for (const EndToEndRun& run : lane.end_to_end) end_to_end.push_back(1000 * run.seconds);
  add(network, false);
  if (!end_to_end.empty()) add(end_to_end, true);
}

}  // namespace

Measured measure(const MeasureOptions& options) {
  const std::vector<DetectorOptions>& combinations = options.combinations;
  const ModelSpec model = model_of(options.weights, combinations.front());
  Pictures pictures(options.images, combinations.front().threads);
  Measured result;
  result.cold_start_seconds = cold_start(options, pictures);

  const auto leave_out = [&](std::size_t place, const Error& error) {
    const DetectorOptions& failed = combinations[place];
    result.left_out.push_back({workload_of(model, {failed.device, failed.precision, {}}, failed), error.what()});
  };

  // Starting and memory are measured alone: detectors that live at the same time share weights.
  std::vector<StartUp> start_ups(combinations.size());
  std::vector<std::size_t> waiting;
  for (std::size_t place = 0; place < combinations.size(); ++place) {
    try {
      start_ups[place] = start(options.weights, combinations[place], pictures).start_up;
      waiting.push_back(place);
    } catch (const Error& error) {
      leave_out(place, error);
    }
  }
  std::vector<Lane> done;
  while (!waiting.empty()) {
    std::vector<Lane> together;
    std::vector<std::size_t> later;  // what does not fit beside others
    for (const std::size_t place : waiting) {
      try {
        together.push_back(start(options.weights, combinations[place], pictures));
        together.back().place = place;
        together.back().start_up = start_ups[place];
      } catch (const Error& error) {
        if (together.empty())
          leave_out(place, error);
        else
          later.push_back(place);
      }
    }
    for (int round = 1; round <= kRounds; ++round)
      for (Lane& lane : together) attempt(lane, [&] { take_turn(lane, round, options.seconds, pictures); });
    for (Lane& lane : together) {
      if (!pictures.empty()) attempt(lane, [&] { lane.stages = stages_of(lane); });
      lane.detector.reset();
      if (lane.trouble->empty())
        done.push_back(std::move(lane));
      else
        result.left_out.push_back({lane.workload, *lane.trouble});
    }
    waiting = std::move(later);
  }
  std::ranges::sort(done, {}, &Lane::place);
  for (const Lane& lane : done) add_entries(lane, result.entries);
  return result;
}

ModelSpec model_of(const std::string& weights, const DetectorOptions& options) {
  WeightsFile file(weights);
  if (options.height > 0) file.set_input_size(options.height, options.width);
  return file.model();
}

Workload workload_of(const ModelSpec& model, const DeviceChoice& device, const DetectorOptions& options) {
  const bool gpu = on_gpu(device);
  Workload workload;
  workload.variant = model.variant;
  workload.size = fmt::format("{}x{}", model.input_height, model.input_width);
  const bool tf32 = gpu && options.allow_tf32 && device.precision == Precision::Fp32;
  workload.precision = tf32 ? "tf32" : name_of(device.precision);
  if (gpu) workload.mode = name_of(options.mode);
  workload.batch = options.max_batch;
  return workload;
}

}  // namespace damoyolo::cli
