#include "kernels/conv_sm80.h"

#include "tests/case_for_each.h"
#include "tests/kernels/conv_fixture.h"

namespace damoyolo::kernels {
namespace {

constexpr ConvUnderTest kKernel{conv_sm80_configs, conv_sm80_fits, conv_sm80_memory, launch_conv_sm80, kMaxConvSplit};

const std::vector<ConvTile> kTiles = conv_tiles(conv_sm80_configs());

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm80 " + tile.name() + ": every case's sums") {
  if (!can_run(80)) return;
  check_cases(kKernel, tile, 1, [](const ConvCase& test) { return test.split == 1; });
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm80 " + tile.name() + ": sums that blocks share") {
  if (!can_run(80)) return;
  check_cases(kKernel, tile, 1, [](const ConvCase& test) { return test.split > 1; });
}

KERNEL_TEST_CASE("conv_sm80 takes what its kernels are compiled for") {
  const ConvExample example({.in = {1, 4, 6, 16}, .out_channels = 24});
  const DeviceTensor y = example.output();
  const ConvConfig config = conv_sm80_configs().front();
  const auto fits = [&](auto change) {
    Convolution convolution = example.convolution(y);
    ConvConfig changed = config;
    change(convolution, changed);
    return conv_sm80_fits(convolution, changed);
  };
  CHECK(fits([](Convolution&, ConvConfig&) {}));
  CHECK(fits([](Convolution& c, ConvConfig&) { c.x.data = c.y.data = nullptr; }));
  CHECK(fits([](Convolution&, ConvConfig& config) { config.split = kMaxConvSplit; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.split = kMaxConvSplit + 1; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.split = 0; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { ++config.stages; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.columns = 16; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.x.c = 12; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.then.y = c.y; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.keep = false; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.kernel = 5; }));
  // Tiles of 32 pixels would be more than a grid can have, those of 256 not.
  const auto large = [&](const ConvConfig& config) {
    return fits([&](Convolution& c, ConvConfig& changed) {
      c.x.n = c.y.n = 32;
      c.x.h = c.x.w = c.y.h = c.y.w = 320;
      changed = config;
    });
  };
  CHECK(large(conv_sm80_configs().front()));
  CHECK_FALSE(large(conv_sm80_configs().back()));
}

KERNEL_TEST_CASE("conv_sm80 refuses what does not fit") {
  const ConvExample example({.in = {1, 4, 6, 16}, .out_channels = 24});
  const DeviceTensor y = example.output(), other(DType::BF16, {1, 4, 3, 24}, {}, 1);
  const ConvConfig config = conv_sm80_configs().front();
  ConvConfig halves = config;
  halves.split = 2;
  const auto refusal = [&](auto change, int split = 1) -> std::string {
    Convolution convolution = example.convolution(y);
    ConvConfig changed = config;
    changed.split = split;
    change(convolution);
    try {
      launch_conv_sm80(convolution, changed, {});
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  const auto nothing = [](Convolution&) {};
  CHECK(refusal(nothing, 17) == "kernel conv_sm80 expects one of its configurations");
  CHECK(refusal(nothing, 2) == "kernel conv_sm80 expects a workspace at a multiple of 256 bytes for a split");
  const DeviceArray<std::byte> workspace(conv_sm80_memory(example.convolution(y), halves).workspace_bytes);
  CHECK(refusal([&](Convolution& c) { c.workspace = workspace.data(); }, 2) ==
        "kernel conv_sm80 expects tickets for a split");
  CHECK(refusal([](Convolution& c) { c.stride = 3; }) == "kernel conv_sm80 expects a stride of 1 or 2");
  CHECK(refusal([](Convolution& c) { c.kernel = 2; }) == "kernel conv_sm80 expects a kernel of 1 or 3");
  CHECK(refusal([](Convolution& c) { c.x.type = DType::F32; }) ==
        "kernel conv_sm80 expects an input of type F16 or BF16");
  CHECK(refusal([](Convolution& c) { c.y.type = DType::F16; }) ==
        "kernel conv_sm80 expects an output of the input's type or F32");
  CHECK(refusal([](Convolution& c) { c.x.c = 12; }) ==
        "kernel conv_sm80 expects an input whose channels and places are multiples of 8");
  CHECK(refusal([](Convolution& c) { c.y.c = 25; }) ==
        "kernel conv_sm80 expects tensors with positive sizes and channels inside their buffers");
  CHECK(refusal([](Convolution& c) { c.stride = 2; }) ==
        "kernel conv_sm80 expects an output of the input's size over the stride");
  CHECK(refusal([](Convolution& c) { c.x.n = c.y.n = 1 << 24; }) ==
        "kernel conv_sm80 expects tensors of less than 2^31 elements");
  CHECK(refusal([&](Convolution& c) { c.epilogue.residual = other.view(); }) ==
        "kernel conv_sm80 expects a residual of the input's type and of the output's size or half of it");
  CHECK(refusal([](Convolution& c) { c.x.data = static_cast<std::byte*>(c.x.data) + 8; }) ==
        "kernel conv_sm80 expects an input at a multiple of 16 bytes");
  CHECK(refusal([](Convolution& c) { c.weights = nullptr; }) ==
        "kernel conv_sm80 expects weights at a multiple of 16 bytes");
  CHECK(refusal([](Convolution& c) { c.y.data = nullptr; }) == "kernel conv_sm80 expects an output with data");
}

}  // namespace
}  // namespace damoyolo::kernels
