#include "engine/cuda/backend.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <list>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/autotune.h"
#include "engine/cuda/conv_problem.h"
#include "engine/cuda/network.h"
#include "engine/cuda/slot.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "kernels/nms.h"

namespace damoyolo::cuda {
namespace {

DType dtype_of(Precision precision) {
  switch (precision) {
    case Precision::Bf16: return DType::BF16;
    case Precision::Fp16: return DType::F16;
    default: return DType::F32;
  }
}

std::size_t bytes_of(const ImageView& image) {
  constexpr int kLargestSide = 1 << 20;  // kernels/preprocess.h
  if (image.width < 1 || image.height < 1 || image.width > kLargestSide || image.height > kLargestSide)
    throw Error("an image of {} x {} pixels was given, expected 1 to {} on a side", image.width, image.height,
                kLargestSide);
  return static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3;
}

class CudaProbe : public Probe {
 public:
  CudaProbe(Runtime& runtime, StreamHandle stream, std::unique_ptr<Network> network)
      : runtime_(runtime), stream_(stream), network_(std::move(network)) {}

  void run(std::span<const std::uint8_t> images) override {
    if (images.size() != network_->input().size())
      throw Error("the network takes {} bytes of pixels and was given {}", network_->input().size(), images.size());
    runtime_.make_current();
    runtime_.copy(network_->input().data(), images.data(), images.size(), stream_);
    network_->run();
    runtime_.synchronize(stream_);  // the images may go
  }
  std::vector<float> read(ValueId value) override {
    runtime_.make_current();
    return network_->read(value);
  }

 private:
  Runtime& runtime_;
  StreamHandle stream_;
  std::unique_ptr<Network> network_;
};

class CudaBackend : public Backend {
 public:
  CudaBackend(const WeightsFile& weights, const BackendOptions& options, Environment environment)
      : weights_(weights),
        options_(options),
        environment_(std::move(environment)),
        runtime_(*environment_.runtime),
        limit_(batch_bucket(options.max_batch)) {
    runtime_.make_current();
    for (auto& stream : streams_) stream = make_stream(runtime_);
    copy_stream_ = make_stream(runtime_);
    for (int i = 0; i < 2; ++i) slots_.emplace_back(runtime_);
  }

  // On whatever thread it ends. Libraries were given the streams, and go before them.
  ~CudaBackend() override {
    try {
      runtime_.make_current();
    } catch (const Error&) {  // what is on the device is lost with it
    }
    networks_.clear();
    environment_.candidates = nullptr;
  }

  std::vector<std::vector<Detection>> detect(std::span<const ImageView> images, const DetectParameters& parameters,
                                             StageTimes* times) override {
    runtime_.make_current();
    drain();  // what an earlier call that failed has left
    std::vector<std::vector<Detection>> results;
    results.reserve(images.size());
    std::size_t begun = 0, next = 0;
    while (begun < images.size()) {
      Slot &slot = slots_[next], &before = slots_[1 - next];
      const std::size_t count = std::min(images.size() - begun, images_together());
      try {
        begin(slot, images.subspan(begun, count), parameters);
      } catch (const OutOfDeviceMemory& error) {
        finish(before, times, results);
        make_room(static_cast<int>(count), error);
        continue;
      }
      made_room_ = false;
      begun += count;
      finish(before, times, results);  // while this batch runs
      next = 1 - next;
    }
    finish(slots_[1 - next], times, results);
    for (auto& found : results)
      found.resize(std::min(found.size(), static_cast<std::size_t>(std::max(parameters.max_detections, 0))));
    return results;
  }

