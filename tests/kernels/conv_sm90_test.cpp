#include "kernels/conv_sm90.h"

#include "tests/case_for_each.h"
#include "tests/kernels/conv_fixture.h"
#include "tests/kernels/conv_pair_fixture.h"

namespace damoyolo::kernels {
namespace {

constexpr ConvUnderTest kKernel{conv_sm90_configs, conv_sm90_fits, conv_sm90_memory, launch_conv_sm90,
                                kMaxConvSm90Split};

const std::vector<ConvTile> kTiles = conv_tiles(conv_sm90_configs());
const std::vector<ConvTile> kPairs = conv_tiles(conv_sm90_configs(), true);
std::vector<ConvTile> tiles_with(bool pingpong) {
  std::vector<ConvTile> tiles = kTiles;
  std::erase_if(tiles, [&](const ConvTile& tile) { return tile.configs.front().pingpong != pingpong; });
  return tiles;
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm90 " + tile.name() + ": every case's sums") {
  if (!can_run(90)) return;
  check_cases(kKernel, tile, 1, [](const ConvCase& test) { return test.split == 1; });
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kTiles, "conv_sm90 " + tile.name() + ": weights that two blocks share") {
  if (!can_run(90)) return;
  std::size_t turn = tile.number;
  check_cases(kKernel, tile, 2, [&](const ConvCase& test) { return test.split == 1 && turn++ % 2 == 0; });
}

TEST_CASE_FOR_EACH(const ConvTile& tile, tiles_with(false),
                   "conv_sm90 " + tile.name() + ": sums that a cluster shares") {
  if (!can_run(90)) return;
  check_cases(kKernel, tile, 1, [](const ConvCase& test) { return test.split > 1; });
}

// Blocks that stay, at most.
int block_count() {
  int device = 0, multiprocessors = 0;
  check(cudaGetDevice(&device), "test");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "test");
  return multiprocessors / 2 * 2;
}

// One tile for each block, so that the second warpgroup has none; and four, but three for one block, whose fourth lies
// behind the image where blocks share weights. With sums of fewer steps than there are stages, and of more, so that a
// warpgroup that is ahead meets barriers in every state.
TEST_CASE_FOR_EACH(const ConvTile& tile, tiles_with(true),
                   "conv_sm90 " + tile.name() + ": any number of turns, with few steps and many") {
  if (!can_run(90)) return;
  struct End {
    DType type;
    ConvCase::Residual residual;
    int sharing;
  };
  constexpr End kEnds[] = {{DType::BF16, ConvCase::Residual::None, 1},
                           {DType::BF16, ConvCase::Residual::Same, 1},
                           {DType::BF16, ConvCase::Residual::Same, 2},
                           {DType::F32, ConvCase::Residual::None, 1}};
  const bool three_taps = tile.configs.front().taps == 3;
  const int blocks = block_count();
  for (const bool many : {false, true}) {
    const int kernel = many || three_taps ? 3 : 1, channels = many && three_taps ? 72 : 8;
    const int columns = kernel == 1 ? 0 : 8;
    ConvConfig config = *std::ranges::find(tile.configs, columns, &ConvConfig::columns);
    const int steps = kernel * kernel / config.taps * ((channels + config.k - 1) / config.k);
    CHECK((many ? steps > config.stages : steps < config.stages));
    for (const int tiles : {blocks, 4 * blocks - 1})
      for (const End& end : kEnds) {
        if (many && end.sharing == 1 && end.type == DType::BF16) continue;  // the host would be at it for long
        const int height = columns == 0 ? 1 : config.m / columns;           // one row of tiles
        const ConvExample example({.in = {1, height, config.m * tiles / height, channels},
                                   .kernel = kernel,
                                   .out_type = end.type,
                                   .act = Activation::Relu,
                                   .residual = end.residual});
        config.sharing = end.sharing;
        example.check(kKernel, config);
      }
  }
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kPairs, "conv_sm90 " + tile.name() + ": every pair's outputs") {
  if (!can_run(90)) return;
  check_pairs(kKernel, tile, 1);
}

TEST_CASE_FOR_EACH(const ConvTile& tile, kPairs, "conv_sm90 " + tile.name() + ": pairs whose weights blocks share") {
  if (!can_run(90)) return;
  check_pairs(kKernel, tile, 2);
}

// So many tiles that every block has three, but for one, which has two.
TEST_CASE_FOR_EACH(const ConvTile& tile, kPairs, "conv_sm90 " + tile.name() + ": several pairs for each block") {
  if (!can_run(90)) return;
  constexpr int kMostBlocks = 2;  // of a pair, on a multiprocessor
  ConvConfig config = *std::ranges::find(tile.configs, 8, &ConvConfig::columns);
  const int tiles = 3 * kMostBlocks * block_count() - 1;
  const ConvPairExample example({.first = {.in = {1, config.m / 8, 8 * tiles, 16},
                                           .out_channels = 32,
                                           .act = Activation::Relu,
                                           .residual = ConvCase::Residual::Same},
                                 .channels = 24,
                                 .act = Activation::Relu});
  for (const int sharing : {1, 2}) {
    config.sharing = sharing;
    example.check(kKernel, config);
  }
}

KERNEL_TEST_CASE("conv_sm90 takes pairs whose pixels lie in one tile") {
  if (!can_run(90)) return;
  const ConvPairExample example({.first = {.in = {1, 4, 6, 16}, .out_channels = 32}, .channels = 32});
  const DeviceTensor y = example.first_output(), z = example.output();
  const ConvConfig config = kPairs.front().configs.front();
  const auto refusal = [&](auto change) -> std::string {
    Convolution convolution = example.convolution(y, z, true);
    ConvConfig changed = config;
    change(convolution, changed);
    const bool fits = conv_sm90_fits(convolution, changed);
    try {
      launch_conv_sm90(convolution, changed, {});
    } catch (const std::exception& error) {
      return fits ? std::string("fits, but ") + error.what() : error.what();
    }
    return fits ? "" : "launched, but does not fit";
  };
  const std::string shape = "kernel conv_sm90 expects all channels of a pixel in one tile, of both convolutions";
  const std::string whole = "kernel conv_sm90 expects outputs of a pair whose channels and places are multiples of 8";
  CHECK(refusal([](Convolution&, ConvConfig&) {}) == "");
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.keep = false, c.y.data = nullptr; }) == "");
  CHECK(refusal([](Convolution&, ConvConfig& config) { config.split = 2; }) ==
        "kernel conv_sm90 expects no split of a pair's sums, nor of those in turns");
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.y.c = c.y.pixel_stride = 40; }) == shape);
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.y.c = c.then.y.pixel_stride = 40; }) == shape);
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.y.c = 28; }) == whole);
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.y.c = 28; }) == whole);
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.y.h = 3; }) ==
        "kernel conv_sm90 expects a convolution behind it whose output has its size and the input's type, for this "
        "configuration");
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.y.type = DType::F32; }) ==
        "kernel conv_sm90 expects a convolution behind it whose output has its size and the input's type, for this "
        "configuration");
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.epilogue.residual = c.then.y; }) ==
        "kernel conv_sm90 expects no residual for the second convolution of a pair");
  // Pointers are the launch's affair.
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.weights = nullptr; }) ==
        "fits, but kernel conv_sm90 expects weights of both convolutions at a multiple of 16 bytes");
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.y.data = nullptr; }) ==
        "fits, but kernel conv_sm90 expects outputs with data of both convolutions");
  CHECK(refusal([](Convolution& c, ConvConfig&) { c.then.y.data = static_cast<std::byte*>(c.then.y.data) + 8; }) ==
        "fits, but kernel conv_sm90 expects outputs, residual and biases of a pair at multiples of 16 bytes");
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

KERNEL_TEST_CASE("conv_sm90: warpgroups that take turns share no sums") {
  const ConvExample example({.in = {1, 4, 6, 16}, .out_channels = 24, .kernel = 1});
  const DeviceTensor y = example.output();
  ConvConfig config = tiles_with(true).front().configs.front();
  CHECK(conv_sm90_fits(example.convolution(y), config));
  config.split = 2;
  CHECK_FALSE(conv_sm90_fits(example.convolution(y), config));
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
  CHECK_FALSE(fits([](Convolution&, ConvConfig& config) { config.pingpong = true; }));
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
  CHECK(refusal(nothing, flat) ==
        "kernel conv_sm90 expects columns for a window, room for two stages, and tiles "
        "that it can count");
  CHECK(refusal(nothing, split) == "kernel conv_sm90 expects one of its configurations");
  CHECK(refusal([](Convolution& c) { c.y.h = 0; }, config) ==
        "kernel conv_sm90 expects tensors with positive sizes and channels inside their buffers");
  CHECK(refusal([](Convolution& c) { c.weights = nullptr; }, config) ==
        "kernel conv_sm90 expects weights at a multiple of 16 bytes");
}

}  // namespace
}  // namespace damoyolo::kernels
