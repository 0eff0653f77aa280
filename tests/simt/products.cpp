#include "products.h"

__attribute__((no_sanitize("address", "undefined"))) void simt::add_products(const float* a, int stride,
                                                                             const float* b, int columns,
                                                                             float* sums) {
  for (int k = 0; k < kDepth; ++k)
    for (int column = 0; column < columns; ++column) sums[column] += a[k * stride] * b[k * columns + column];
}
