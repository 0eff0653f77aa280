// Times detectors side by side, one for each combination of precision, mode and batch.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/report.h"
#include "engine/detector.h"

namespace damoyolo::cli {

struct MeasureOptions {
  std::string weights;
  std::vector<DetectorOptions> combinations;  // max_batch is the batch
  std::vector<std::string> images;            // encoded pictures for the end-to-end runs; none: no such runs
  double seconds = 1;                         // that each span of each combination is measured for
};

struct Measured {
  std::vector<Entry> entries;  // in the order of the combinations; of each, network and then end to end
  std::vector<LeftOut> left_out;
  std::optional<double> cold_start_seconds;
};

// The combinations take turns, as many of them as fit into memory together; the others follow. One that cannot be run
// even alone is left out, with the reason. Throws Error when the weights or a picture cannot be read.
Measured measure(const MeasureOptions& options);

// The model in the weights file, at the size that the options ask for.
ModelSpec model_of(const std::string& weights, const DetectorOptions& options);

// What a detector of that model with these options runs.
Workload workload_of(const ModelSpec& model, const DeviceChoice& device, const DetectorOptions& options);

}  // namespace damoyolo::cli
