// Many images through one detector: decoded ahead on other threads, run in batches, handed over in order.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/thread_pool.h"
#include "engine/detector.h"
#include "loader/image.h"

namespace damoyolo::cli {

struct ProcessedImage {
  std::size_t index = 0;  // in the list of paths
  Image image;
  std::vector<Detection> detections;
  // Step and time, as ImageResult has them: decode, preprocess, network, postprocess. What a batch took is shared
  // equally among its images.
  std::vector<std::pair<std::string, double>> milliseconds;
};

struct PipelineHandlers {
  std::function<void(ProcessedImage)> processed;  // in the order of the paths
  std::function<void(std::size_t index, const std::string& message)> unreadable;
};

// Threads for decoding, drawing and writing beside the network's own.
int helper_threads(int network_threads);

// Runs the images in batches of `batch`. An image that cannot be read is reported and spoils nothing for the others.
// The handlers run on the calling thread. No more than two batches of images, and one for each thread of the pool,
// wait for the detector.
void process_images(Detector& detector, const std::vector<std::string>& paths, const DetectParameters& parameters,
                    int batch, ThreadPool& pool, const PipelineHandlers& handlers);

// Says at the end how many of the images could not be read, if any, and what follows from that. Returns the command's
// exit code.
int report_unreadable(std::size_t unreadable, std::size_t images, std::string_view consequence, Console& console);

}  // namespace damoyolo::cli
