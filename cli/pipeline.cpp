#include "cli/pipeline.h"

#include <fmt/ostream.h>

#include <algorithm>
#include <deque>
#include <future>
#include <optional>
#include <thread>

#include "cli/stopwatch.h"
#include "cli/text.h"
#include "engine/core/error.h"

namespace damoyolo::cli {
namespace {

struct DecodedImage {
  Image image;
  double milliseconds = 0;
};

DecodedImage decode(const std::string& path) {
  const Stopwatch watch;
  Image image = read_image(path);
  return {std::move(image), watch.milliseconds()};
}

// The images of a list in its order, with the next ones being decoded while one is used.
class ReadAhead {
 public:
  ReadAhead(const std::vector<std::string>& paths, ThreadPool& pool, std::size_t ahead)
      : paths_(paths), pool_(pool), ahead_(ahead) {}

  std::size_t position() const { return next_; }  // of the image that next() gives
  bool at_end() const { return next_ == paths_.size(); }

  // Throws what reading the image threw; the one after it can be read all the same.
  DecodedImage next() {
    while (submitted_ < std::min(paths_.size(), next_ + ahead_)) {
      decoding_.push_back(pool_.submit([path = paths_[submitted_]] { return decode(path); }));
      ++submitted_;
    }
    std::future<DecodedImage> first = std::move(decoding_.front());
    decoding_.pop_front();
    ++next_;
    return first.get();
  }

 private:
  const std::vector<std::string>& paths_;
  ThreadPool& pool_;
  const std::size_t ahead_;
  std::size_t next_ = 0, submitted_ = 0;
  std::deque<std::future<DecodedImage>> decoding_;
};

void run_batch(Detector& detector, const DetectParameters& parameters, std::vector<ProcessedImage>& batch) {
  const std::vector<ImageView> views = [&] {
    std::vector<ImageView> views;
    for (const ProcessedImage& image : batch) views.emplace_back(image.image);
    return views;
  }();
  StageTimes times;
  auto detections = detector.detect(views, parameters, &times);
  const double share = 1000.0 / static_cast<double>(batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    batch[i].detections = std::move(detections[i]);
    batch[i].milliseconds.emplace_back("preprocess", times.preprocess * share);
    batch[i].milliseconds.emplace_back("network", times.network * share);
    batch[i].milliseconds.emplace_back("postprocess", times.postprocess * share);
  }
}

}  // namespace

int helper_threads(int network_threads) {
  const int all = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(network_threads > 0 ? network_threads : all, 1, 8);
}

void process_images(Detector& detector, const std::vector<std::string>& paths, const DetectParameters& parameters,
                    int batch_size, ThreadPool& pool, const PipelineHandlers& handlers) {
  const auto full = static_cast<std::size_t>(batch_size);
  ReadAhead images(paths, pool, full + static_cast<std::size_t>(pool.size()));
  while (!images.at_end()) {
    std::vector<ProcessedImage> batch;
    while (batch.size() < full && !images.at_end()) {
      const std::size_t index = images.position();
      try {
        DecodedImage decoded = images.next();
        batch.push_back({index, std::move(decoded.image), {}, {{"decode", decoded.milliseconds}}});
      } catch (const Error& error) {
        handlers.unreadable(index, error.what());
      }
    }
    if (batch.empty()) continue;
    run_batch(detector, parameters, batch);
    for (ProcessedImage& image : batch) handlers.processed(std::move(image));
  }
}

int report_unreadable(std::size_t unreadable, std::size_t images, std::string_view consequence, Console& console) {
  if (unreadable == 0) return 0;
  fmt::print(console.err, "damoyolo: {} of {} could not be read{}\n", unreadable, counted(images, "image"),
             consequence);
  return 1;
}

}  // namespace damoyolo::cli
