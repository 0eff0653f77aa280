// The network of the CUDA backend with everything but the libraries' convolutions: plan, views, kernels (through the
// SIMT shim) and results, against the reference.
#include "engine/cuda/network.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <map>
#include <string_view>
#include <vector>

#include "engine/cpu/reference.h"
#include "engine/cuda/conv_split.h"
#include "engine/decode.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/compare.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/host_runtime.h"
#include "tests/layer_errors.h"
#include "tests/random_weights.h"
#include "tests/small_model.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

constexpr int kBatch = 2, kHeight = 32, kWidth = 32;

// No pairs.
const KernelChooser on_host{[](const std::string&, const ConvProblem& problem, const ConvWeights& weights) {
  return host_candidates(problem).front().make(weights);
}};

// All pairs.
const KernelChooser in_pairs{
    on_host.one, [](const ConvPair& pair) { return host_candidates(pair.problem).front().make(pair.weights); }};

struct Case {
  explicit Case(const ModelSpec& spec) : Case(build_model(spec, kBatch, kHeight, kWidth), spec.head) {}
  Case(BuiltModel built, const HeadSpec& its_head)
      : head(its_head),
        model(std::move(built)),
        weights(model.sources),
        graph(model.graph),
        pixels(golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3)) {
    optimize(graph);
    for (int i = 0; i < kMaxStreams; ++i) {
      owned.push_back(make_stream(runtime));
      streams.push_back(owned.back().get());
    }
  }

  // Scores, then boxes, of the forward task.
  std::vector<float> forward(Network& network) {
    runtime.copy(network.input().data(), pixels.data(), pixels.size(), streams[0]);
    network.run();
    std::vector<float> result(network.output().size() / sizeof(float));
    std::memcpy(result.data(), network.output().data(), network.output().size());
    return result;
  }

  std::vector<float> reference() const {
    Reference plain(graph, weights.lookup());
    plain.run(pixels);
    std::array<std::vector<float>, 6> values;
    HeadMaps maps{kBatch, head.classes, head.reg_max, {}};
    for (std::size_t i = 0; i < 3; ++i) {
      const HeadLevel& level = graph.head[i];
      values[2 * i] = plain.read(level.cls);
      values[2 * i + 1] = plain.read(level.reg);
      const Shape cls = graph.value(level.cls).shape, reg = graph.value(level.reg).shape;
      maps.levels[i] = {values[2 * i].data(), values[2 * i + 1].data(), cls.c, reg.c, cls.h, cls.w, level.stride};
    }
    const auto anchors = static_cast<std::size_t>(kBatch * maps.anchors());
    std::vector<float> result(anchors * static_cast<std::size_t>(head.classes + 4));
    const std::size_t scores = anchors * static_cast<std::size_t>(head.classes);
    decode_all(maps, std::span(result).first(scores), std::span(result).subspan(scores));
    return result;
  }

  HeadSpec head;
  BuiltModel model;
  RandomWeights weights;
  Graph graph;
  std::vector<std::uint8_t> pixels;
  HostRuntime runtime;
  std::vector<Owned<CUstream_st>> owned;
  std::vector<StreamHandle> streams;
};

NetworkOptions options(Task task, DType type, bool capture = false) {
  NetworkOptions result;
  result.task = task;
  result.plan.activations = type;
  result.capture = capture;
  result.max_candidates = 256;
  return result;
}

}  // namespace

TEST_CASE("cuda network: every variant gives what the reference gives") {
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    Case test(spec);
    const std::vector<float> expected = test.reference();
    Network exact(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host,
                  options(Task::Forward, DType::F32));
    const std::vector<float> result = test.forward(exact);
    REQUIRE(result.size() == expected.size());
    CHECK(relative_difference(expected, result) < 1e-5);
    CHECK(test.forward(exact) == result);
  }
}

TEST_CASE("cuda network: what no released model leaves to the plan gives what the reference gives") {
  Case test(small_model(kBatch, kHeight, kWidth), kSmallHead);
  for (const DType type : {DType::F32, DType::BF16})
    for (const std::string kept : {"", "*", "neck.*", "backbone.*"}) {
      CAPTURE(name_of(type));
      CAPTURE(kept);
      Graph graph = test.graph;
      if (!kept.empty()) keep_fp32(graph, std::vector{kept});
      Network network(test.runtime, test.streams, graph, test.head, test.weights.lookup(), in_pairs,
                      options(Task::Forward, type));
      CHECK(relative_difference(test.reference(), test.forward(network)) < (type == DType::F32 ? 1e-5 : 0.01));
    }
}

