#include "engine/cuda/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/conv_problem.h"
#include "engine/cuda/conv_timing.h"
#include "engine/cuda/schedule.h"
#include "engine/cuda/time_shares.h"
#include "engine/cuda/timing.h"
#include "engine/detection.h"
#include "kernels/epilogue.h"
#include "kernels/head_decode.h"
#include "kernels/nms.h"
#include "kernels/preprocess.h"
#include "kernels/spp_pool.h"
#include "kernels/upsample.h"

namespace damoyolo::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::size_t bytes, std::size_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Working memory of the candidates, largest alignment first.
struct CandidateMemory {
  CandidateMemory(int batch, int capacity)
      : candidates(static_cast<std::size_t>(batch) * static_cast<std::size_t>(capacity) * sizeof(std::uint64_t)),
        found(candidates +
              static_cast<std::size_t>(batch) * static_cast<std::size_t>(capacity) * sizeof(kernels::Candidate)),
        bytes(found + static_cast<std::size_t>(batch) * sizeof(int)) {}
  std::size_t keys = 0, candidates, found, bytes;
};

// The weights with zeros for input channels that only the kernel has.
ConvWeights with_input_channels(ConvWeights weights, int from, int to, int taps) {
  if (from == to) return weights;
  const std::size_t row = static_cast<std::size_t>(from) * static_cast<std::size_t>(taps);
  const std::size_t wide_row = static_cast<std::size_t>(to) * static_cast<std::size_t>(taps);
  std::vector<float> wide(weights.weight.size() / row * wide_row, 0.f);
  for (std::size_t out = 0; out * row < weights.weight.size(); ++out)
    std::copy_n(weights.weight.begin() + static_cast<std::ptrdiff_t>(out * row), row,
                wide.begin() + static_cast<std::ptrdiff_t>(out * wide_row));
  weights.weight = std::move(wide);
  return weights;
}

}  // namespace

DetectInput::DetectInput(int batch, int class_count)
    : parameters(aligned(static_cast<std::size_t>(batch) * sizeof(kernels::Image), 16)),
      classes(parameters + sizeof(kernels::DetectionParameters)),
      bytes(classes + static_cast<std::size_t>(class_count)) {}

DetectOutput::DetectOutput(int batch)
    : counts(static_cast<std::size_t>(batch) * kMaxDetections * sizeof(Detection)),
      bytes(counts + static_cast<std::size_t>(batch) * sizeof(int)) {}

Network::Network(Runtime& runtime, std::span<const StreamHandle> streams, Graph graph, const HeadSpec& head,
                 const TensorLookup& lookup, const KernelChooser& choose, const NetworkOptions& options)
    : runtime_(runtime),
      streams_(streams.begin(), streams.end()),
      graph_(std::move(graph)),
      head_(head),
      options_(options),
      plan_(lower(graph_, options.plan)) {
  if (!options.plan.joined.empty())
    throw Error("a network was given {} pairs of convolutions, expected none: its kernels decide which there are",
                options.plan.joined.size());
  choose_kernels(lookup, choose);
  if (options.overlap) overlap_ = overlapping_steps(plan_);
  events_ = make_events(plan_, runtime);
  const Shape image = graph_.value(graph_.input).shape;
  for (std::size_t i = 0; i < plan_.steps.size(); ++i)
    if (convolutions_[i] != nullptr)
      add_workspace(plan_, i, static_cast<std::int64_t>(convolutions_[i]->workspace_bytes()));
  std::size_t input_bytes = static_cast<std::size_t>(image.elements()), output_bytes = 0;
  if (options_.task == Task::Detect) {
    const CandidateMemory candidates(image.n, options_.max_candidates);
    add_workspace(plan_, plan_.steps.size() - 1, static_cast<std::int64_t>(candidates.bytes));
    input_bytes = DetectInput(image.n, head_.classes).bytes;
    output_bytes = DetectOutput(image.n).bytes;
  } else {
    for (const HeadViews& level : plan_.head)
      output_bytes += static_cast<std::size_t>(level.cls.shape.pixels()) *
                      static_cast<std::size_t>(head_.classes + 4) * sizeof(float);
  }
  lay_out(plan_);

  const std::size_t arena = aligned(static_cast<std::size_t>(plan_.arena.bytes));
  const std::size_t bytes = arena + aligned(input_bytes) + aligned(output_bytes);
  memory_ = device_memory(runtime_, bytes);
  input_ = {memory_.get() + arena, input_bytes};
  output_ = {memory_.get() + arena + aligned(input_bytes), output_bytes};
  runtime_.fill_zero(memory_.get(), bytes, streams_[0]);

  if (!options_.capture) return;
  // Kernels and libraries load what they need when they first run, which a capture would not allow. No image is
  // there yet: nothing is found, whatever the network computes.
  enqueue();
  runtime_.synchronize(streams_[0]);
  captured_ = capture_graph(runtime_, streams_[0], [this] { enqueue(); });
}