  RawOutput forward(std::span<const std::uint8_t> images, int count, int height, int width) override {
    runtime_.make_current();
    drain();
    const std::size_t image_bytes = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3;
    if (count < 1 || images.size() != static_cast<std::size_t>(count) * image_bytes)
      throw Error("{} bytes of pixels were given, expected {} images of {} bytes", images.size(), count, image_bytes);
    RawOutput output{count, 0, weights_.model().head.classes, {}, {}};
    for (std::size_t begun = 0; begun < static_cast<std::size_t>(count);) {
      const std::size_t together = std::min(static_cast<std::size_t>(count) - begun, images_together());
      try {
        forward_batch(images.subspan(begun * image_bytes, together * image_bytes), together, height, width, output);
        begun += together;
        made_room_ = false;
      } catch (const OutOfDeviceMemory& error) {
        make_room(static_cast<int>(together), error);
      }
    }
    return output;
  }

  void warm_up() override {
    const Image black{1, 1, std::vector<std::uint8_t>(3)};
    for (int batch = 1; batch <= batch_bucket(options_.max_batch); batch *= 2)
      detect(std::vector<ImageView>(static_cast<std::size_t>(std::min(batch, options_.max_batch)), black), {},
             nullptr);
  }

  std::string plan_text(int batch) override {
    runtime_.make_current();
    const ModelSpec& model = weights_.model();
    return network_for({Task::Detect, batch_bucket(batch), model.input_height, model.input_width}).plan_text();
  }

  std::vector<StepTime> profile(const ProfileOptions& options) override {
    CandidateSource asked;
    if (!options.compare.empty())
      asked = [&](const ConvProblem& problem) {
        std::vector<ConvCandidate> candidates = environment_.candidates(problem);
        std::erase_if(candidates, [&](const ConvCandidate& candidate) {
          return std::ranges::none_of(options.compare,
                                      [&](const std::string& begin) { return candidate.name.starts_with(begin); });
        });
        return candidates;
      };
    Network& network = options.detecting ? detecting_noise(options.batch) : forwarding_noise(options.batch);
    return network.profile(options.repetitions, lookup(), asked, options.compare_seconds);
  }

  RunTimes time_network(int batch, int runs) override { return forwarding_noise(batch).time(runs); }

  std::int64_t memory_bytes() const override {
    runtime_.make_current();
    return runtime_.used_bytes();
  }

  std::unique_ptr<Probe> probe(Graph graph) override {
    runtime_.make_current();
    NetworkOptions options = network_options(Task::Forward);
    options.capture = false;
    options.plan.keep_values = true;
    return std::make_unique<CudaProbe>(runtime_, streams_[0].get(), with_predicted_kernels(std::move(graph), options));
  }

 private:
  struct Key {
    Task task;
    int batch, height, width;
    bool operator==(const Key&) const = default;
  };
  struct Built {
    Key key;
    std::unique_ptr<Network> network;
  };

  std::size_t images_together() const { return static_cast<std::size_t>(std::min(limit_, options_.max_batch)); }

  TensorLookup lookup() const {
    return [this](std::string_view name) -> const TensorView& { return weights_.tensor(name); };
  }

  // A benchmark's batch runs in one plan, or not at all.
  static int bucket_of_one_plan(int batch) {
    if (batch > kLargestBatch)
      throw Error("a batch of {} was asked for, expected at most {} on a GPU", batch, kLargestBatch);
    return batch_bucket(batch);
  }

  // The network for a batch, which lies in its input.
  Network& forwarding_noise(int batch) {
    runtime_.make_current();
    drain();
    const ModelSpec& model = weights_.model();
    Network& network = network_for({Task::Forward, bucket_of_one_plan(batch), model.input_height, model.input_width});
    const std::vector<std::uint8_t> pixels = noise(network.input().size());
    runtime_.copy(network.input().data(), pixels.data(), pixels.size(), streams_[0].get());
    runtime_.synchronize(streams_[0].get());
    return network;
  }

  // The network for a batch of images, which have been copied to the device and run once. They are there until the
  // next call of detect().
  Network& detecting_noise(int batch) {
    runtime_.make_current();
    drain();
    const ModelSpec& model = weights_.model();
    const std::vector<std::uint8_t> pixels =
        noise(static_cast<std::size_t>(model.input_width) * static_cast<std::size_t>(model.input_height) * 3);
    const std::vector<ImageView> images(static_cast<std::size_t>(bucket_of_one_plan(batch)),
                                        {model.input_width, model.input_height, pixels.data()});
    begin(slots_[0], images, {});
    drain();
    return *networks_.front().network;
  }

