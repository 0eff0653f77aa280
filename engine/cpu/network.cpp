#include "engine/cpu/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/core/error.h"
#include "engine/cpu/convolution.h"
#include "engine/cpu/tensor_ops.h"
#include "engine/cpu/threads.h"

namespace damoyolo::cpu {
namespace {

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// Huge-page aligned, so that the kernel can back the arena with few page-table entries.
std::unique_ptr<std::byte, Free> allocate(std::int64_t bytes) {
  constexpr std::size_t kPage = std::size_t{2} << 20;
  const std::size_t rounded = (static_cast<std::size_t>(bytes) + kPage - 1) / kPage * kPage;
  void* memory = std::aligned_alloc(kPage, std::max(rounded, kPage));
  if (memory == nullptr) throw Error("{} MB for the activations cannot be allocated", rounded >> 20);
  return std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(memory));
}

}  // namespace

struct Network::State {
  Graph graph;
  NetworkOptions options;
  Plan plan;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<std::unique_ptr<Convolution>> convolutions;  // by step; null for other kinds
  std::unique_ptr<std::byte, Free> arena;

  std::byte* address(TensorId id) const { return arena.get() + plan.tensor(id).offset; }

  Channels channels(const Slice& slice) const {
    if (slice.tensor == kNone) return {};
    const Tensor& tensor = plan.tensor(slice.tensor);
    Shape shape = tensor.shape;
    shape.c = slice.channels;
    return {address(slice.tensor) + static_cast<std::size_t>(slice.channel) * size_of(tensor.dtype), shape,
            tensor.shape.c, tensor.dtype};
  }

  void create_convolution(std::size_t position, const TensorLookup& lookup) {
    const Step& step = plan.steps[position];
    const Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
    const Tensor& source = plan.tensor(step.source.tensor);
    const Tensor& target = plan.tensor(step.target.tensor);
    ConvolutionShape shape{.in = source.shape,
                           .out = target.shape,
                           .kernel = node.kernel,
                           .stride = node.stride,
                           .groups = node.groups,
                           .act = node.act,
                           .accumulate = step.accumulate,
                           .in_type = source.dtype,
                           .out_type = target.dtype};
    convolutions[position] =
        std::make_unique<Convolution>(engine, shape, gather_weights(graph, node, lookup, source.dtype));
    const auto scratchpad = static_cast<std::int64_t>(convolutions[position]->scratchpad_bytes());
    if (scratchpad > 0) add_scratchpad(plan, position, scratchpad);
  }

  void run_step(std::size_t position, const std::uint8_t* images) {
    const Step& step = plan.steps[position];
    const Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
    switch (step.kind) {
      case StepKind::Cast: cast(images, channels(step.target), node.space_to_depth); break;
      case StepKind::Conv:
        convolutions[position]->run(stream);
        if (convolutions[position]->leaves_silu()) silu(channels(step.target));
        break;
      case StepKind::SppPool: spp_pool(channels(step.source), channels(step.target)); break;
      case StepKind::Upsample: upsample(channels(step.source), channels(step.target)); break;
      case StepKind::Assemble:
        for (const Assembly& part : step.assemblies)
          assemble(channels(part.source), channels(part.residual), channels(part.target));
        break;
    }
  }

  std::string kernel_name(std::size_t position) const {
    switch (plan.steps[position].kind) {
      case StepKind::Cast: return "cast";
      case StepKind::Conv: return convolutions[position]->implementation();
      case StepKind::SppPool: return "spp_pool";
      case StepKind::Upsample: return "upsample";
      case StepKind::Assemble: return "assemble";
    }
    return {};
  }

  Shape shape_of(const Slice& slice) const {
    if (slice.tensor == kNone) return {};
    Shape shape = plan.tensor(slice.tensor).shape;
    shape.c = slice.channels;
    return shape;
  }

  std::int64_t bytes_of(const Slice& slice) const {
    if (slice.tensor == kNone) return 0;
    return shape_of(slice).elements() * static_cast<std::int64_t>(size_of(plan.tensor(slice.tensor).dtype));
  }