Network::~Network() {
  try {
    runtime_.make_current();
    for (const StreamHandle stream : streams_) runtime_.synchronize(stream);  // a run that failed joined none
  } catch (const Error&) {  // the work has failed, and nothing uses the memory any more
  }
}

// Each convolution by itself, then those pairs in one launch that are better for it, which makes another plan. Their
// views are the same in every plan, so that all other kernels stay.
void Network::choose_kernels(const TensorLookup& lookup, const KernelChooser& choose) {
  std::vector<std::unique_ptr<ConvKernel>> kernels(graph_.nodes.size());  // by node; of a pair by its first
  for (const Step& step : plan_.steps)
    if (step.kind == StepKind::Conv)
      kernels[static_cast<std::size_t>(step.node)] =
          choose.one(name_of(step, graph_), conv_problem(graph_, step, options_.allow_tf32), weights_of(step, lookup));
  if (choose.pair && !options_.plan.keep_values)
    plan_ = lower_joining(graph_, options_.plan, [&](const Step& step) {
      const auto first = static_cast<std::size_t>(step.node), second = static_cast<std::size_t>(step.then);
      try {
        auto kernel = choose.pair({name_of(step, graph_),
                                   conv_problem(graph_, step, options_.allow_tf32),
                                   weights_of(step, lookup),
                                   {kernels[first].get(), kernels[second].get()}});
        if (kernel == nullptr) return false;
        kernels[first] = std::move(kernel);
        return true;
      } catch (const OutOfDeviceMemory&) {  // their own are there
        return false;
      }
    });
  for (const Step& step : plan_.steps)
    convolutions_.push_back(step.kind == StepKind::Conv ? std::move(kernels[static_cast<std::size_t>(step.node)])
                                                        : nullptr);
}

void Network::run() {
  if (captured_ != nullptr)
    runtime_.launch(captured_.get(), streams_[0]);
  else
    enqueue();
}

void Network::enqueue() {
  enqueue_steps(plan_, runtime_, streams_, events_, overlap_, [this](std::size_t position, kernels::Stream stream) {
    try {
      enqueue_step(position, stream, options_.fetch_ahead ? weights_after(position) : DeviceBytes{});
    } catch (const OutOfDeviceMemory&) {
      throw;
    } catch (const Error& error) {
      throw Error("{} by {}: {}", name_of(plan_.steps[position], graph_), kernel_name(position), error.what());
    }
  });
}

void Network::enqueue_step(std::size_t position, kernels::Stream stream, DeviceBytes next) {
  const Step& step = plan_.steps[position];
  switch (step.kind) {
    case StepKind::Pixels: {
      const bool focus = graph_.nodes[static_cast<std::size_t>(step.node)].space_to_depth;
      const kernels::PixelLayout layout = focus ? kernels::PixelLayout::SpaceToDepth : kernels::PixelLayout::Rgb;
      if (options_.task == Task::Detect)
        kernels::launch_preprocess(reinterpret_cast<const kernels::Image*>(input_.data()), tensor(step.out), layout,
                                   stream);
      else
        kernels::launch_cast(reinterpret_cast<const std::uint8_t*>(input_.data()), tensor(step.out), layout, stream);
      break;
    }
    case StepKind::Conv: {
      ConvPointers pointers = pointers_of(step);
      pointers.next = next;
      convolutions_[position]->run(pointers, stream);
      break;
    }
    case StepKind::SppPool: kernels::launch_spp_pool(tensor(step.in), tensor(step.out), stream); break;
    case StepKind::Upsample:
      kernels::launch_upsample(tensor(step.in), {}, tensor(step.out), Activation::None, stream);
      break;
    case StepKind::Convert: kernels::launch_epilogue(tensor(step.in), tensor(step.out), {}, stream); break;
    case StepKind::Finish: enqueue_results(step, stream); break;
  }
}

