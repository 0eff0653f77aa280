// What convolutions bring to the second-level cache for the next kernel, which only an emulation can count.
#include <doctest/doctest.h>
#include <tensor_core.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/conv_sm80.h"
#include "kernels/conv_sm90.h"
#include "tests/kernels/conv_fixture.h"

namespace damoyolo::kernels {
namespace {

TEST_CASE("simt: a convolution's blocks fetch all of what is next, and no byte twice, but no block a lot") {
  const auto check_fetched = [](const ConvExample& example, auto launch_conv, ConvConfig config) {
    CAPTURE(config.m);
    for (const std::size_t bytes : {0, 16, 2048, 2064, 100000, 1 << 18}) {
      const DeviceArray<std::byte> next(bytes);
      const DeviceTensor y = example.output();
      Convolution convolution = example.convolution(y);
      convolution.next = next.data();
      convolution.next_bytes = bytes;
      const std::size_t before = simt::prefetched_bytes();
      launch_conv(convolution, config, Stream{});
      CHECK(simt::prefetched_bytes() - before == bytes);
    }
  };
  const ConvExample example({.in = {3, 12, 20, 16}, .out_channels = 72});
  check_fetched(example, launch_conv_sm80, conv_sm80_configs().front());
  check_fetched(example, launch_conv_sm80, conv_sm80_configs().back());
  std::vector<ConvConfig> sm90;
  std::ranges::copy_if(conv_sm90_configs(), std::back_inserter(sm90),
                       [](const ConvConfig& config) { return config.columns == 8 && config.then == 0; });
  check_fetched(example, launch_conv_sm90, sm90.front());
  check_fetched(example, launch_conv_sm90, sm90.back());

  constexpr std::size_t kMostOfBlock = 256 * 1024;
  const ConvExample single({.in = {1, 4, 4, 16}, .out_channels = 16});
  const DeviceArray<std::byte> next(2 * kMostOfBlock);
  const DeviceTensor y = single.output();
  Convolution convolution = single.convolution(y);
  convolution.next = next.data();
  convolution.next_bytes = 2 * kMostOfBlock;
  const std::size_t before = simt::prefetched_bytes();
  launch_conv_sm80(convolution, conv_sm80_configs().front(), {});
  CHECK(simt::prefetched_bytes() - before == kMostOfBlock);
}

TEST_CASE("a convolution refuses a next that it could not fetch") {
  const ConvExample example({.in = {1, 4, 6, 16}, .out_channels = 24});
  const DeviceTensor y = example.output();
  const DeviceArray<std::byte> next(64);
  const auto refusal = [&](std::size_t offset, std::size_t bytes) -> std::string {
    Convolution convolution = example.convolution(y);
    convolution.next = next.data() + offset;
    convolution.next_bytes = bytes;
    try {
      launch_conv_sm80(convolution, conv_sm80_configs().front(), {});
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refusal(16, 48) == "");
  CHECK(refusal(8, 48) == "kernel conv_sm80 expects what is next at a multiple of 16 bytes");
  CHECK(refusal(0, 24) == "kernel conv_sm80 expects a multiple of 16 bytes that is next, below 2 GiB");
  CHECK(refusal(0, std::size_t{1} << 31) ==
        "kernel conv_sm80 expects a multiple of 16 bytes that is next, below 2 GiB");
}

}  // namespace
}  // namespace damoyolo::kernels
