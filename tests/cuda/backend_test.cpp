// The CUDA backend on a runtime played by the host: batches, buckets, memory that runs out, staging, autotuning.
#include "engine/cuda/backend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include "engine/core/error.h"
#include "engine/cpu/reference.h"
#include "engine/cpu/resize.h"
#include "engine/cuda/plan.h"
#include "engine/decode.h"
#include "engine/model/build.h"
#include "engine/nms.h"
#include "engine/passes/passes.h"
#include "tests/compare.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/host_runtime.h"
#include "tests/random_weights.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

// The smallest variant at 64 × 32 with random weights.
const WeightsFile& small_model() {
  static const test::TemporaryFolder folder;
  static const std::unique_ptr<WeightsFile> file = [] {
    ModelSpec spec = released_variant("Ns");
    spec.input_height = 64;
    spec.input_width = 32;
    const BuiltModel model = build_model(spec, 1, 64, 32);
    const RandomWeights weights(model.sources);
    Safetensors contents;
    for (const ConvSource& source : model.sources)
      for (const char* kind : {".weight", ".bias"})
        contents.tensors[source.node + kind] = weights.lookup()(source.node + kind);
    write_weights_file(folder.file("small.safetensors"), spec, "0123", contents);
    return std::make_unique<WeightsFile>(folder.file("small.safetensors"));
  }();
  return *file;
}

std::vector<Image> pictures(std::size_t count) {
  std::vector<Image> images;
  for (std::size_t i = 0; i < count; ++i) {
    const int width = 20 + 17 * static_cast<int>(i), height = 50 - 3 * static_cast<int>(i);
    images.push_back(
        {width, height, golden_bytes("picture " + std::to_string(i), static_cast<std::size_t>(width * height) * 3)});
  }
  return images;
}

std::vector<ImageView> views(const std::vector<Image>& images) { return {images.begin(), images.end()}; }

constexpr float kConfidence = 0.6f, kIou = 0.7f;

// The plain executor on pixels of network size, up to the head.
class Plain {
 public:
  Plain(const std::vector<std::uint8_t>& pixels, int count, int height, int width)
      : reference_(build_model(small_model().model(), count, height, width).graph,
                   [](std::string_view name) -> const TensorView& { return small_model().tensor(name); }) {
    reference_.run(pixels);
    const Graph& graph = reference_.graph();
    maps.batch = count;
    maps.classes = small_model().model().head.classes;
    maps.reg_max = small_model().model().head.reg_max;
    for (std::size_t i = 0; i < maps.levels.size(); ++i) {
      const HeadLevel& level = graph.head[i];
      const Shape cls = graph.value(level.cls).shape, reg = graph.value(level.reg).shape;
      cls_[i] = reference_.read(level.cls);
      reg_[i] = reference_.read(level.reg);
      maps.levels[i] = {cls_[i].data(), reg_[i].data(), cls.c, reg.c, cls.h, cls.w, level.stride};
    }
  }
  HeadMaps maps;

 private:
  Reference reference_;
  std::array<std::vector<float>, 3> cls_, reg_;
};

// Boxes in network pixels.
std::vector<Candidate> plain_detections(const Image& image) {
  const ModelSpec& model = small_model().model();
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(model.input_height * model.input_width) * 3);
  resize_bilinear(image, model.input_width, model.input_height, pixels.data());
  const Plain plain(pixels, 1, model.input_height, model.input_width);
  return non_maximum_suppression(find_candidates(plain.maps, 0, kConfidence, {}), kIou, 300);
}

struct Device {
  explicit Device(BackendOptions options, CandidateSource candidates = host_candidates,
                  const std::filesystem::path& cache = {}, bool overlap = false) {
    auto owned = std::make_unique<HostRuntime>();
    runtime = owned.get();
    options.warn = [this](const std::string& text) { warnings.push_back(text); };
    backend = make_backend(small_model(), options,
                           {std::move(owned), std::move(candidates), "GPU", "1.0", cache, 1024, overlap});
  }
  std::vector<std::vector<Detection>> detect(const std::vector<Image>& images, StageTimes* times = nullptr) {
    return backend->detect(views(images), {kConfidence, kIou, 300, {}}, times);
  }

  HostRuntime* runtime = nullptr;
  std::vector<std::string> warnings;
  std::unique_ptr<Backend> backend;
};

