// The shim's tensor-core instructions: the faults that must be reported or show. What they do,
// tests/kernels/instructions_warp_test.cu says, of them and of a GPU.
#include "tensor_core.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "kernels/launch.h"
#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

// Rows lie `pitch` elements apart.
__global__ void ldmatrix_kernel(int pitch) {
  unsigned words[4];
  ldmatrix_x4(words, dynamic_shared<std::uint16_t>() + static_cast<int>(threadIdx.x) * pitch);
}

TEST_CASE("simt: rows of a matrix that share banks are counted") {
  const auto conflicts = [&](int pitch) {
    const std::size_t before = simt::bank_conflicts();
    launch("ldmatrix", ldmatrix_kernel, {1, 32, 32 * 64 * 2}, {}, pitch);
    return simt::bank_conflicts() - before;
  };
  CHECK(conflicts(8) == 0);
  CHECK(conflicts(24) == 0);
  CHECK(conflicts(16) == 4 * 4);
  CHECK(conflicts(64) == 4 * 7);
}

// out[i] is what lane i's copy i had brought when at most one later copy was under way.
template <int Left>
__global__ void copy_kernel(const float* in, float* out) {
  auto* shared = dynamic_shared<float>() + threadIdx.x * 12;
  for (int i = 0; i < 3; ++i) {
    cp_async_16(shared + i * 4, in + i * 4, i != 1);
    cp_async_commit();
  }
  cp_async_wait<Left>();
  for (int i = 0; i < 12; ++i) out[(blockIdx.x * 32 + threadIdx.x) * 12 + i] = shared[i];
}

TEST_CASE("simt: asynchronous copies come late in two blocks of four") {
  struct alignas(16) {
    float values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  } in;
  const std::vector<float> all{1, 2, 3, 4, 0, 0, 0, 0, 9, 10, 11, 12};
  const auto copied = [&](auto kernel, int groups) {
    std::vector<float> out(4 * 32 * 12);
    launch("copy", kernel, {4, 32, 32 * 48}, {}, in.values, out.data());
    int blocks = 0;
    for (std::size_t block = 0; block < 4; ++block) {
      bool good = true;
      for (std::size_t i = 0; i < 32 * 12; ++i)
        if (i % 12 < static_cast<std::size_t>(groups) * 4) good = good && out[block * 32 * 12 + i] == all[i % 12];
      blocks += good;
    }
    return blocks;
  };
  CHECK(copied(copy_kernel<0>, 3) == 4);
  CHECK(copied(copy_kernel<1>, 2) == 4);
  CHECK(copied(copy_kernel<1>, 3) == 2);
  CHECK(copied(copy_kernel<3>, 1) == 2);
}

__global__ void half_a_warp_multiplies_kernel() {
  if (threadIdx.x >= 16) return;
  unsigned words[4];
  ldmatrix_x4(words, dynamic_shared<float>());
}

TEST_CASE("simt: an instruction of a whole warp is reported where lanes are missing") {
  for (const unsigned threads : {16u, 32u}) {
    std::string message;
    try {
      launch("faulty", half_a_warp_multiplies_kernel, {1, threads, 128}, {});
    } catch (const std::exception& error) {
      message = error.what();
    }
    CHECK(message.find("kernel faulty was not launched: ") == 0);
    CHECK(message.find("warp") != std::string::npos);
  }
}

}  // namespace
}  // namespace damoyolo::kernels