  // Plans are made at first use; the ones used last are kept.
  Network& network_for(const Key& key) {
    constexpr std::size_t kKept = 8;
    const auto found =
        std::find_if(networks_.begin(), networks_.end(), [&](const Built& built) { return built.key == key; });
    if (found != networks_.end()) {
      networks_.splice(networks_.begin(), networks_, found);
      return *networks_.front().network;
    }
    if (networks_.size() == kKept) networks_.pop_back();
    networks_.push_front({key, build(key)});
    return *networks_.front().network;
  }

  NetworkOptions network_options(Task task) const {
    NetworkOptions options;
    options.task = task;
    options.plan.activations = dtype_of(options_.precision);
    options.plan.streams = options_.streams;
    options.allow_tf32 = options_.allow_tf32;
    options.capture = options_.mode != Mode::Default;
    options.overlap = options_.overlap && environment_.overlap;
    options.fetch_ahead = options_.overlap;
    options.max_candidates = environment_.max_candidates;
    return options;
  }

  std::array<StreamHandle, kMaxStreams> streams() const {
    std::array<StreamHandle, kMaxStreams> streams;
    std::transform(streams_.begin(), streams_.end(), streams.begin(), [](const auto& stream) { return stream.get(); });
    return streams;
  }

  std::unique_ptr<Network> make_network(Graph graph, const NetworkOptions& options, const KernelChooser& choose) {
    return std::make_unique<Network>(runtime_, streams(), std::move(graph), weights_.model().head, lookup(), choose,
                                     options);
  }

  std::unique_ptr<Network> with_predicted_kernels(Graph graph, const NetworkOptions& options) {
    KernelChooser choose;
    choose.one = [&](const std::string& node, const ConvProblem& problem, const ConvWeights& weights) {
      return predicted_best(node, candidates_for(node, environment_.candidates, problem), weights);
    };
    if (options_.pairs)
      choose.pair = [&](const ConvPair& pair) { return predicted_pair(pair, environment_.candidates); };
    return make_network(std::move(graph), options, choose);
  }

  // Its convolutions, and the pairs of them that something computes in one launch.
  std::ptrdiff_t choices_in(const Graph& graph, const NetworkOptions& options) const {
    const auto convolutions = std::ranges::count(graph.nodes, Op::Conv, &Node::op);
    if (!options_.pairs) return convolutions;
    const Plan joined = lower_joining(graph, options.plan, [&](const Step& step) {
      const ConvProblem pair = conv_problem(graph, step, options.allow_tf32);
      return !candidates_for(name_of(step, graph), environment_.candidates, pair).empty();
    });
    return convolutions + std::ranges::count_if(joined.steps, [](const Step& step) { return step.then != kNone; });
  }

  std::unique_ptr<Network> with_measured_kernels(Graph graph, const NetworkOptions& options, const Key& key) {
    Autotuner tuner(runtime_, streams_[0].get(), environment_.candidates, environment_.cache_folder,
                    {plan_key_of(key, options.overlap), choices_in(graph, options), options_.tuning_seconds});
    KernelChooser choose;
    choose.one = [&](const std::string& node, const ConvProblem& problem, const ConvWeights& weights) {
      return tuner.choose(node, problem, weights);
    };
    if (options_.pairs) choose.pair = [&](const ConvPair& pair) { return tuner.choose(pair); };
    auto network = make_network(std::move(graph), options, choose);
    tuner.store();
    return network;
  }

  std::unique_ptr<Network> build(const Key& key) {
    Graph graph = build_model(weights_.model(), key.batch, key.height, key.width).graph;
    optimize(graph);
    keep_fp32(graph, options_.keep_fp32);
    const NetworkOptions options = network_options(key.task);
    if (options_.mode == Mode::MaxAutotune) return with_measured_kernels(std::move(graph), options, key);
    return with_predicted_kernels(std::move(graph), options);
  }