BackendOptions options(int max_batch, Mode mode = Mode::Default) {
  BackendOptions result;
  result.precision = Precision::Fp32;
  result.max_batch = max_batch;
  result.mode = mode;
  result.tuning_seconds = 3600;  // no test is as slow
  return result;
}

// Computes nothing, but sets the time when it runs.
struct Timed : HostConvolution {
  Timed(const ConvProblem& problem, const ConvWeights& weights, std::string name, double time, double& now)
      : HostConvolution(problem, weights, std::move(name), 0), time_(time), now_(now) {}
  void run(const ConvPointers&, kernels::Stream) override { now_ = time_; }
  double time_;
  double& now_;
};

bool same_bytes(const std::vector<std::vector<Detection>>& a, const std::vector<std::vector<Detection>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(Detection)) == 0);
  });
}

}  // namespace

TEST_CASE("cuda backend: layers can be kept in fp32, and every value of a graph read") {
  const std::vector<Image> images = pictures(2);
  BackendOptions fp32 = options(2), all_kept = options(2), some_kept = options(2), bf16 = options(2);
  all_kept.precision = some_kept.precision = bf16.precision = Precision::Bf16;
  all_kept.keep_fp32 = {"*"};
  some_kept.keep_fp32 = {"head.*", "backbone.0"};
  const auto exact = Device(fp32).detect(images);
  CHECK(same_bytes(Device(all_kept).detect(images), exact));
  Device some(some_kept);
  const auto rounded = some.detect(images);
  CHECK_FALSE(same_bytes(rounded, exact));
  CHECK_FALSE(same_bytes(rounded, Device(bf16).detect(images)));
  CHECK(some.backend->plan_text(1).find("convert") != std::string::npos);

  Graph graph = build_model(small_model().model(), 1, 64, 32).graph;
  optimize(graph);
  const std::vector<std::uint8_t> pixels = golden_bytes("probe", std::size_t{64} * 32 * 3);
  Reference reference(graph, [](std::string_view name) -> const TensorView& { return small_model().tensor(name); });
  reference.run(pixels);
  const std::unique_ptr<Probe> probe = some.backend->probe(graph);
  probe->run(pixels);
  for (const ValueId id : {graph.backbone[0], graph.neck[2], graph.head[1].cls})
    CHECK(relative_difference(reference.read(id), probe->read(id)) < 0.03);
  CHECK_THROWS_AS(probe->run(std::span(pixels).first(100)), Error);
}

TEST_CASE("cuda backend: it finds what the plain reference finds") {
  const std::vector<Image> images = pictures(3);
  StageTimes times;
  const auto found = Device(options(4)).detect(images, &times);
  REQUIRE(found.size() == images.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::vector<Candidate> expected = plain_detections(images[i]);
    const float size[] = {static_cast<float>(images[i].width), static_cast<float>(images[i].height)};
    const float network[] = {32, 64};
    CHECK(expected.size() > 3);
    REQUIRE(found[i].size() == expected.size());
    for (std::size_t k = 0; k < expected.size(); ++k) {
      CHECK(found[i][k].class_id == expected[k].class_id);
      CHECK(std::abs(found[i][k].score - expected[k].score) < 2e-5f);
      for (std::size_t side = 0; side < 4; ++side) {
        const float edge = std::clamp(expected[k].box[side] * size[side % 2] / network[side % 2], 0.f, size[side % 2]);
        CHECK(std::abs(found[i][k].box[side] - edge) < 1e-2f);
      }
    }
  }
  CHECK(times.preprocess == doctest::Approx(1e-3));
  CHECK(times.network == doctest::Approx(1e-3));
  CHECK(times.postprocess == doctest::Approx(1e-3));
}

TEST_CASE("cuda backend: any split into batches, in any mode, gives what the images give one by one") {
  const std::vector<Image> images = pictures(5);
  const auto alone = Device(options(1)).detect(images);
  CHECK(alone.size() == images.size());
  for (const BackendOptions& split :
       {options(2, Mode::ReduceOverhead), options(3, Mode::MaxAutotune), options(8, Mode::Default)}) {
    CAPTURE(split.max_batch);
    CHECK(same_bytes(Device(split).detect(images), alone));
  }
  CHECK(Device(options(4)).detect({}).empty());
}