TEST_CASE("cuda network: bf16 stays near fp32, and a captured graph gives the same bytes") {
  Case test(released_variant("T"));
  Network plain(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host,
                options(Task::Forward, DType::BF16));
  const std::vector<float> result = test.forward(plain);
  CHECK(relative_difference(test.reference(), result) < 0.05);

  Network captured(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host,
                   options(Task::Forward, DType::BF16, true));
  CHECK(test.forward(captured) == result);
  const std::vector<std::uint8_t> first = test.pixels;
  test.pixels = golden_bytes("other", first.size());
  CHECK(test.forward(captured) != result);
  test.pixels = first;
  test.runtime.calls.clear();
  const std::size_t allocations = test.runtime.allocations;
  CHECK(test.forward(captured) == result);
  CHECK(test.runtime.count(RecordedCall::Kind::Launch) == 1);
  CHECK(test.runtime.count(RecordedCall::Kind::Synchronize) == 0);
  CHECK(test.runtime.allocations == allocations);
}

TEST_CASE("cuda network: two convolutions in one step give the bytes of two steps") {
  for (const std::string_view variant : {"Ns", "S"}) {
    CAPTURE(variant);
    Case test(released_variant(variant));
    const auto made = [&](const KernelChooser& choose, const NetworkOptions& how) {
      return std::make_unique<Network>(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(),
                                       choose, how);
    };
    const NetworkOptions plain = options(Task::Forward, DType::BF16);
    const auto apart = made(on_host, plain);
    const std::vector<float> expected = test.forward(*apart);
    const std::size_t steps = apart->plan().steps.size(), pairs = joinable_pairs(test.graph, DType::BF16).size();
    REQUIRE(pairs > 0);

    std::size_t asked = 0;
    const KernelChooser every_other{
        on_host.one, [&](const ConvPair& pair) { return ++asked % 2 == 0 ? nullptr : in_pairs.pair(pair); }};
    for (const bool capture : {false, true}) {
      NetworkOptions fetching = options(Task::Forward, DType::BF16, capture);
      fetching.fetch_ahead = true;
      const auto joined = made(in_pairs, fetching);
      CHECK(joined->plan().steps.size() == steps - pairs);
      CHECK(test.forward(*joined) == expected);
    }
    const auto half = made(every_other, plain);
    CHECK(asked == pairs);
    CHECK(half->plan().steps.size() == steps - (pairs + 1) / 2);
    CHECK(test.forward(*half) == expected);
    CHECK(made(in_pairs, options(Task::Forward, DType::F32))->plan().steps.size() == steps);
    NetworkOptions readable = plain;
    readable.plan.keep_values = true;
    CHECK(made(in_pairs, readable)->plan().steps.size() == steps);
  }
}

TEST_CASE("cuda network: a pair that finds no memory is computed in two steps") {
  Case test(released_variant("Ns"));
  const auto made = [&](const auto& error) {
    const KernelChooser failing{on_host.one, [&](const ConvPair&) -> std::unique_ptr<ConvKernel> { throw error; }};
    return std::make_unique<Network>(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), failing,
                                     options(Task::Forward, DType::BF16));
  };
  Network apart(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host,
                options(Task::Forward, DType::BF16));
  const auto network = made(OutOfDeviceMemory("no place for both"));
  CHECK(network->plan().steps.size() == apart.plan().steps.size());
  CHECK(test.forward(*network) == test.forward(apart));
  CHECK_THROWS_WITH_AS(made(Error("the device is lost")), "the device is lost", Error);
}

