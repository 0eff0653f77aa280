// Whether tiles lie in shared memory so that ldmatrix meets no bank twice: nobody would see it in the results.
#include <doctest/doctest.h>

#include "kernels/conv_sm80.h"
#include "kernels/conv_sm90.h"
#include "tensor_core.h"
#include "tests/kernels/conv_pair_fixture.h"

namespace damoyolo::kernels {
namespace {

TEST_CASE("simt: conv_sm80 reads its tiles without bank conflicts") {
  const ConvExample example({.in = {1, 4, 9, 24}, .out_channels = 40});
  const DeviceTensor y = example.output();
  for (const ConvConfig& config : conv_sm80_configs()) {
    CAPTURE(example.describe(config));
    const std::size_t before = simt::bank_conflicts();
    launch_conv_sm80(example.convolution(y), config, {});
    CHECK(simt::bank_conflicts() == before);
  }
}

TEST_CASE("simt: conv_sm90 passes its output through shared memory without bank conflicts") {
  const ConvExample example({.in = {1, 4, 9, 24}, .out_channels = 40, .residual = ConvCase::Residual::Same});
  const DeviceTensor y = example.output();
  for (const ConvConfig& config : conv_sm90_configs()) {
    if (config.columns != 8 || config.then > 0) continue;
    CAPTURE(example.describe(config));
    const std::size_t before = simt::bank_conflicts();
    launch_conv_sm90(example.convolution(y), config, {});
    CHECK(simt::bank_conflicts() == before);
  }
}

TEST_CASE("simt: pairs of conv_sm90 pass both outputs through shared memory without bank conflicts") {
  const ConvPairExample example({.first = {.in = {1, 4, 9, 24}, .out_channels = 32}, .channels = 24});
  const DeviceTensor y = example.first_output(), z = example.output();
  for (const ConvConfig& config : conv_sm90_configs()) {
    if (config.columns != 8 || config.then == 0) continue;
    CAPTURE(describe(config));
    const std::size_t before = simt::bank_conflicts();
    launch_conv_sm90(example.convolution(y, z, true), config, {});
    CHECK(simt::bank_conflicts() == before);
  }
}

}  // namespace
}  // namespace damoyolo::kernels