void Network::enqueue_results(const Step& step, kernels::Stream stream) {
  const Shape image = graph_.value(graph_.input).shape;
  kernels::HeadView head;
  for (std::size_t i = 0; i < plan_.head.size(); ++i)
    head.levels[i] = {tensor(plan_.head[i].cls), tensor(plan_.head[i].reg), graph_.head[i].stride};
  head.classes = head_.classes;
  head.reg_max = head_.reg_max;
  if (options_.task == Task::Forward) {
    auto* scores = reinterpret_cast<float*>(output_.data());
    const std::int64_t anchors = std::int64_t{image.n} * kernels::anchors_of(head);
    kernels::launch_head_decode(head, scores, scores + anchors * head_.classes, stream);
    return;
  }
  std::byte* const workspace = memory_.get() + plan_.region(step.workspace).offset;
  const CandidateMemory at(image.n, options_.max_candidates);
  const kernels::CandidateList list{
      options_.max_candidates, reinterpret_cast<kernels::Candidate*>(workspace + at.candidates),
      reinterpret_cast<int*>(workspace + at.found), reinterpret_cast<std::uint64_t*>(workspace + at.keys)};
  const DetectInput in(image.n, head_.classes);
  const DetectOutput out(image.n);
  const auto* parameters = reinterpret_cast<const kernels::DetectionParameters*>(input_.data() + in.parameters);
  // Begins with a memset, which waits for everything before it; the kernels after that wait for each other alone.
  stream.overlap = options_.overlap;
  kernels::launch_candidates(head, parameters, list, stream);
  kernels::launch_nms(list, parameters, reinterpret_cast<const kernels::Image*>(input_.data() + in.images), image.n,
                      image.w, image.h, reinterpret_cast<Detection*>(output_.data() + out.detections),
                      reinterpret_cast<int*>(output_.data() + out.counts), stream);
}

void* Network::address(const View& view) const {
  if (view.region == kNone) return nullptr;
  return memory_.get() + plan_.region(view.region).offset +
         static_cast<std::size_t>(view.channel_offset) * size_of(view.type);
}

ConvPointers Network::pointers_of(const Step& step) const {
  void* workspace = step.workspace == kNone ? nullptr : memory_.get() + plan_.region(step.workspace).offset;
  return {address(step.in), address(step.out), address(step.residual), workspace, {}, address(step.then_out)};
}

DeviceBytes Network::weights_after(std::size_t position) const {
  const auto next = std::find_if(convolutions_.begin() + static_cast<std::ptrdiff_t>(position) + 1,
                                 convolutions_.end(), [](const auto& kernel) { return kernel != nullptr; });
  return next == convolutions_.end() ? DeviceBytes{} : (*next)->weights();
}

ConvWeights Network::weights_of(const Step& step, const TensorLookup& lookup) const {
  const Node& node = graph_.nodes[static_cast<std::size_t>(step.node)];
  ConvWeights weights = with_input_channels(gather_weights(graph_, node, lookup, step.in.type),
                                            graph_.value(node.inputs[0]).shape.c / node.groups,
                                            step.in.shape.c / node.groups, node.kernel * node.kernel);
  if (step.then == kNone) return weights;
  const Node& then = graph_.nodes[static_cast<std::size_t>(step.then)];
  ConvWeights behind = gather_weights(graph_, then, lookup, step.out.type);
  weights.then_weight = std::move(behind.weight);
  weights.then_bias = std::move(behind.bias);
  return weights;
}

kernels::TensorView Network::tensor(const View& view) const {
  return {memory_.get() + plan_.region(view.region).offset,
          view.type,
          view.shape.n,
          view.shape.h,
          view.shape.w,
          view.shape.c,
          view.pixel_stride,
          view.channel_offset};
}

std::string Network::kernel_name(std::size_t position) const {
  const bool detect = options_.task == Task::Detect;
  switch (plan_.steps[position].kind) {
    case StepKind::Pixels: return detect ? "preprocess" : "cast";
    case StepKind::Conv: return convolutions_[position]->name();
    case StepKind::SppPool: return "spp_pool";
    case StepKind::Upsample: return "upsample";
    case StepKind::Convert: return "convert";
    case StepKind::Finish: return detect ? "candidates, nms" : "head_decode";
  }
  return {};
}

