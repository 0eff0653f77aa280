#include "kernels/conv_sm90.h"

#include "tests/case_for_each.h"
#include "tests/kernels/conv_fixture.h"

namespace damoyolo::kernels {
namespace {

constexpr ConvUnderTest kKernel{conv_sm90_configs, conv_sm90_fits, conv_sm90_memory, launch_conv_sm90,
                                kMaxConvSm90Split};

const std::vector<ConvTile> kTiles = conv_tiles(conv_sm90_configs());

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm90 " + tile.name() + ": every case's sums") {
  if (!can_run(90)) return;
  check_cases(kKernel, tile, 1, [](const ConvCase& test) { return test.split == 1; });
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm90 " + tile.name() + ": weights that two blocks share") {
  if (!can_run(90)) return;
  std::size_t turn = tile.number;
  check_cases(kKernel, tile, 2, [&](const ConvCase& test) { return test.split == 1 && turn++ % 2 == 0; });
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm90 " + tile.name() + ": sums that a cluster shares") {
  if (!can_run(90)) return;
  check_cases(kKernel, tile, 1, [](const ConvCase& test) { return test.split > 1; });
}

// Pixels of a tile that are no rectangle's, rows cut off at the image's end, and images of one column.
KERNEL_TEST_CASE("conv_sm90: rectangles cover images of every width") {
  if (!can_run(90)) return;
  for (const int width : {1, 7, 8, 21})
    for (const int stride : {1, 2}) {
      const ConvExample example({.in = {2, 11, width, 8}, .out_channels = 8, .stride = stride});
      for (const ConvConfig& config : kTiles.front().configs)
        if (config.columns > 0) example.check(kKernel, config);
    }
}

TEST_CASE("conv_sm90 lists rectangles that one copy can bring") {
  for (const ConvConfig& config : conv_sm90_configs()) {
    const int columns = config.columns == 0 ? config.m : config.columns, rows = config.m / columns;
    CHECK(rows >= 1);
    CHECK(rows * columns * 2 > config.m);
    CHECK(rows <= 128);
    CHECK(columns <= (config.columns == 0 ? 256 : 128));
  }
}

KERNEL_TEST_CASE("conv_sm90 takes what its kernels are compiled for") {
  const ConvExample example({.in = {1, 4, 6, 16}, .out_channels = 24});
  const DeviceTensor y = example.output();
  ConvConfig config = conv_sm90_configs().front();
  config.columns = 8;
  const auto fits = [&](auto change) {
    Convolution convolution = example.convolution(y);
    ConvConfig changed = config;
    change(convolution, changed);
    return conv_sm90_fits(convolution, changed);
  };
  CHECK(fits([](Convolution&, ConvConfig&) {}));
  CHECK(fits([](Convolution& c, ConvConfig&) { c.x.data = c.y.data = nullptr; }));
  CHECK(fits([](Convolution&, ConvConfig& config) { config.split = kMaxConvSm90Split; }));
  CHECK(fits([](Convolution& c, ConvConfig& config) { c.kernel = 1, config.columns = 0; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.split = kMaxConvSm90Split + 1; }));
  CHECK(fits([](Convolution&, ConvConfig& config) { config.sharing = 2; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.sharing = 3; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.sharing = config.split = 2; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { ++config.stages; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.columns = 0; }));
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.columns = 7; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.x.c = 12; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.then.y = c.y; }));
  CHECK_FALSE(fits([](Convolution& c, ConvConfig&) { c.keep = false; }));
}

KERNEL_TEST_CASE("conv_sm90 refuses what does not fit") {
  const ConvExample example({.in = {1, 4, 6, 16}, .out_channels = 24});
  const DeviceTensor y = example.output();
  ConvConfig config = conv_sm90_configs().front();
  config.columns = 8;
  const auto refusal = [&](auto change, ConvConfig changed) -> std::string {
    Convolution convolution = example.convolution(y);
    change(convolution);
    try {
      launch_conv_sm90(convolution, changed, {});
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  const auto nothing = [](Convolution&) {};
  ConvConfig split = config, flat = config, unknown = config;
  split.split = kMaxConvSm90Split + 1;
  flat.columns = 0;
  unknown.n = 17;
  CHECK(refusal(nothing, unknown) == "kernel conv_sm90 expects one of its configurations");
  CHECK(refusal(nothing, flat) == "kernel conv_sm90 expects columns for a window, and tiles that it can count");
  CHECK(refusal(nothing, split) == "kernel conv_sm90 expects one of its configurations");
  CHECK(refusal([](Convolution& c) { c.y.h = 0; }, config) ==
        "kernel conv_sm90 expects tensors with positive sizes and channels inside their buffers");
  CHECK(refusal([](Convolution& c) { c.weights = nullptr; }, config) ==
        "kernel conv_sm90 expects weights at a multiple of 16 bytes");
}

}  // namespace
}  // namespace damoyolo::kernels
