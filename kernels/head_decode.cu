#include "kernels/head.cuh"
#include "kernels/head_decode.h"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "head_decode";
constexpr unsigned kThreads = 256;

// A thread per score, in the order of the output. Floor: logits and scores once each over memory bandwidth.
__global__ void __launch_bounds__(kThreads) scores_kernel(HeadArguments head, float* scores, int items) {
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (item >= items) return;
  const int class_id = item % head.classes, anchor = item / head.classes % head.anchors;
  const int image = item / head.classes / head.anchors;
  const Cell cell = cell_of(head, anchor);
  scores[item] = sigmoid(head.cls[cell.level].pixel(image, cell.row, cell.column)[class_id]);
}

// A thread per coordinate, in the order of the output. Floor: bin logits and boxes once each over memory bandwidth.
__global__ void __launch_bounds__(kThreads) boxes_kernel(HeadArguments head, float* boxes, int items) {
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (item >= items) return;
  const int side = item % 4, anchor = item / 4 % head.anchors, image = item / 4 / head.anchors;
  boxes[item] = box_coordinate(head, image, cell_of(head, anchor), side);
}

}  // namespace

void launch_head_decode(const HeadView& head, float* scores, float* boxes, Stream stream) {
  const HeadArguments arguments = head_arguments(head, kName);
  require(scores != nullptr && boxes != nullptr, kName, "memory for scores and boxes");
  const std::int64_t anchors = std::int64_t{head.levels[0].cls.n} * arguments.anchors;
  const std::int64_t score_items = anchors * head.classes, box_items = anchors * 4;
  launch(kName, scores_kernel, {blocks_for(score_items, kThreads, kName), kThreads}, stream, arguments, scores,
         static_cast<int>(score_items));
  launch(kName, boxes_kernel, {blocks_for(box_items, kThreads, kName), kThreads}, stream, arguments, boxes,
         static_cast<int>(box_items));
}

}  // namespace damoyolo::kernels
