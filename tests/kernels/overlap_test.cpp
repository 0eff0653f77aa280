#include <algorithm>

#include "kernels/epilogue.h"
#include "tests/kernels/device_tensor.h"

using namespace damoyolo;
using namespace damoyolo::kernels;

KERNEL_TEST_CASE("overlap: each kernel of a chain reads what the one before it wrote") {
  const int side = can_overlap() ? 64 : 8;  // what cannot overlap shows as much with few blocks
  const Size size{1, side, side, 64};
  constexpr int kKernels = 200;
  const std::vector<float> zeros(DeviceTensor::elements(size, {}));
  const DeviceTensor tensors[] = {{DType::F32, size, {}, zeros}, {DType::F32, size, {}, zeros}};
  const DeviceArray<float> ones(std::vector<float>(64, 1.f));
  Epilogue add_one;
  add_one.bias = ones.data();
  float expected = 0;
  for (const bool overlap : {false, can_overlap()}) {
    for (int i = 0; i < kKernels; ++i)  // one overwrites what the one before it reads, too
      launch_epilogue(tensors[i % 2].view(), tensors[1 - i % 2].view(), add_one, {nullptr, overlap});
    expected += kKernels;
    const std::vector<float> sums = tensors[0].values();
    CHECK(std::count(sums.begin(), sums.end(), expected) == static_cast<std::ptrdiff_t>(sums.size()));
  }
}