StepTime Network::describe(std::size_t position) const {
  const Step& step = plan_.steps[position];
  StepTime result;
  result.kernel = kernel_name(position);
  result.operation = step.kind == StepKind::Conv ? "conv" : result.kernel;
  result.stream = step.stream;
  result.in = step.in.shape;
  result.out = step.then == kNone ? step.out.shape : step.then_out.shape;
  result.bytes = bytes_moved(step, graph_);
  result.node = name_of(step, graph_);
  if (step.kind == StepKind::Finish) {
    const bool all = options_.task == Task::Forward;  // detecting reads the boxes of a few and writes fewer
    std::int64_t read = 0;
    for (const HeadViews& level : plan_.head)
      read += level.cls.shape.elements() + (all ? level.reg.shape.elements() : 0);
    result.bytes += read * static_cast<std::int64_t>(sizeof(float));
    if (all) result.bytes += static_cast<std::int64_t>(output_.size());
    return result;
  }
  if (step.kind == StepKind::Pixels) {
    result.in = graph_.value(graph_.input).shape;
    result.bytes += result.in.elements();
  }
  if (step.kind != StepKind::Conv) return result;
  const Node& node = graph_.nodes[static_cast<std::size_t>(step.node)];
  result.kernel_size = node.kernel;
  result.stride = node.stride;
  result.groups = node.groups;
  result.pair = step.then != kNone;
  result.flops = flops(step, graph_);
  return result;
}

std::vector<StepTime> Network::profile(int repetitions, const TensorLookup& lookup, const CandidateSource& candidates,
                                       double seconds) {
  TimeShares shares(seconds, std::ranges::count(plan_.steps, StepKind::Conv, &Step::kind));
  std::vector<StepTime> times;
  for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    StepTime time = describe(i);
    time.seconds = least_seconds(runtime_, streams_[0], static_cast<std::size_t>(repetitions),
                                 [&](std::size_t) { enqueue_step(i, {streams_[0]}); });
    if (step.kind == StepKind::Conv && candidates) {
      const ConvProblem problem = conv_problem(graph_, step, options_.allow_tf32);
      TimingOptions timing;
      timing.deadline = shares.next_deadline();
      for (const CandidateTime& candidate : time_candidates(
               runtime_, streams_[0], problem, in_turn(candidates(problem)), weights_of(step, lookup), timing)) {
        if (candidate.error.empty()) time.candidates.push_back({candidate.name, candidate.seconds});
        if (!candidate.had_turn) ++time.without_turn;
      }
      std::ranges::stable_sort(time.candidates, {}, &KernelTime::seconds);
    }
    times.push_back(std::move(time));
  }
  return times;
}

RunTimes Network::time(int runs) {
  const StreamHandle stream = streams_[0];
  std::vector<Owned<CUevent_st>> ends;
  for (int i = 0; i <= runs; ++i) ends.push_back(make_event(runtime_, true));
  run();
  runtime_.synchronize(stream);
  RunTimes times;
  for (int i = 0; i < runs; ++i) {
    runtime_.record(ends[0].get(), stream);
    run();
    runtime_.record(ends[1].get(), stream);
    runtime_.synchronize(ends[1].get());
    times.alone.push_back(runtime_.seconds_between(ends[0].get(), ends[1].get()));
  }
  runtime_.record(ends[0].get(), stream);
  for (std::size_t i = 1; i < ends.size(); ++i) {
    run();
    runtime_.record(ends[i].get(), stream);
  }
  runtime_.synchronize(ends.back().get());
  for (std::size_t i = 1; i < ends.size(); ++i)
    times.back_to_back.push_back(runtime_.seconds_between(ends[i - 1].get(), ends[i].get()));
  return times;
}

std::vector<float> Network::read(ValueId id) {
  const View& view = plan_.values[static_cast<std::size_t>(id)];
  const Region& region = plan_.region(view.region);
  const Shape shape = graph_.value(id).shape;
  std::vector<std::byte> bytes(static_cast<std::size_t>(region.bytes));
  runtime_.copy(bytes.data(), memory_.get() + region.offset, bytes.size(), streams_[0]);
  runtime_.synchronize(streams_[0]);
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(shape.elements()));
  for (std::int64_t pixel = 0; pixel < shape.pixels(); ++pixel)
    for (int c = 0; c < shape.c; ++c) {
      const auto at = static_cast<std::size_t>(pixel * view.pixel_stride + view.channel_offset + c);
      values.push_back(element_as_float(bytes.data() + at * size_of(view.type), view.type));
    }
  return values;
}

std::string Network::plan_text() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < plan_.steps.size(); ++i) names.push_back(kernel_name(i));
  return to_text(plan_, graph_, names) +
         fmt::format("input {} bytes, output {} bytes\n", input_.size(), output_.size());
}

}  // namespace damoyolo::cuda