TEST_CASE("cuda backend: a request takes the next larger bucket") {
  const std::pair<int, int> expected[] = {{1, 1},  {2, 2},   {3, 4},   {5, 8},  {8, 8},
                                          {9, 16}, {17, 32}, {32, 32}, {33, 32}};
  for (const auto& [images, bucket] : expected) CHECK(batch_bucket(images) == bucket);
  Device device(options(3));
  CHECK(device.backend->plan_text(3).find("steps on") != std::string::npos);
  CHECK(device.backend->plan_text(3) == device.backend->plan_text(4));
  CHECK(device.backend->plan_text(3) != device.backend->plan_text(2));
}

TEST_CASE("cuda backend: branches run on as many streams as may be, and find the same on one") {
  BackendOptions one = options(2);
  one.streams = 1;
  Device alone(one), side_by_side(options(2));
  CHECK(alone.backend->plan_text(2).find("on 1 stream") != std::string::npos);
  CHECK(side_by_side.backend->plan_text(2).find("on 1 stream") == std::string::npos);
  const std::vector<Image> images = pictures(2);
  CHECK(same_bytes(alone.detect(images), side_by_side.detect(images)));
}

TEST_CASE("cuda backend: once warm it allocates nothing, and waits for nothing but results") {
  const std::vector<Image> images = pictures(5);
  Device device(options(2, Mode::ReduceOverhead));
  const auto first = device.detect(images);
  const std::size_t allocations = device.runtime->allocations, live = device.runtime->live();
  const std::int64_t bytes = device.backend->memory_bytes();
  device.runtime->calls.clear();
  CHECK(same_bytes(device.detect(images), first));
  CHECK(device.backend->memory_bytes() == bytes);
  CHECK(device.runtime->allocations == allocations);
  CHECK(device.runtime->live() == live);
  CHECK(device.runtime->count(RecordedCall::Kind::Synchronize) == 3);  // one for each batch: 2, 2 and 1 images
  CHECK(device.runtime->count(RecordedCall::Kind::Launch) == 3);
}

TEST_CASE("cuda backend: a warm one has the plans of all batches that come") {
  int made = 0;
  double seconds = 0;
  Device device(options(3, Mode::ReduceOverhead), [&](const ConvProblem& problem) {
    return std::vector<ConvCandidate>{{"nothing", 1, [&, problem](const ConvWeights& weights) {
                                         ++made;
                                         return std::make_unique<Timed>(problem, weights, "nothing", 1, seconds);
                                       }}};
  });
  device.backend->warm_up();
  const int warm = made;
  CHECK(warm > 3 * 50);  // convolutions, for 1, 2 and 4 images
  const std::vector<Image> images = pictures(3);
  for (const int count : {3, 2, 1}) device.detect({images.begin(), images.begin() + count});
  CHECK(made == warm);
}

TEST_CASE("cuda backend: networks share their weights") {
  const std::size_t before = uploaded_bytes();
  {
    Device device(options(4));
    device.backend->plan_text(1);
    const std::size_t one = uploaded_bytes();
    CHECK(one > before + (1 << 20));
    device.backend->plan_text(4);
    device.backend->forward(golden_bytes("forward", std::size_t{32} * 32 * 3), 1, 32, 32);
    CHECK(uploaded_bytes() == one);
    Device other(options(2));
    other.backend->plan_text(2);
    CHECK(uploaded_bytes() == one);
  }
  CHECK(uploaded_bytes() == before);
}

TEST_CASE("cuda backend: the images of a batch are copied while the one before is computed") {
  Device device(options(1, Mode::ReduceOverhead));
  const std::vector<Image> images = pictures(3);
  device.detect(images);
  device.runtime->calls.clear();
  device.detect(images);
  std::size_t launched = 0, collected = 0, most = 0;
  StreamHandle network = nullptr;
  for (const RecordedCall& call : device.runtime->calls)
    if (call.kind == RecordedCall::Kind::Launch) network = call.stream;
  std::size_t uploads_aside = 0;
  for (const RecordedCall& call : device.runtime->calls) {
    if (call.kind == RecordedCall::Kind::Launch) ++launched;
    if (call.kind == RecordedCall::Kind::Synchronize) ++collected;
    most = std::max(most, launched - collected);
    if (call.kind == RecordedCall::Kind::Copy && call.stream != network && launched > collected) ++uploads_aside;
  }
  CHECK(most == 2);
  CHECK(uploads_aside == 2);
}