  PlanKey plan_key_of(const Key& key, bool overlap) const {
    return {environment_.gpu,
            environment_.libraries,
            weights_.source_sha256(),
            fmt::format("{}{}{}", name_of(options_.precision), options_.allow_tf32 ? ", tf32" : "",
                        options_.keep_fp32.empty() ? std::string()
                                                   : fmt::format(", fp32 in {}", fmt::join(options_.keep_fp32, ","))),
            key.batch,
            key.height,
            key.width,
            overlap};
  }

  // Enqueues a batch. The slot is free again once finish() has taken its results.
  void begin(Slot& slot, std::span<const ImageView> images, const DetectParameters& parameters) {
    const ModelSpec& model = weights_.model();
    const int bucket = batch_bucket(static_cast<int>(images.size()));
    Network& network = network_for({Task::Detect, bucket, model.input_height, model.input_width});
    std::size_t bytes = 0;
    for (const ImageView& image : images) bytes += bytes_of(image);
    std::byte* const pinned = slot.pinned_images.at_least(runtime_, bytes);
    std::byte* const device = slot.images.at_least(runtime_, bytes);
    slot.input.at_least(runtime_, network.input().size());
    slot.output.at_least(runtime_, network.output().size());

    write_input(slot.input.get(), network, images, device, parameters);
    slot.count = images.size();
    slot.bucket = bucket;
    const StreamHandle main = streams_[0].get(), copies = copy_stream_.get();
    runtime_.record(slot.upload_begin.get(), copies);
    std::size_t at = 0;
    for (const ImageView& image : images) {  // one is copied to the device while the next is copied here
      const std::size_t size = bytes_of(image);
      std::memcpy(pinned + at, image.rgb, size);
      runtime_.copy(device + at, pinned + at, size, copies);
      at += size;
    }
    runtime_.record(slot.uploaded.get(), copies);
    runtime_.wait(main, slot.uploaded.get());
    run(slot, network);
  }

  void run(Slot& slot, Network& network) {
    const StreamHandle main = streams_[0].get();
    runtime_.record(slot.begin.get(), main);
    runtime_.copy(network.input().data(), slot.input.get(), network.input().size(), main);
    network.run();
    runtime_.record(slot.end.get(), main);
    runtime_.copy(slot.output.get(), network.output().data(), network.output().size(), main);
    runtime_.record(slot.done.get(), main);
  }

  // The network's input on the host: where the images will lie on the device, thresholds and wanted classes.
  void write_input(std::byte* input, const Network& network, std::span<const ImageView> images,
                   const std::byte* device, const DetectParameters& parameters) const {
    const int bucket = batch_bucket(static_cast<int>(images.size())), classes = weights_.model().head.classes;
    const DetectInput at(bucket, classes);
    auto* places = reinterpret_cast<kernels::Image*>(input + at.images);
    std::fill_n(places, bucket, kernels::Image{});
    for (const ImageView& image : images) {
      *places++ = {reinterpret_cast<const std::uint8_t*>(device), image.width, image.height};
      device += bytes_of(image);
    }
    const kernels::DetectionParameters values{
        parameters.confidence, parameters.iou, std::clamp(parameters.max_detections, 0, kMaxDetections),
        parameters.class_filter.empty() ? nullptr
                                        : reinterpret_cast<const std::uint8_t*>(network.input().data() + at.classes)};
    std::memcpy(input + at.parameters, &values, sizeof(values));
    for (std::size_t i = 0; i < static_cast<std::size_t>(classes); ++i)
      input[at.classes + i] = std::byte{i >= parameters.class_filter.size() || parameters.class_filter[i]};
  }

