#include "engine/cpu/backend.h"

#include <algorithm>
#include <chrono>
#include <list>
#include <utility>

#include "engine/cpu/network.h"
#include "engine/cpu/resize.h"
#include "engine/cpu/threads.h"
#include "engine/decode.h"
#include "engine/model/build.h"
#include "engine/nms.h"
#include "engine/passes/passes.h"

namespace damoyolo::cpu {
namespace {

// Adds the time since the last lap to a sum.
class Stopwatch {
 public:
  void lap(double& sum) {
    const auto now = Clock::now();
    sum += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
};

class CpuProbe : public Probe {
 public:
  explicit CpuProbe(Network network) : network_(std::move(network)) {}
  void run(std::span<const std::uint8_t> images) override { network_.run(images); }
  std::vector<float> read(ValueId value) override {
    return network_.read(network_.plan().values[static_cast<std::size_t>(value)]);
  }

 private:
  Network network_;
};

class CpuBackend : public Backend {
 public:
  CpuBackend(const WeightsFile& weights, const BackendOptions& options) : weights_(weights), options_(options) {}

  std::vector<std::vector<Detection>> detect(std::span<const ImageView> images, const DetectParameters& parameters,
                                             StageTimes* times) override {
    StageTimes ignored;
    StageTimes& sums = times != nullptr ? *times : ignored;
    std::vector<std::vector<Detection>> results;
    results.reserve(images.size());
    while (results.size() < images.size()) {
      const std::size_t left = images.size() - results.size();
      const auto batch = images.subspan(results.size(), std::min(left, static_cast<std::size_t>(options_.max_batch)));
      detect_batch(batch, parameters, sums, results);
    }
    return results;
  }

  RawOutput forward(std::span<const std::uint8_t> images, int count, int height, int width) override {
    const HeadSpec& head = weights_.model().head;
    Network& network = network_for(count, height, width);
    network.run(images);
    const HeadMaps maps = network.head(head.classes, head.reg_max);
    RawOutput output{count, static_cast<int>(maps.anchors()), head.classes, {}, {}};
    const auto anchors = static_cast<std::size_t>(count) * static_cast<std::size_t>(output.anchors);
    output.scores.resize(anchors * static_cast<std::size_t>(head.classes));
    output.boxes.resize(anchors * 4);
    const ThreadCount threads(options_.threads);
    decode_all(maps, output.scores, output.boxes);
    return output;
  }

  void warm_up() override {
    const Image black{1, 1, std::vector<std::uint8_t>(3)};
    detect(std::vector<ImageView>(static_cast<std::size_t>(options_.max_batch), black), {}, nullptr);
  }

  std::string plan_text(int batch) override {
    const ModelSpec& model = weights_.model();
    return network_for(batch, model.input_height, model.input_width).plan_text();
  }

  std::vector<StepTime> profile(const ProfileOptions& options) override {
    const ModelSpec& model = weights_.model();
    Network& network = network_for(options.batch, model.input_height, model.input_width);
    return network.profile(noise(pixel_bytes(options.batch)), options.repetitions);
  }

  RunTimes time_network(int batch, int runs) override {
    const ModelSpec& model = weights_.model();
    Network& network = network_for(batch, model.input_height, model.input_width);
    const ThreadCount threads(options_.threads);
    const std::vector<std::uint8_t> pixels = noise(pixel_bytes(batch));
    const HeadSpec& head = model.head;
    const HeadMaps maps = network.head(head.classes, head.reg_max);
    const auto anchors = static_cast<std::size_t>(batch) * static_cast<std::size_t>(maps.anchors());
    std::vector<float> scores(anchors * static_cast<std::size_t>(head.classes)), boxes(anchors * 4);
    RunTimes times;
    for (int run = 0; run <= runs; ++run) {
      double seconds = 0;
      Stopwatch watch;
      network.run(pixels);
      decode_all(maps, scores, boxes);
      watch.lap(seconds);
      if (run > 0) times.alone.push_back(seconds);
    }
    times.back_to_back = times.alone;  // one run is over when the next is called
    return times;
  }

  std::int64_t memory_bytes() const override {
    std::int64_t bytes = static_cast<std::int64_t>(pixels_.size());
    for (const Built& built : networks_) bytes += built.network.memory_bytes();
    return bytes;
  }