TEST_CASE("cuda backend: when memory runs out, smaller batches run, with one warning") {
  const std::vector<Image> images = pictures(5);
  Device single(options(1));
  const auto expected = single.detect(images);
  const std::size_t enough = single.runtime->device_peak();
  Device none(options(4));
  none.runtime->device_limit = enough / 2;
  CHECK_THROWS_WITH_AS(none.detect(images),
                       "one image does not fit into the memory of the GPU: cudaMalloc: out of memory", Error);
  Device device(options(4));
  device.runtime->device_limit = enough;
  CHECK(same_bytes(device.detect(images), expected));
  REQUIRE(device.warnings.size() == 1);
  CHECK(device.warnings.front().find("a batch of 4 does not fit") != std::string::npos);
  CHECK(same_bytes(device.detect(images), expected));
  CHECK(device.warnings.size() == 1);
}

TEST_CASE("cuda backend: a batch that was begun and did not fit is waited for") {
  int left = 20;  // steps that fit
  Device device(options(2), [&](const ConvProblem& problem) {
    struct Flaky : HostConvolution {
      Flaky(const ConvProblem& problem, const ConvWeights& weights, int& left)
          : HostConvolution(problem, weights, "flaky", 0), left(left) {}
      void run(const ConvPointers& pointers, kernels::Stream stream) override {
        if (--left == 0) throw OutOfDeviceMemory("no code for you");
        HostConvolution::run(pointers, stream);
      }
      int& left;
    };
    return std::vector<ConvCandidate>{{"flaky", 1, [&, problem](const ConvWeights& weights) {
                                         return std::make_unique<Flaky>(problem, weights, left);
                                       }}};
  });
  const std::vector<Image> images = pictures(2);
  CHECK(same_bytes(device.detect(images), Device(options(2)).detect(images)));
  CHECK(device.warnings.empty());
  const std::vector<RecordedCall>& calls = device.runtime->calls;
  const StreamHandle copies = calls.front().stream;
  const auto is = [&](RecordedCall::Kind kind) {
    return [=](const RecordedCall& call) { return call.kind == kind && call.stream == copies; };
  };
  const auto waited = std::ranges::find_if(calls, is(RecordedCall::Kind::Synchronize));
  CHECK(std::count_if(calls.begin(), waited, is(RecordedCall::Kind::Copy)) == 2);
  CHECK(std::count_if(waited, calls.end(), is(RecordedCall::Kind::Copy)) == 2);
  // What other streams have of it, too.
  const auto streams_waited_for = [&] {
    std::set<StreamHandle> streams;
    for (const RecordedCall& call : calls)
      if (call.kind == RecordedCall::Kind::Synchronize && call.stream != nullptr) streams.insert(call.stream);
    return streams;
  };
  CHECK(streams_waited_for().size() == kMaxStreams + 1);

  device.runtime->calls.clear();
  left = 20;
  const auto [height, width] = std::pair(small_model().model().input_height, small_model().model().input_width);
  device.backend->forward(std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3)), 1, height, width);
  CHECK(streams_waited_for().size() == kMaxStreams + 1);
}

TEST_CASE("cuda backend: it ends on any thread, and its libraries before the streams that they were given") {
  std::size_t live = 0;
  HostRuntime* runtime = nullptr;
  const auto library = [&] { return std::shared_ptr<void>(nullptr, [&](void*) { live = runtime->live(); }); };
  Device device(options(1, Mode::ReduceOverhead),
                [held = library()](const ConvProblem& problem) { return host_candidates(problem); });
  runtime = device.runtime;
  device.detect(pictures(1));
  std::thread([&] { device.backend.reset(); }).join();
  CHECK(live > static_cast<std::size_t>(kMaxStreams));
}

