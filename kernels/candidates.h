// The scores above the threshold, best first, with their boxes.
#pragma once

#include "kernels/head.h"

namespace damoyolo::kernels {

constexpr int kMaxCandidates =
    8192;  // per image; half of it on compute capability 7.5, whose shared memory is smaller

struct Candidate {
  float box[4];  // left, top, right, bottom in network pixels
  float score;
  int class_id;
};

// Device memory that launch_candidates fills for each of n images.
struct CandidateList {
  int capacity = 0;                 // per image, a power of two, at most kMaxCandidates
  Candidate* candidates = nullptr;  // [n, capacity]; image i has the first min(found[i], capacity)
  int* found = nullptr;             // [n]: scores above the threshold, also when they are more than capacity
  std::uint64_t* keys = nullptr;    // [n, capacity], workspace
};

// Every (anchor, class) with a wanted class and a score above the threshold, sorted by falling score, equal scores by
// rising anchor, then class. When there are more than the capacity, the first in this order are kept. The bytes of the
// valid candidates depend on nothing but the input. parameters: one, on the device.
void launch_candidates(const HeadView& head, const DetectionParameters* parameters, const CandidateList& list,
                       Stream stream);

}  // namespace damoyolo::kernels
