#include "kernels/head.cuh"
#include "kernels/head_decode.h"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "head_decode";
constexpr int kThreads = 256;
constexpr int kAnchors = kThreads / 4;  // of a block that makes boxes

// A thread makes four scores of one anchor (16 bytes), in the order of the output; a row of the grid is an image.
// Floor: logits and scores once each over memory bandwidth.
__global__ void __launch_bounds__(kThreads) scores_kernel(HeadArguments head, float* scores, bool aligned, int items) {
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), image = static_cast<int>(blockIdx.y);
  if (item >= items) return;
  ClassGroup group = load_class_group(head, image, item);
#pragma unroll
  for (float& value : group.logits) value = sigmoid(value);
  const std::size_t anchor = static_cast<std::size_t>(image) * head.anchors + group.anchor;
  store(scores + anchor * head.classes + group.first, group.count, aligned, group.logits);
}

// A thread makes one coordinate, in the order of the output; a row of the grid is an image. The block first brings the
// logits of its anchors into shared memory, 16 bytes at a time, neighbours by neighbouring threads: there a
// coordinate's bins are read one by one, and an odd number of them without bank conflicts. Floor: bin logits and boxes
// once each over memory bandwidth.
__global__ void __launch_bounds__(kThreads) boxes_kernel(HeadArguments head, float* boxes) {
  float* logits = dynamic_shared<float>();
  wait_for_predecessors();
  let_successors_start();
  const int thread = static_cast<int>(threadIdx.x), image = static_cast<int>(blockIdx.y);
  const int first = static_cast<int>(blockIdx.x) * kAnchors, anchors = min(kAnchors, head.anchors - first);
  // An anchor has 4 · bins logits: as many groups of four as bins.
  for (int group = thread; group < anchors * head.bins; group += kThreads) {
    const int anchor = head.by_bins.divide(group);
    const Cell cell = cell_of(head, first + anchor);
    const Slice<const float>& reg = head.reg[cell.level];
    float values[4];
    load(reg.pixel(image, cell.row, cell.column) + 4 * (group - anchor * head.bins), 4, reg.aligned, values);
    store(logits + 4 * group, 4, true, values);
  }
  __syncthreads();
  if (thread >= 4 * anchors) return;
  const Cell cell = cell_of(head, first + thread / 4);
  boxes[(static_cast<std::size_t>(image) * head.anchors + first) * 4 + thread] =
      box_coordinate(head, cell, thread % 4, logits + thread * head.bins);
}

}  // namespace

void launch_head_decode(const HeadView& head, float* scores, float* boxes, Stream stream) {
  const HeadArguments arguments = head_arguments(head, kName);
  require(scores != nullptr && boxes != nullptr, kName, "memory for scores and boxes");
  const auto batch = static_cast<unsigned>(head.levels[0].cls.n);
  const std::int64_t score_items = std::int64_t{arguments.anchors} * arguments.class_groups;
  const bool aligned = is_aligned(scores) && head.classes % kClassesPerThread == 0;
  launch(kName, scores_kernel, {dim3(blocks_for(score_items, kThreads, kName), batch), kThreads}, stream, arguments,
         scores, aligned, static_cast<int>(score_items));
  launch(kName, boxes_kernel,
         {dim3(blocks_for(arguments.anchors, kAnchors, kName), batch), kThreads,
          sizeof(float) * kThreads * static_cast<std::size_t>(arguments.bins)},
         stream, arguments, boxes);
}

}  // namespace damoyolo::kernels