TEST_CASE("cuda backend: thresholds, wanted classes and limits are data") {
  const std::vector<Image> images = pictures(2);
  Device device(options(2, Mode::ReduceOverhead));
  const auto all = device.detect(images);
  const std::size_t allocations = device.runtime->allocations;
  DetectParameters parameters{kConfidence, kIou, 2, {}};
  for (const auto& found : device.backend->detect(views(images), parameters, nullptr)) CHECK(found.size() == 2);
  parameters.max_detections = 300;
  parameters.confidence = 1.f;
  for (const auto& found : device.backend->detect(views(images), parameters, nullptr)) CHECK(found.empty());
  parameters.confidence = kConfidence;
  const int wanted = all[0].front().class_id;
  parameters.class_filter.assign(static_cast<std::size_t>(small_model().model().head.classes), false);
  parameters.class_filter[static_cast<std::size_t>(wanted)] = true;
  const auto of_class = device.backend->detect(views(images), parameters, nullptr);
  CHECK_FALSE(of_class[0].empty());
  for (const auto& found : of_class)
    for (const Detection& one : found) CHECK(one.class_id == wanted);
  CHECK(device.runtime->allocations == allocations);
}

TEST_CASE("cuda backend: forward gives every score and box, also of an odd number of images of another size") {
  constexpr int kCount = 3, kHeight = 32, kWidth = 64;
  const std::vector<std::uint8_t> pixels = golden_bytes("forward", std::size_t{kCount} * kHeight * kWidth * 3);
  const Plain plain(pixels, kCount, kHeight, kWidth);
  const auto anchors = static_cast<std::size_t>(plain.maps.anchors());
  std::vector<float> scores(kCount * anchors * static_cast<std::size_t>(plain.maps.classes)),
      boxes(kCount * anchors * 4);
  decode_all(plain.maps, scores, boxes);
  Device device(options(2, Mode::ReduceOverhead));
  for (int run = 0; run < 2; ++run) {
    const RawOutput output = device.backend->forward(pixels, kCount, kHeight, kWidth);
    CHECK(output.images == kCount);
    CHECK(output.anchors == plain.maps.anchors());
    CHECK(output.classes == plain.maps.classes);
    REQUIRE(output.scores.size() == scores.size());
    REQUIRE(output.boxes.size() == boxes.size());
    const auto near = [](float bound) { return [bound](float a, float b) { return std::abs(a - b) < bound; }; };
    CHECK(std::equal(output.scores.begin(), output.scores.end(), scores.begin(), near(2e-5f)));
    CHECK(std::equal(output.boxes.begin(), output.boxes.end(), boxes.begin(), near(5e-3f)));
  }
  CHECK_THROWS_AS(device.backend->forward(std::span(pixels).first(10), kCount, kHeight, kWidth), Error);
}

TEST_CASE("cuda backend: images that no kernel takes are refused, and spoil nothing") {
  Device device(options(1));
  const std::vector<Image> images = pictures(2);
  const auto expected = device.detect(images);
  const std::uint8_t pixel[3] = {};
  const std::vector<ImageView> bad{images[0], {0, 5, pixel}};
  CHECK_THROWS_AS(device.backend->detect(bad, {}, nullptr), Error);
  CHECK(same_bytes(device.detect(images), expected));
}

TEST_CASE("cuda backend: autotuning takes the fastest kernel, and remembers it") {
  const test::TemporaryFolder folder;
  int timed = 0;
  double seconds = 0;
  bool fast_works = true;
  // Of three, the second is fastest, the third cannot be made.
  const CandidateSource three = [&](const ConvProblem& problem) {
    std::vector<ConvCandidate> candidates;
    candidates.push_back({"slow", 1, [&, problem](const ConvWeights& weights) -> std::unique_ptr<ConvKernel> {
                            return std::make_unique<Timed>(problem, weights, "slow", 3.0, seconds);
                          }});
    candidates.push_back({"fast", 1, [&, problem](const ConvWeights& weights) -> std::unique_ptr<ConvKernel> {
                            if (!fast_works) throw Error("not any more");
                            return std::make_unique<Timed>(problem, weights, "fast", 1.0, seconds);
                          }});
    candidates.push_back({"broken", 1, [](const ConvWeights&) -> std::unique_ptr<ConvKernel> {
                            throw Error("no engine supports this");
                          }});
    return candidates;
  };
  const auto plan_of = [&](Mode mode) {
    Device device(options(1, mode), three, folder.file("cache"));
    timed = 0;
    device.runtime->elapsed = [&] {
      ++timed;
      return seconds;
    };
    return device.backend->plan_text(1);
  };
  CHECK(plan_of(Mode::Default).find("fast") == std::string::npos);
  CHECK(timed == 0);
  const std::string tuned = plan_of(Mode::MaxAutotune);
  CHECK(tuned.find("fast") != std::string::npos);
  CHECK(tuned.find("slow") == std::string::npos);
  CHECK(timed > 100);
  CHECK(plan_of(Mode::MaxAutotune) == tuned);
  CHECK(timed == 0);

  for (const auto& entry : std::filesystem::directory_iterator(folder.file("cache")))
    std::ofstream(entry.path()) << "{ damaged";
  CHECK(plan_of(Mode::MaxAutotune) == tuned);
  CHECK(timed > 100);
  CHECK(plan_of(Mode::MaxAutotune) == tuned);
  CHECK(timed == 0);

  fast_works = false;  // what the file names is not there any more
  CHECK(plan_of(Mode::MaxAutotune).find("slow") != std::string::npos);
  CHECK(timed > 100);
  plan_of(Mode::MaxAutotune);
  CHECK(timed == 0);
}