  // All about a step but its time.
  StepTime describe(std::size_t position) const {
    const Step& step = plan.steps[position];
    const Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
    const bool convolution = step.kind == StepKind::Conv;
    StepTime result;
    result.node = node.name;
    result.kernel = kernel_name(position);
    result.operation = convolution ? "conv" : result.kernel;
    result.in = step.kind == StepKind::Cast ? graph.value(graph.input).shape : shape_of(step.source);
    result.out = shape_of(step.target);
    result.bytes = bytes_of(step.source) + bytes_of(step.target) * (step.accumulate ? 2 : 1);
    if (step.kind == StepKind::Cast) result.bytes += result.in.elements();
    for (const Assembly& part : step.assemblies) {
      result.out = shape_of(part.target);
      result.bytes += bytes_of(part.source) + bytes_of(part.residual) + bytes_of(part.target);
    }
    if (!convolution) return result;
    result.kernel_size = node.kernel;
    result.stride = node.stride;
    result.groups = node.groups;
    result.flops = flops(graph, node);
    result.bytes += static_cast<std::int64_t>(convolutions[position]->weight_bytes());
    return result;
  }

  // NaN over everything whose last step this was, so that a read after the end of a lifetime shows in the result.
  void poison_after(std::size_t position) {
    for (std::size_t id = 0; id < plan.tensors.size(); ++id)
      if (plan.tensors[id].last == static_cast<int>(position))
        std::memset(address(static_cast<TensorId>(id)), 0xff, static_cast<std::size_t>(plan.tensors[id].bytes()));
  }

  void check_length(std::span<const std::uint8_t> images) const {
    const std::int64_t expected = graph.value(graph.input).shape.elements();
    if (static_cast<std::int64_t>(images.size()) != expected)
      throw Error("the network takes {} bytes of pixels and was given {}", expected, images.size());
  }
};

Network::Network(Graph graph, const TensorLookup& lookup, const NetworkOptions& options)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  const ThreadCount threads(options.threads);
  state.graph = std::move(graph);
  state.options = options;
  state.plan = lower(state.graph, options.plan);
  state.convolutions.resize(state.plan.steps.size());
  for (std::size_t i = 0; i < state.plan.steps.size(); ++i)
    if (state.plan.steps[i].kind == StepKind::Conv) state.create_convolution(i, lookup);
  lay_out(state.plan);
  state.arena = allocate(state.plan.arena.bytes);
  if (options.poison_freed) std::memset(state.arena.get(), 0xff, static_cast<std::size_t>(state.plan.arena.bytes));
  for (std::size_t i = 0; i < state.plan.steps.size(); ++i) {
    const Step& step = state.plan.steps[i];
    if (state.convolutions[i] == nullptr) continue;
    state.convolutions[i]->bind(state.engine, state.address(step.source.tensor), state.address(step.target.tensor),
                                step.scratchpad == kNone ? nullptr : state.address(step.scratchpad));
  }
}

Network::~Network() = default;
Network::Network(Network&&) noexcept = default;

void Network::run(std::span<const std::uint8_t> images) {
  State& state = *state_;
  state.check_length(images);
  const ThreadCount threads(state.options.threads);
  for (std::size_t i = 0; i < state.plan.steps.size(); ++i) {
    state.run_step(i, images.data());
    if (state.options.poison_freed) state.poison_after(i);
  }
}

HeadMaps Network::head(int classes, int reg_max) const {
  HeadMaps maps;
  maps.batch = graph().value(graph().input).shape.n;
  maps.classes = classes;
  maps.reg_max = reg_max;
  for (std::size_t i = 0; i < maps.levels.size(); ++i) {
    const HeadSlices& slices = plan().head[i];
    const Channels cls = state_->channels(slices.cls), reg = state_->channels(slices.reg);
    maps.levels[i] = {reinterpret_cast<const float*>(cls.data),
                      reinterpret_cast<const float*>(reg.data),
                      cls.pixel_stride,
                      reg.pixel_stride,
                      cls.shape.h,
                      cls.shape.w,
                      graph().head[i].stride};
  }
  return maps;
}

