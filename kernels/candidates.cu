#include <bit>

#include "kernels/candidates.h"
#include "kernels/head.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kFind[] = "find_candidates";
constexpr char kSort[] = "sort_candidates";
constexpr char kDecode[] = "decode_candidates";
constexpr int kThreads = 256;
constexpr int kSortThreads = 512;

// A candidate as a number: smaller is better. The high half is the complement of the score's bits, which rise with
// the score because it is not negative; the low half is anchor·classes + class, so that no two are equal.
using Key = std::uint64_t;
constexpr Key kNoKey = ~Key{0};

__device__ __forceinline__ Key key_of(const HeadArguments& head, const DetectionParameters& parameters, float logit,
                                      int anchor, int class_id) {
  const float score = sigmoid(logit);
  if (!(score > parameters.confidence)) return kNoKey;
  if (parameters.wanted_classes != nullptr && parameters.wanted_classes[class_id] == 0) return kNoKey;
  return static_cast<Key>(~__float_as_uint(score)) << 32 | static_cast<unsigned>(anchor * head.classes + class_id);
}

// Logits are NHWC. A thread looks at four classes of one anchor (16 bytes); a warp reserves room for what its lanes
// found with one atomic addition, so keys lie in any order and the sort gives them one. Floor: the class logits once
// over memory bandwidth.
__global__ void __launch_bounds__(kThreads)
    find_candidates_kernel(HeadArguments head, const DetectionParameters* parameters, CandidateList list, int items) {
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int image = static_cast<int>(blockIdx.y);
  Key keys[kClassesPerThread] = {kNoKey, kNoKey, kNoKey, kNoKey};
  if (item < items) {
    const ClassGroup group = load_class_group(head, image, item);
#pragma unroll
    for (int i = 0; i < kClassesPerThread; ++i)
      if (i < group.count) keys[i] = key_of(head, *parameters, group.logits[i], group.anchor, group.first + i);
  }
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll
  for (int i = 0; i < kClassesPerThread; ++i) {
    const unsigned finders = __ballot_sync(~0u, keys[i] != kNoKey);
    if (finders == 0) continue;
    int first = 0;
    if (lane == 0) first = atomicAdd(list.found + image, __popc(finders));
    const int place = __shfl_sync(~0u, first, 0) + __popc(finders & ((1u << lane) - 1));
    if (keys[i] != kNoKey && place < list.capacity)
      list.keys[static_cast<std::size_t>(image) * list.capacity + place] = keys[i];
  }
}

// Calls visit(key) for the thread's share of all candidates of the image.
template <typename Visit>
__device__ void visit_candidates(const HeadArguments& head, const DetectionParameters& parameters, int image,
                                 Visit visit) {
  for (int item = static_cast<int>(threadIdx.x); item < head.anchors * head.classes; item += kSortThreads) {
    const int anchor = head.by_classes.divide(item), class_id = item - anchor * head.classes;
    const Cell cell = cell_of(head, anchor);
    const float logit = head.cls[cell.level].pixel(image, cell.row, cell.column)[class_id];
    const Key key = key_of(head, parameters, logit, anchor, class_id);
    if (key != kNoKey) visit(key);
  }
}

// The `wanted`-th smallest key: eight digits of eight bits from the top, each chosen by counting the keys that begin
// with the digits before it.
__device__ Key find_cut(const HeadArguments& head, const DetectionParameters& parameters, int image, int wanted) {
  __shared__ int counts[256];
  __shared__ int digit, before;
  Key cut = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < 256; i += kSortThreads) counts[i] = 0;
    __syncthreads();
    visit_candidates(head, parameters, image, [&](Key key) {
      if (shift == 56 || (key ^ cut) >> (shift + 8) == 0) atomicAdd(&counts[key >> shift & 255], 1);
    });
    __syncthreads();
    if (threadIdx.x == 0) {
      before = 0;
      for (digit = 0; digit < 255 && before + counts[digit] < wanted; ++digit) before += counts[digit];
    }
    __syncthreads();
    wanted -= before;
    cut |= static_cast<Key>(digit) << shift;
    __syncthreads();
  }
  return cut;
}