TEST_CASE("cuda backend: autotuning times kernels as its networks run them, one overlapping the next where they may") {
  struct Watched : Timed {
    Watched(const ConvProblem& problem, const ConvWeights& weights, double& now, int& overlapped)
        : Timed(problem, weights, "slow", 3, now), overlapped_(overlapped) {}
    void run(const ConvPointers& pointers, kernels::Stream stream) override {
      Timed::run(pointers, stream);
      overlapped_ += stream.overlap;
    }
    int& overlapped_;
  };
  for (const bool possible : {true, false})
    for (const bool asked : {true, false}) {
      CAPTURE(possible);
      CAPTURE(asked);
      double now = 0;
      std::array<int, 2> overlapped{};  // of one convolution, and of pairs
      // The slower is in no network: whatever it is given comes from timing it.
      const CandidateSource two = [&](const ConvProblem& problem) {
        return std::vector<ConvCandidate>{{"fast", 1,
                                           [&, problem](const ConvWeights& weights) {
                                             return std::make_unique<Timed>(problem, weights, "fast", 1, now);
                                           }},
                                          {"slow", 3, [&, problem](const ConvWeights& weights) {
                                             return std::make_unique<Watched>(problem, weights, now,
                                                                              overlapped[problem.then.c > 0]);
                                           }}};
      };
      BackendOptions tuned = options(1, Mode::MaxAutotune);
      tuned.precision = Precision::Bf16;
      tuned.overlap = asked;
      Device device(tuned, two, {}, possible);
      device.runtime->elapsed = [&] { return now; };
      CHECK(device.backend->plan_text(1).find("slow") == std::string::npos);
      for (const int count : overlapped) CHECK((count > 0) == (possible && asked));
    }
}

