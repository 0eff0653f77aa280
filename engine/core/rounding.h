// Weights in 16 bits where it matters how they are rounded.
#pragma once

#include <span>

namespace damoyolo {

// Rounds each row of `row` values to bf16 so that its sum stays what it is, up to the rounding of its smallest value.
// No value moves by more than a unit in the last place of the next larger one. For filters of pixels: those are a
// large mean and small differences from it, so that what a sum loses by rounding to nearest is multiplied by the mean,
// and can be most of an output's error. Rows that are not finite are rounded to nearest. Throws Error unless the
// values are whole rows.
void round_keeping_sums(std::span<float> values, std::size_t row);

}  // namespace damoyolo