  // Waits for the slot's batch, if there is one, and adds what it found and how long it took.
  void finish(Slot& slot, StageTimes* times, std::vector<std::vector<Detection>>& results) {
    if (slot.count == 0) return;
    runtime_.synchronize(slot.done.get());
    const DetectOutput at(slot.bucket);
    const std::byte* const output = slot.output.get();
    const auto* detections = reinterpret_cast<const Detection*>(output + at.detections);
    const auto* counts = reinterpret_cast<const int*>(output + at.counts);
    const std::size_t count = std::exchange(slot.count, 0);
    for (std::size_t i = 0; i < count; ++i) {
      const Detection* first = detections + i * kMaxDetections;
      results.emplace_back(first, first + counts[i]);
    }
    if (times == nullptr) return;
    times->preprocess += runtime_.seconds_between(slot.upload_begin.get(), slot.uploaded.get());
    times->network += runtime_.seconds_between(slot.begin.get(), slot.end.get());
    times->postprocess += runtime_.seconds_between(slot.end.get(), slot.done.get());
  }

  void forward_batch(std::span<const std::uint8_t> images, std::size_t count, int height, int width,
                     RawOutput& output) {
    const int bucket = batch_bucket(static_cast<int>(count));
    Network& network = network_for({Task::Forward, bucket, height, width});
    Slot& slot = slots_[0];
    slot.output.at_least(runtime_, network.output().size());
    std::byte* const pixels = slot.input.at_least(runtime_, network.input().size());
    std::memcpy(pixels, images.data(), images.size());
    std::memset(pixels + images.size(), 0, network.input().size() - images.size());
    slot.count = count;
    run(slot, network);
    runtime_.synchronize(slot.done.get());
    slot.count = 0;

    const auto classes = static_cast<std::size_t>(output.classes);
    const std::size_t anchors =
        network.output().size() / sizeof(float) / (classes + 4) / static_cast<std::size_t>(bucket);
    output.anchors = static_cast<int>(anchors);
    const auto* scores = reinterpret_cast<const float*>(slot.output.get());
    const float* boxes = scores + static_cast<std::size_t>(bucket) * anchors * classes;
    output.scores.insert(output.scores.end(), scores, scores + count * anchors * classes);
    output.boxes.insert(output.boxes.end(), boxes, boxes + count * anchors * 4);
  }

  // Waits for all that is under way, also for a batch of which only a part was enqueued.
  void drain() {
    bool busy = false;
    for (Slot& slot : slots_) busy |= std::exchange(slot.count, 0) > 0;
    if (!busy) return;
    runtime_.synchronize(copy_stream_.get());
    for (const auto& stream : streams_) runtime_.synchronize(stream.get());
  }

  // `count` images did not fit: gives back what is kept for other batches, and the second time goes on with half as
  // many.
  void make_room(int count, const Error& error) {
    drain();
    networks_.clear();
    for (Slot& slot : slots_) slot.images.release();
    if (!std::exchange(made_room_, true)) return;
    if (count == 1) throw Error("one image does not fit into the memory of the GPU: {}", error.what());
    limit_ = batch_bucket(count) / 2;
    if (!std::exchange(warned_, true))
      options_.warn(fmt::format("a batch of {} does not fit into the memory of the GPU ({}); going on with {}", count,
                                error.what(), limit_));
  }

  const WeightsFile& weights_;
  const BackendOptions options_;
  Environment environment_;
  Runtime& runtime_;
  int limit_;               // images that run together, as far as is known
  bool made_room_ = false;  // since the last batch that fitted
  bool warned_ = false;
  std::array<Owned<CUstream_st>, kMaxStreams> streams_;
  Owned<CUstream_st> copy_stream_;
  std::vector<Slot> slots_;    // two, in turns
  std::list<Built> networks_;  // the one used last comes first
};

}  // namespace

int batch_bucket(int images) {
  int bucket = 1;
  while (bucket < images && bucket < kLargestBatch) bucket *= 2;
  return bucket;
}

std::unique_ptr<Backend> make_backend(const WeightsFile& weights, const BackendOptions& options,
                                      Environment environment) {
  return std::make_unique<CudaBackend>(weights, options, std::move(environment));
}

}  // namespace damoyolo::cuda