TEST_CASE("cuda backend: a pair in one launch is taken where it is faster, by prediction or by timing") {
  const test::TemporaryFolder folder;
  // Takes its time, and computes nothing.
  struct Lasting : HostConvolution {
    Lasting(const ConvProblem& problem, const ConvWeights& weights, std::string name, double time, double& now)
        : HostConvolution(problem, weights, std::move(name), 0), time_(time), now_(now) {}
    void run(const ConvPointers&, kernels::Stream) override { now_ += time_; }
    double time_;
    double& now_;
  };
  int timed = 0;
  double now = 0;
  struct How {
    Mode mode = Mode::MaxAutotune;
    double one = 2, both = 3;
    const char* name = "own:one";
    const char* cache = "none";
    bool pairs = true;
    Precision precision = Precision::Bf16;
    double tuning_seconds = 3600;
  };
  const auto plan_of = [&](const How& how) {
    const CandidateSource source = [&](const ConvProblem& problem) {
      const bool is_pair = problem.then.c > 0;
      const std::string name = is_pair ? "own:both" : how.name;
      const double time = is_pair ? how.both : how.one;
      return std::vector<ConvCandidate>{{name, time, [&now, problem, name, time](const ConvWeights& weights) {
                                           return std::make_unique<Lasting>(problem, weights, name, time, now);
                                         }}};
    };
    BackendOptions asked = options(1, how.mode);
    asked.precision = how.precision;
    asked.pairs = how.pairs;
    asked.tuning_seconds = how.tuning_seconds;
    Device device(asked, source, folder.file(how.cache));
    timed = 0;
    device.runtime->now = [&] {
      ++timed;
      return now;
    };
    const std::string plan = device.backend->plan_text(1);
    std::filesystem::remove_all(folder.file("none"));
    return plan;
  };
  const auto joins = [&](const How& how) { return plan_of(how).find("own:both") != std::string::npos; };

  CHECK(joins({.mode = Mode::ReduceOverhead}));
  CHECK_FALSE(joins({.mode = Mode::ReduceOverhead, .both = 5}));
  CHECK_FALSE(joins({.mode = Mode::ReduceOverhead, .name = "cudnn:one"}));
  CHECK_FALSE(joins({.mode = Mode::ReduceOverhead, .pairs = false}));
  CHECK_FALSE(joins({.mode = Mode::ReduceOverhead, .precision = Precision::Fp32}));
  CHECK(timed == 0);

  CHECK(joins({}));
  CHECK(timed > 0);
  CHECK_FALSE(joins({.both = 5}));
  CHECK(timed > 0);
  CHECK(joins({.name = "cudnn:one"}));  // whoever is slower
  CHECK_FALSE(joins({.pairs = false}));
  CHECK_FALSE(joins({.tuning_seconds = 0}));
  CHECK(timed == 0);

  // Either choice is stored, and survives plans that did not ask for it.
  for (const double both : {3., 5.}) {
    const How stored{.both = both, .cache = both == 3 ? "joined" : "apart"};
    How without = stored;
    without.pairs = false;
    const std::string plan = plan_of(stored);
    CHECK(timed > 0);
    CHECK(plan_of(stored) == plan);
    CHECK(timed == 0);
    CHECK(plan_of(without).find("own:both") == std::string::npos);
    CHECK(plan_of(stored) == plan);
    CHECK(timed == 0);
  }
}

TEST_CASE("cuda backend: pairs in one launch find what two find, in every mode") {
  const CandidateSource own = [](const ConvProblem& problem) {
    return std::vector<ConvCandidate>{
        {"own:host", 1, [problem](const ConvWeights& weights) -> std::unique_ptr<ConvKernel> {
           return std::make_unique<HostConvolution>(problem, weights, "own:host", 64);
         }}};
  };
  const std::vector<Image> images = pictures(3);
  BackendOptions bf16 = options(2);
  bf16.precision = Precision::Bf16;
  bf16.pairs = false;
  Device apart(bf16, own);
  const auto expected = apart.detect(images);
  CHECK_FALSE(expected.front().empty());
  bf16.pairs = true;
  for (const Mode mode : {Mode::Default, Mode::ReduceOverhead}) {
    bf16.mode = mode;
    Device joined(bf16, own);
    CHECK(same_bytes(joined.detect(images), expected));
    CHECK(joined.backend->profile({.batch = 1, .repetitions = 1}).size() <
          apart.backend->profile({.batch = 1, .repetitions = 1}).size());
  }
}

TEST_CASE("cuda backend: autotuning times what layers have in common once, and ends when its time is used up") {
  const test::TemporaryFolder folder;
  double seconds = 0;
  std::vector<ConvProblem> problems, made;
  const CandidateSource two = [&](const ConvProblem& problem) {
    if (std::ranges::find(problems, problem) == problems.end()) problems.push_back(problem);
    std::vector<ConvCandidate> candidates;
    for (const auto& [name, time] : {std::pair{"slow", 3.0}, {"fast", 1.0}})
      candidates.push_back({name, time, [&, problem, name = name, time = time](const ConvWeights& weights) {
                              made.push_back(problem);
                              return std::make_unique<Timed>(problem, weights, name, time, seconds);
                            }});
    return candidates;
  };
  const auto plan_of = [&](double tuning_seconds, const char* cache) {
    BackendOptions tuned = options(1, Mode::MaxAutotune);
    tuned.tuning_seconds = tuning_seconds;
    Device device(tuned, two, folder.file(cache));
    device.runtime->elapsed = [&] { return seconds; };
    made.clear();
    return device.backend->plan_text(1);
  };
  CHECK(plan_of(3600, "timed").find("slow") == std::string::npos);
  const std::size_t convolutions = made.size() - problems.size();  // each first one has tried both
  CHECK(convolutions > problems.size());
  CHECK(plan_of(0, "untimed").find("fast") == std::string::npos);  // the first of the list stands untimed
  CHECK(made.size() == convolutions);
  CHECK(plan_of(3600, "untimed").find("slow") == std::string::npos);  // but is not stored
}

