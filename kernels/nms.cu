#include "kernels/nms.h"
#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "nms";
constexpr int kThreads = 512;
constexpr int kChunk = 64;  // candidates decided together: one bit each in a word

constexpr int kWords = kChunk / kLanes;

using Bits = unsigned long long;

__device__ __forceinline__ Bits joined(const unsigned (&words)[kWords]) { return Bits{words[1]} << 32 | words[0]; }

// Intersection over union above `threshold`, for boxes of one class; every step rounded by itself, as on the host.
__device__ __forceinline__ bool overlap(const Candidate& a, const Candidate& b, float threshold) {
  if (a.class_id != b.class_id) return false;
  const float width = fmaxf(__fsub_rn(fminf(a.box[2], b.box[2]), fmaxf(a.box[0], b.box[0])), 0.0f);
  const float height = fmaxf(__fsub_rn(fminf(a.box[3], b.box[3]), fmaxf(a.box[1], b.box[1])), 0.0f);
  const float both = __fmul_rn(width, height);
  const float area_a = __fmul_rn(__fsub_rn(a.box[2], a.box[0]), __fsub_rn(a.box[3], a.box[1]));
  const float area_b = __fmul_rn(__fsub_rn(b.box[2], b.box[0]), __fsub_rn(b.box[3], b.box[1]));
  return __fdiv_rn(both, __fsub_rn(__fadd_rn(area_a, area_b), both)) > threshold;
}

__device__ __forceinline__ float clamp_to(float value, float limit) { return fminf(fmaxf(value, 0.0f), limit); }

// A block decides one image, 64 candidates at a time in order of score: all threads compare them with the kept ones
// and with each other, then one thread goes down the survivors. It stops when enough are kept, so that a low
// threshold costs little when the image is full of objects. Floor: the chain of chunks, three barriers each.
__global__ void __launch_bounds__(kThreads)
    nms_kernel(CandidateList list, const DetectionParameters* parameters, const Image* images, float net_width,
               float net_height, Detection* detections, int* counts) {
  __shared__ Candidate kept[kMaxDetections];
  __shared__ Candidate chunk[kChunk];
  __shared__ unsigned dropped[kWords];             // bit i: chunk[i] overlaps one kept before
  __shared__ unsigned overlapped[kChunk][kWords];  // bit j of [i]: chunk[j], j > i, overlaps chunk[i]
  __shared__ Bits survivors;
  wait_for_predecessors();
  let_successors_start();
  const int thread = static_cast<int>(threadIdx.x), image = static_cast<int>(blockIdx.x);
  const float width = static_cast<float>(images[image].width), height = static_cast<float>(images[image].height);
  const float scale_x = width / net_width, scale_y = height / net_height;
  const float threshold = parameters->iou;
  const int limit = min(parameters->max_detections, kMaxDetections);
  const int count = images[image].width > 0 ? min(list.found[image], list.capacity) : 0;
  const Candidate* candidates = list.candidates + static_cast<std::size_t>(image) * list.capacity;
  detections += static_cast<std::size_t>(image) * kMaxDetections;

  int kept_count = 0;
  for (int first = 0; first < count && kept_count < limit; first += kChunk) {
    const int size = min(kChunk, count - first);
    if (thread < size) chunk[thread] = candidates[first + thread];
    if (thread < kWords) dropped[thread] = 0;
    __syncthreads();
    // A warp compares one box with 32 of the chunk: its lanes' answers are a word.
    for (int pair = thread; pair < kept_count * kChunk; pair += kThreads) {
      const int j = pair % kChunk;
      const unsigned bits = __ballot_sync(~0u, j < size && overlap(kept[pair / kChunk], chunk[j], threshold));
      if (bits != 0 && thread % kLanes == 0) atomicOr(&dropped[j / kLanes], bits);
    }
    for (int pair = thread; pair < size * kChunk; pair += kThreads) {
      const int i = pair / kChunk, j = pair % kChunk;
      const unsigned bits = __ballot_sync(~0u, i < j && j < size && overlap(chunk[i], chunk[j], threshold));
      if (thread % kLanes == 0) overlapped[i][j / kLanes] = bits;
    }
    __syncthreads();
    if (thread == 0) {
      Bits open = ~joined(dropped) & (~Bits{0} >> (kChunk - size));
      Bits taken = 0;
      for (int room = limit - kept_count; open != 0 && room > 0; --room) {
        const int best = __ffsll(static_cast<long long>(open)) - 1;
        taken |= Bits{1} << best;
        open &= ~(Bits{1} << best | joined(overlapped[best]));
      }
      survivors = taken;
    }
    __syncthreads();
    if (thread < size && survivors >> thread & 1) {
      const int place = kept_count + __popcll(survivors & ((Bits{1} << thread) - 1));
      const Candidate& candidate = chunk[thread];
      kept[place] = candidate;
      Detection& detection = detections[place];
      detection.box[0] = clamp_to(candidate.box[0] * scale_x, width);
      detection.box[1] = clamp_to(candidate.box[1] * scale_y, height);
      detection.box[2] = clamp_to(candidate.box[2] * scale_x, width);
      detection.box[3] = clamp_to(candidate.box[3] * scale_y, height);
      detection.score = candidate.score;
      detection.class_id = candidate.class_id;
    }
    kept_count += __popcll(survivors);
  }
  for (int i = kept_count + thread; i < kMaxDetections; i += kThreads) detections[i] = Detection{};
  if (thread == 0) counts[image] = kept_count;
}

}  // namespace

void launch_nms(const CandidateList& list, const DetectionParameters* parameters, const Image* images, int n,
                int net_width, int net_height, Detection* detections, int* counts, Stream stream) {
  require(list.candidates != nullptr && list.found != nullptr && list.capacity > 0, kName, "candidates");
  require(parameters != nullptr && images != nullptr, kName, "parameters and images");
  require(detections != nullptr && counts != nullptr, kName, "memory for detections");
  require(n > 0 && net_width > 0 && net_height > 0, kName, "a positive batch and network size");
  launch(kName, nms_kernel, {static_cast<unsigned>(n), kThreads}, stream, list, parameters, images,
         static_cast<float>(net_width), static_cast<float>(net_height), detections, counts);
}

}  // namespace damoyolo::kernels