// A block sorts the keys of one image in shared memory, bitonically, padded to the next power of two. When more were
// found than fit, it first goes over all logits again for the best `capacity` keys: slow (eight times the class logits
// through one multiprocessor), but only thresholds near zero lead there. A warp's pairs lie in 64 neighbouring keys as
// long as they are at most 32 apart, so that these steps need no other warp. Floor: a launch and the barriers of the
// others, log²(count/32)/2.
__global__ void __launch_bounds__(kSortThreads)
    sort_candidates_kernel(HeadArguments head, const DetectionParameters* parameters, CandidateList list) {
  __shared__ int kept;
  Key* keys = dynamic_shared<Key>();
  wait_for_predecessors();
  let_successors_start();
  const int thread = static_cast<int>(threadIdx.x), image = static_cast<int>(blockIdx.x);
  const int count = min(list.found[image], list.capacity);
  Key* stored = list.keys + static_cast<std::size_t>(image) * list.capacity;
  int size = 1;
  while (size < count) size *= 2;

  for (int i = thread; i < size; i += kSortThreads) keys[i] = i < count ? stored[i] : kNoKey;
  if (list.found[image] > list.capacity) {
    const Key cut = find_cut(head, *parameters, image, list.capacity);
    if (thread == 0) kept = 0;
    __syncthreads();
    visit_candidates(head, *parameters, image, [&](Key key) {
      if (key <= cut) keys[atomicAdd(&kept, 1)] = key;
    });
  }
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int pair = thread; pair < size / 2; pair += kSortThreads) {
        const int low = 2 * pair - (pair & (distance - 1)), high = low + distance;
        const bool rising = (low & run) == 0;
        const Key a = keys[low], b = keys[high];
        if ((a > b) == rising) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      // The next step's distance is half of this one's or, in the next run, the length of this run.
      if (distance > kLanes || (distance == 1 && run > kLanes))
        __syncthreads();
      else
        __syncwarp();
    }
  }
  for (int i = thread; i < count; i += kSortThreads) stored[i] = keys[i];
}

// A thread makes one coordinate of one candidate. Floor: the bin logits of the candidates and a launch.
__global__ void __launch_bounds__(kThreads) decode_candidates_kernel(HeadArguments head, CandidateList list) {
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), image = static_cast<int>(blockIdx.y);
  const int index = item / 4, side = item % 4;
  if (index >= min(list.found[image], list.capacity)) return;
  const std::size_t place = static_cast<std::size_t>(image) * list.capacity + index;
  const Key key = list.keys[place];
  const int position = static_cast<int>(key & 0xffffffffu), anchor = head.by_classes.divide(position);
  const Cell cell = cell_of(head, anchor);
  Candidate& candidate = list.candidates[place];
  const float* logits = head.reg[cell.level].pixel(image, cell.row, cell.column) + side * head.bins;
  candidate.box[side] = box_coordinate(head, cell, side, logits);
  if (side == 0) {
    candidate.score = __uint_as_float(~static_cast<unsigned>(key >> 32));
    candidate.class_id = position - anchor * head.classes;
  }
}

}  // namespace

void launch_candidates(const HeadView& head, const DetectionParameters* parameters, const CandidateList& list,
                       Stream stream) {
  const HeadArguments arguments = head_arguments(head, kFind);
  require(parameters != nullptr, kFind, "parameters");
  require(list.candidates != nullptr && list.found != nullptr && list.keys != nullptr, kFind, "memory for candidates");
  require(list.capacity > 0 && list.capacity <= kMaxCandidates &&
              std::has_single_bit(static_cast<unsigned>(list.capacity)),
          kFind, "a capacity that is a power of two and at most 8192");
  blocks_for(std::int64_t{arguments.anchors} * head.classes, kThreads, kFind);  // keys number them in 31 bits
  const auto batch = static_cast<unsigned>(head.levels[0].cls.n);
  const std::int64_t items = std::int64_t{arguments.anchors} * arguments.class_groups;

  check(cudaMemsetAsync(list.found, 0, batch * sizeof(int), stream.handle), kFind);
  const Stream after_memset{stream.handle, false};
  launch(kFind, find_candidates_kernel, {dim3(blocks_for(items, kThreads, kFind), batch), kThreads}, after_memset,
         arguments, parameters, list, static_cast<int>(items));
  launch(kSort, sort_candidates_kernel, {batch, kSortThreads, list.capacity * sizeof(Key)}, stream, arguments,
         parameters, list);
  launch(kDecode, decode_candidates_kernel,
         {dim3(blocks_for(std::int64_t{list.capacity} * 4, kThreads, kDecode), batch), kThreads}, stream, arguments,
         list);
}

}  // namespace damoyolo::kernels