TEST_CASE("cuda backend: steps are timed by themselves, beside other kernels where that is asked for") {
  double seconds = 8;
  const CandidateSource two = [&](const ConvProblem& problem) {
    std::vector<ConvCandidate> candidates;
    const auto add = [&](std::string name, double time) {
      candidates.push_back({name, 1, [&, problem, name, time](const ConvWeights& weights) {
                              return std::make_unique<Timed>(problem, weights, name, time, seconds);
                            }});
    };
    add("own:slow", 4);
    add("library:one", 6);
    add("own:fast", 2);
    candidates.push_back({"own:broken", 1, [](const ConvWeights&) -> std::unique_ptr<ConvKernel> {
                            throw Error("no engine supports this");
                          }});
    return candidates;
  };
  Device device(options(2), two);
  device.runtime->elapsed = [&] { return std::exchange(seconds, 8); };
  const auto times = device.backend->profile({.batch = 1, .repetitions = 2, .compare = {"own"}});
  const std::size_t live = device.runtime->live();
  std::size_t convolutions = 0;
  for (const StepTime& step : times) {
    CAPTURE(step.node);
    CHECK(step.bytes > 0);
    if (step.operation != "conv") {
      CHECK(step.seconds > 0);
      CHECK(step.candidates.empty());
      continue;
    }
    ++convolutions;
    CHECK(step.kernel == "own:slow");
    CHECK(step.out.n == 1);
    CHECK(step.flops > 0);
    CHECK(step.seconds == doctest::Approx(2));
    CHECK(step.without_turn == 0);
    REQUIRE(step.candidates.size() == 2);
    CHECK(step.candidates[0].kernel == "own:fast");
    CHECK(step.candidates[1].kernel == "own:slow");
    CHECK(step.candidates[1].seconds == doctest::Approx(2 * step.candidates[0].seconds));
  }
  CHECK(convolutions > 50);
  CHECK(times.front().operation == "cast");
  CHECK(times.back().node == "results");
  CHECK(times.back().kernel == "head_decode");
  CHECK(device.backend->profile({.batch = 1, .repetitions = 1})[1].candidates.empty());
  for (const StepTime& step :
       device.backend->profile({.batch = 1, .repetitions = 1, .compare = {"own"}, .compare_seconds = 0})) {
    CHECK(step.candidates.empty());
    CHECK(step.without_turn == (step.operation == "conv" ? 3 : 0));
  }
  CHECK(device.runtime->live() == live);

  const auto detecting = device.backend->profile({.batch = 1, .repetitions = 1, .detecting = true});
  CHECK(detecting.size() == times.size());
  CHECK(detecting.front().operation == "preprocess");
  CHECK(detecting.back().kernel == "candidates, nms");
  CHECK(detecting.back().bytes < times.back().bytes);
}

TEST_CASE("cuda backend: whole runs are timed one by one and back to back") {
  Device device(options(1, Mode::ReduceOverhead));
  const RunTimes times = device.backend->time_network(1, 2);
  CHECK(times.alone == std::vector<double>(2, 1e-3));
  CHECK(times.back_to_back == std::vector<double>(2, 1e-3));
  CHECK(device.runtime->count(RecordedCall::Kind::Launch) == 1 + 2 + 2);  // not counted, and as asked
  CHECK(device.backend->memory_bytes() > 0);
  CHECK_THROWS_AS(device.backend->time_network(64, 1), Error);
}

TEST_CASE("cuda backend: a convolution that nothing can compute is named") {
  const CandidateSource none = [](const ConvProblem&) {
    return std::vector<ConvCandidate>{{"broken", 1, [](const ConvWeights&) -> std::unique_ptr<ConvKernel> {
                                         throw Error("no engine supports this");
                                       }}};
  };
  for (const Mode mode : {Mode::ReduceOverhead, Mode::MaxAutotune})
    CHECK_THROWS_WITH_AS(Device(options(1, mode), none).backend->plan_text(1),
                         "no kernel can compute the convolution backbone.0: no engine supports this", Error);
}