TEST_CASE("cuda network: pairs are asked for with what was chosen for each of the two") {
  Case test(released_variant("S"));
  std::map<ConvKernel*, ConvProblem> chosen;
  std::size_t asked = 0;
  KernelChooser looking;
  looking.one = [&](const std::string& node, const ConvProblem& problem, const ConvWeights& weights) {
    auto kernel = on_host.one(node, problem, weights);
    chosen[kernel.get()] = problem;
    return kernel;
  };
  looking.pair = [&](const ConvPair& pair) -> std::unique_ptr<ConvKernel> {
    CAPTURE(pair.name);
    ++asked;
    CHECK(pair.name.find(" + ") != std::string::npos);
    CHECK(chosen.at(pair.alone[0]) == first_of(pair.problem));
    CHECK(chosen.at(pair.alone[1]) == second_of(pair.problem));
    return nullptr;
  };
  NetworkOptions how = options(Task::Forward, DType::BF16);
  const std::vector<NodePair> pairs = joinable_pairs(test.graph, DType::BF16);
  const auto make = [&] {
    Network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), looking, how);
  };
  for (const bool tf32 : {false, true}) {
    how.allow_tf32 = tf32;
    asked = 0;
    make();
    CHECK(asked == pairs.size());
  }
  how.plan.joined = pairs;  // which they are is not for the options
  CHECK_THROWS_AS(make(), Error);
}

TEST_CASE("cuda network: the steps of pairs are profiled under both names, with the work of both") {
  Case test(released_variant("S"));
  const auto profile = [&](const KernelChooser& choose) {
    Network network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), choose,
                    options(Task::Forward, DType::BF16));
    return network.profile(1, test.weights.lookup());
  };
  const std::vector<StepTime> apart = profile(on_host), joined = profile(in_pairs);
  const auto named = [](const std::vector<StepTime>& steps, std::string_view name) {
    const auto found = std::ranges::find(steps, name, &StepTime::node);
    REQUIRE(found != steps.end());
    return *found;
  };
  const StepTime first = named(apart, "backbone.0"), second = named(apart, "backbone.1.0.conv1"),
                 both = named(joined, "backbone.0 + backbone.1.0.conv1");
  CHECK(both.operation == "conv");
  CHECK(both.flops == first.flops + second.flops);
  CHECK(both.bytes == first.bytes + second.bytes - 2 * first.out.elements() * 2);  // in BF16, neither written nor read
  CHECK(both.in == first.in);
  CHECK(both.out == second.out);
  CHECK(both.kernel_size == 3);
  CHECK(both.pair);
  CHECK_FALSE(first.pair);
}

TEST_CASE("cuda network: each convolution is given the weights of the next one to fetch") {
  struct Given {
    int kernel;
    DeviceBytes next;
  };
  std::vector<Given> given;
  // Its weights are as many bytes as there are kernels before it.
  class Numbered : public ConvKernel {
   public:
    Numbered(int number, std::unique_ptr<ConvKernel> kernel, std::vector<Given>& given)
        : number_(number), kernel_(std::move(kernel)), given_(given) {}
    std::string name() const override { return kernel_->name(); }
    std::size_t workspace_bytes() const override { return kernel_->workspace_bytes(); }
    DeviceBytes weights() const override { return {this, static_cast<std::size_t>(number_)}; }
    void run(const ConvPointers& pointers, kernels::Stream stream) override {
      given_.push_back({number_, pointers.next});
      kernel_->run(pointers, stream);
    }

   private:
    int number_;
    std::unique_ptr<ConvKernel> kernel_;
    std::vector<Given>& given_;
  };
  Case test(released_variant("T"));
  for (const bool fetch : {false, true}) {
    int count = 0;
    NetworkOptions fetching = options(Task::Forward, DType::BF16);
    fetching.fetch_ahead = fetch;
    Network network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(),
                    {[&](const std::string& node, const ConvProblem& problem, const ConvWeights& weights) {
                      return std::make_unique<Numbered>(count++, on_host.one(node, problem, weights), given);
                    }},
                    fetching);
    given.clear();
    test.forward(network);
    REQUIRE(std::ssize(given) == count);
    for (const Given& one : given) {
      const bool fetches = fetch && one.kernel + 1 < count;
      CHECK((one.next.data != nullptr) == fetches);
      CHECK(one.next.size == static_cast<std::size_t>(fetches ? one.kernel + 1 : 0));
    }
    // A step that is timed by itself does no other's work.
    given.clear();
    network.profile(1, test.weights.lookup());
    CHECK(std::ssize(given) >= count);
    for (const Given& one : given) CHECK(one.next == DeviceBytes{});
  }
}

TEST_CASE("cuda network: in a capture, kernels overlap with kernels alone") {
  Case test(released_variant("T"));
  for (const Task task : {Task::Forward, Task::Detect}) {
    NetworkOptions overlapping = options(task, DType::F32, true);
    overlapping.overlap = true;
    Network network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host, overlapping);
    CHECK_NOTHROW(network.run());
  }
}

