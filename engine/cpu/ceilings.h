// The processor's ceilings.
#pragma once

#include "engine/ceilings.h"

namespace damoyolo::cpu {

// With that many threads (0: as many as the process may use). Takes about a second and, for that time, half a
// gigabyte.
Ceilings measure_ceilings(int threads);

}  // namespace damoyolo::cpu
