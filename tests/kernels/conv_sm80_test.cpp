#include "kernels/conv_sm80.h"

#include "tests/kernels/conv_fixture.h"

namespace damoyolo::kernels {
namespace {

constexpr ConvUnderTest kKernel{conv_sm80_configs, conv_sm80_fits, conv_sm80_memory, launch_conv_sm80};

KERNEL_TEST_CASE("conv_sm80: every configuration gives every case's sums") {
  if (compute_capability() < 80) return test::skip("needs compute capability 8.0");
  for (const ConvCase& conv_case : kConvCases) {
    const ConvExample example(conv_case);
    for (const ConvConfig& config : conv_sm80_configs()) example.check(kKernel, config);
  }
}

}  // namespace
}  // namespace damoyolo::kernels
