// Greedy non-maximum suppression, class by class.
#pragma once

#include <vector>

#include "engine/decode.h"

namespace damoyolo {

// Returns at most `max_keep` candidates by descending score, none of which has IoU > `iou` with a better one of its
// class. Equal scores: the lower anchor first, then the lower class, so the result does not depend on the input's
// order.
std::vector<Candidate> non_maximum_suppression(std::vector<Candidate> candidates, float iou, int max_keep);

}  // namespace damoyolo