std::vector<float> Network::read(TensorId id) const {
  const Tensor& tensor = plan().tensor(id);
  std::vector<float> values(static_cast<std::size_t>(tensor.shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = element_as_float(state_->address(id) + i * size_of(tensor.dtype), tensor.dtype);
  return values;
}

const Graph& Network::graph() const { return state_->graph; }
const Plan& Network::plan() const { return state_->plan; }

std::string Network::plan_text() const {
  const auto slice_text = [&](const Slice& slice) {
    if (slice.tensor == kNone) return std::string("image");
    const Tensor& tensor = plan().tensor(slice.tensor);
    const std::string range =
        slice.channels == tensor.shape.c ? "" : fmt::format("[{}:{}]", slice.channel, slice.channel + slice.channels);
    return fmt::format("t{}{}", slice.tensor, range);
  };
  std::string text = "steps\n";
  for (std::size_t i = 0; i < plan().steps.size(); ++i) {
    const Step& step = plan().steps[i];
    const Node& node = graph().nodes[static_cast<std::size_t>(step.node)];
    if (step.kind == StepKind::Assemble) {
      for (const Assembly& part : step.assemblies)
        text += fmt::format("{:4} {:<34} {:<44} {} <- {}{}\n", i, state_->kernel_name(i), node.name,
                            slice_text(part.target), slice_text(part.source),
                            part.residual.tensor == kNone ? "" : " + " + slice_text(part.residual));
      continue;
    }
    text += fmt::format("{:4} {:<34} {:<44} {} <{} {}\n", i, state_->kernel_name(i), node.name,
                        slice_text(step.target), step.accumulate ? "+" : "-", slice_text(step.source));
  }
  text += "tensors: offset, bytes, steps\n";
  for (std::size_t i = 0; i < plan().tensors.size(); ++i) {
    const Tensor& tensor = plan().tensors[i];
    text += fmt::format("  t{:<4} {:>12} {:>12}  {:>4}..{:<4} {:<4} {}x{}x{}x{}  {}\n", i, tensor.offset,
                        tensor.bytes(), tensor.first, tensor.last, name_of(tensor.dtype), tensor.shape.n,
                        tensor.shape.h, tensor.shape.w, tensor.shape.c, tensor.name);
  }
  text += fmt::format("{} steps, {} tensors, arena {} bytes, {:.3f} x the most that is live at once\n",
                      plan().steps.size(), plan().tensors.size(), plan().arena.bytes,
                      static_cast<double>(plan().arena.bytes) / static_cast<double>(plan().arena.peak));
  return text;
}

std::vector<StepTime> Network::profile(std::span<const std::uint8_t> images, int repetitions) {
  using Clock = std::chrono::steady_clock;
  State& state = *state_;
  state.check_length(images);
  const ThreadCount threads(state.options.threads);
  std::vector<StepTime> times;
  for (std::size_t i = 0; i < state.plan.steps.size(); ++i) {
    times.push_back(state.describe(i));
    times.back().seconds = std::numeric_limits<double>::infinity();
  }
  for (int repetition = 0; repetition < repetitions; ++repetition)
    for (std::size_t i = 0; i < times.size(); ++i) {
      const auto begin = Clock::now();
      state.run_step(i, images.data());
      times[i].seconds = std::min(times[i].seconds, std::chrono::duration<double>(Clock::now() - begin).count());
    }
  return times;
}

std::int64_t Network::memory_bytes() const {
  std::int64_t bytes = plan().arena.bytes;
  for (const auto& convolution : state_->convolutions)
    if (convolution != nullptr) bytes += static_cast<std::int64_t>(convolution->weight_bytes());
  return bytes;
}

}  // namespace damoyolo::cpu