TEST_CASE("cuda network: every value can be read, and layers kept in fp32 compute what the fp32 network does") {
  for (const std::string_view variant : {"Ns", "T"}) {
    CAPTURE(variant);
    Case test(released_variant(variant));
    const auto made = [&](const std::vector<std::string>& kept, DType type) {
      Graph graph = test.graph;
      keep_fp32(graph, kept);
      NetworkOptions readable = options(Task::Forward, type);
      readable.plan.keep_values = true;
      return std::make_unique<Network>(test.runtime, test.streams, graph, test.head, test.weights.lookup(), on_host,
                                       readable);
    };
    const auto exact = made({}, DType::F32);
    const std::vector<float> expected = test.forward(*exact);
    Reference reference(test.graph, test.weights.lookup());
    reference.run(test.pixels);
    for (ValueId id = 0; id < static_cast<ValueId>(test.graph.values.size()); ++id)
      if (id != test.graph.input) CHECK(relative_difference(reference.read(id), exact->read(id)) < 1e-5);

    CHECK(test.forward(*made({"*"}, DType::BF16)) == expected);
    const auto backbone = made({"backbone.*"}, DType::BF16);
    const double all_rounded = relative_difference(expected, test.forward(*made({}, DType::BF16)));
    const double head_rounded =
        relative_difference(expected, test.forward(*made({"backbone.*", "neck.*"}, DType::BF16)));
    CHECK(head_rounded > 1e-6);
    CHECK(head_rounded < 0.7 * all_rounded);
    test.forward(*backbone);
    for (std::size_t level = 0; level < 3; ++level)
      CHECK(relative_difference(exact->read(test.graph.backbone[level]),
                                backbone->read(backbone->graph().backbone[level])) < 0.004);  // rounded once
  }
}

TEST_CASE("cuda network: every convolution in bf16 is near fp32 on the same inputs") {
  for (const std::string_view variant : {"Ns", "T"}) {
    CAPTURE(variant);
    Case test(released_variant(variant));
    const auto errors_in = [&](DType type) {
      NetworkOptions readable = options(Task::Forward, type);
      readable.plan.keep_values = true;
      Network network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host, readable);
      test.forward(network);
      return layer_errors(test.graph, test.weights.lookup(), [&](ValueId value) { return network.read(value); });
    };
    for (const auto& layer : errors_in(DType::F32)) {
      CAPTURE(layer.first);
      CHECK(layer.second < 1e-6);
    }
    for (const auto& layer : errors_in(DType::BF16)) {
      CAPTURE(layer.first);
      CHECK(layer.second < 1e-2);
    }
  }
}

TEST_CASE("cuda network: a step that fails is named, with its kernel") {
  Case test(released_variant("Ns"));
  const auto failure = [&](bool of_memory) {
    struct Failing : HostConvolution {
      Failing(const ConvProblem& problem, const ConvWeights& weights, bool of_memory)
          : HostConvolution(problem, weights, "failing", 0), of_memory(of_memory) {}
      void run(const ConvPointers&, kernels::Stream) override {
        if (of_memory) throw OutOfDeviceMemory("too little");
        throw Error("the device refuses");
      }
      bool of_memory;
    };
    const KernelChooser failing{[&](const std::string& node, const ConvProblem& problem,
                                    const ConvWeights& weights) -> std::unique_ptr<ConvKernel> {
      if (node != "backbone.0") return on_host.one(node, problem, weights);
      return std::make_unique<Failing>(problem, weights, of_memory);
    }};
    Network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), failing,
            options(Task::Forward, DType::BF16, true));
  };
  CHECK_THROWS_WITH_AS(failure(false), "backbone.0 by failing: the device refuses", Error);
  CHECK_THROWS_WITH_AS(failure(true), "too little", OutOfDeviceMemory);  // for whoever makes room
}

TEST_CASE("cuda network: all that it took is given back") {
  Case test(released_variant("Ns"));
  const std::size_t before = test.runtime.live();
  {
    const Network network(test.runtime, test.streams, test.graph, test.head, test.weights.lookup(), on_host,
                          options(Task::Detect, DType::BF16, true));
    CHECK(test.runtime.live() > before);
    CHECK(network.plan_text().find("candidates, nms") != std::string::npos);
  }
  CHECK(test.runtime.live() == before);
}
