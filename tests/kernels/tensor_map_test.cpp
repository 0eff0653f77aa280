#include "kernels/tensor_map.h"

#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

// What a driver accepts: 20 channels of an image of 5 × 3 pixels, 24 apart, in boxes of 4 × 2 pixels.
TensorMap sound(const void* data) {
  TensorMap map;
  map.data = data;
  map.rank = 3;
  map.size = {20, 5, 3};
  map.strides = {48, 240};
  map.box = {64, 4, 2};
  return map;
}

KERNEL_TEST_CASE("a tensor map that breaks a rule is refused") {
  const DeviceArray<std::uint16_t> tensor(24 * 5 * 3);
  const auto refusal = [&](auto change) -> std::string {
    TensorMap map = sound(tensor.data());
    change(map);
    try {
      encode(map, "test");
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refusal([](TensorMap&) {}) == "");
  CHECK(refusal([](TensorMap& map) { map.steps[1] = 2; }) == "");
  CHECK(refusal([](TensorMap& map) { map.box[0] = 16, map.span = 32; }) == "");
  CHECK(refusal([](TensorMap& map) { map.type = DType::F32; }) ==
        "kernel test expects a tensor map of type F16 or BF16");
  CHECK(refusal([](TensorMap& map) { map.rank = 6; }) == "kernel test expects a tensor map of 1 to 5 dimensions");
  CHECK(refusal([](TensorMap& map) { map.data = static_cast<const std::byte*>(map.data) + 8; }) ==
        "kernel test expects a tensor map of data at a multiple of 16 bytes");
  CHECK(refusal([](TensorMap& map) { map.span = 16; }) ==
        "kernel test expects a tensor map with a span of 32, 64 or 128");
  CHECK(refusal([](TensorMap& map) { map.box[0] = 32; }) ==
        "kernel test expects a tensor map with boxes as wide as its span");
  CHECK(refusal([](TensorMap& map) { map.size[2] = 0; }) ==
        "kernel test expects a tensor map with sizes of 1 to 2^32");
  CHECK(refusal([](TensorMap& map) { map.strides[0] = 40; }) ==
        "kernel test expects a tensor map with strides that are multiples of 16 bytes, below 2^40");
  CHECK(refusal([](TensorMap& map) { map.strides[1] = 256; }) ==
        "kernel test expects a tensor map each of whose strides is a multiple of the one before");
  CHECK(refusal([](TensorMap& map) { map.box[1] = 129, map.steps[1] = 2; }) ==
        "kernel test expects a tensor map with boxes of 1 to 256 elements, those stepped over included");
}

}  // namespace
}  // namespace damoyolo::kernels
