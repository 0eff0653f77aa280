// The innermost loop of all products of matrices here, where tests spend much of their time: it is compiled for speed,
// and without the sanitizers, which have seen its arguments where they are made.
#pragma once

namespace simt {

constexpr int kDepth = 16;  // of one step's products

// sums[columns] += a[kDepth] · b[kDepth][columns], one product of each sum after another. a's elements are `stride`
// apart.
void add_products(const float* a, int stride, const float* b, int columns, float* sums);

}  // namespace simt