  std::unique_ptr<Probe> probe(Graph graph) override {
    return std::make_unique<CpuProbe>(build(std::move(graph), true));
  }

 private:
  struct Built {
    int batch, height, width;
    Network network;
  };

  Network build(Graph graph, bool keep_values) const {
    NetworkOptions options;
    options.threads = options_.threads;
    options.plan.activations = options_.precision == Precision::Bf16 ? DType::BF16 : DType::F32;
    options.plan.keep_values = keep_values;
    const auto lookup = [&](std::string_view name) -> const TensorView& { return weights_.tensor(name); };
    return Network(std::move(graph), lookup, options);
  }

  // Plans are made at first use; the ones used last are kept.
  Network& network_for(int batch, int height, int width) {
    constexpr std::size_t kKept = 4;
    const auto found = std::find_if(networks_.begin(), networks_.end(), [&](const Built& built) {
      return built.batch == batch && built.height == height && built.width == width;
    });
    if (found != networks_.end()) {
      networks_.splice(networks_.begin(), networks_, found);
      return found->network;
    }
    Graph graph = build_model(weights_.model(), batch, height, width).graph;
    optimize(graph);
    keep_fp32(graph, options_.keep_fp32);
    networks_.push_front({batch, height, width, build(std::move(graph), false)});
    if (networks_.size() > kKept) networks_.pop_back();
    return networks_.front().network;
  }

  void detect_batch(std::span<const ImageView> images, const DetectParameters& parameters, StageTimes& times,
                    std::vector<std::vector<Detection>>& results) {
    const ModelSpec& model = weights_.model();
    const int width = model.input_width, height = model.input_height;
    Network& network = network_for(static_cast<int>(images.size()), height, width);
    const ThreadCount threads(options_.threads);
    Stopwatch watch;

    const std::size_t image_bytes = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3;
    pixels_.resize(images.size() * image_bytes);
    for (std::size_t i = 0; i < images.size(); ++i)
      resize_bilinear(images[i], width, height, pixels_.data() + i * image_bytes);
    watch.lap(times.preprocess);

    network.run(pixels_);
    watch.lap(times.network);

    for (std::size_t i = 0; i < images.size(); ++i)
      results.push_back(in_image_pixels(boxes_of(network, static_cast<int>(i), parameters), images[i]));
    watch.lap(times.postprocess);
  }

  // In network pixels.
  std::vector<Candidate> boxes_of(const Network& network, int image, const DetectParameters& parameters) const {
    const HeadMaps maps = network.head(weights_.model().head.classes, weights_.model().head.reg_max);
    return non_maximum_suppression(find_candidates(maps, image, parameters.confidence, parameters.class_filter),
                                   parameters.iou, std::min(parameters.max_detections, kMaxDetections));
  }

  std::size_t pixel_bytes(int batch) const {
    const ModelSpec& model = weights_.model();
    return static_cast<std::size_t>(batch) * static_cast<std::size_t>(model.input_width) *
           static_cast<std::size_t>(model.input_height) * 3;
  }

  std::vector<Detection> in_image_pixels(const std::vector<Candidate>& candidates, const ImageView& image) const {
    const auto width = static_cast<float>(image.width), height = static_cast<float>(image.height);
    const float scale_x = width / static_cast<float>(weights_.model().input_width);
    const float scale_y = height / static_cast<float>(weights_.model().input_height);
    std::vector<Detection> detections;
    for (const Candidate& found : candidates)
      detections.push_back(
          {{std::clamp(found.box[0] * scale_x, 0.f, width), std::clamp(found.box[1] * scale_y, 0.f, height),
            std::clamp(found.box[2] * scale_x, 0.f, width), std::clamp(found.box[3] * scale_y, 0.f, height)},
           found.score,
           found.class_id});
    return detections;
  }

  const WeightsFile& weights_;
  const BackendOptions options_;
  std::list<Built> networks_;         // the one used last comes first
  std::vector<std::uint8_t> pixels_;  // [batch, height, width, 3]
};

}  // namespace

std::unique_ptr<Backend> make_backend(const WeightsFile& weights, const BackendOptions& options) {
  return std::make_unique<CpuBackend>(weights, options);
}

}  // namespace damoyolo::cpu
