// The shim's tensor-core instructions against what the PTX ISA says of them.
#include "tensor_core.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "kernels/launch.h"
#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

// Element k of row r of matrix i is 100·i + 10·r + k. Rows lie `pitch` elements apart, the last first.
__global__ void ldmatrix_kernel(unsigned* out, int pitch) {
  auto* shared = dynamic_shared<std::uint16_t>();
  const int lane = static_cast<int>(threadIdx.x);
  std::uint16_t* row = shared + (31 - lane) * pitch;
  for (int k = 0; k < 8; ++k) row[k] = static_cast<std::uint16_t>(lane / 8 * 100 + lane % 8 * 10 + k);
  __syncwarp();
  unsigned words[4];
  ldmatrix_x4(words, row);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = words[i];
}

TEST_CASE("simt: ldmatrix hands out four matrices by rows") {
  for (const int pitch : {8, 24}) {
    std::vector<unsigned> out(32 * 4);
    launch("ldmatrix", ldmatrix_kernel, {1, 32, 32 * 24 * 2}, {}, out.data(), pitch);
    for (unsigned lane = 0; lane < 32; ++lane)
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned first = i * 100 + lane / 4 * 10 + lane % 4 * 2;
        CHECK(out[lane * 4 + i] == (first | (first + 1) << 16));
      }
  }
}

TEST_CASE("simt: rows of a matrix that share banks are counted") {
  std::vector<unsigned> out(32 * 4);
  const auto conflicts = [&](int pitch) {
    const std::size_t before = simt::bank_conflicts();
    launch("ldmatrix", ldmatrix_kernel, {1, 32, 32 * 64 * 2}, {}, out.data(), pitch);
    return simt::bank_conflicts() - before;
  };
  CHECK(conflicts(8) == 0);
  CHECK(conflicts(24) == 0);
  CHECK(conflicts(16) == 4 * 4);
  CHECK(conflicts(64) == 4 * 7);
}

constexpr int kRows = 2, kColumns = 3;  // fragments

// c[32][24] += a[32][16] · b[24][16]ᵀ, with the fragments' layouts as the PTX ISA draws them.
template <typename T>
__global__ void mma_kernel(const T* a, const T* b, float* c) {
  const int lane = static_cast<int>(threadIdx.x), group = lane / 4, pair = lane % 4 * 2;
  const auto words = [](const T* elements) {
    return static_cast<unsigned>(elements[0].bits) | static_cast<unsigned>(elements[1].bits) << 16;
  };
  unsigned a_words[kRows][4], b_words[kColumns][2];
  float sums[kRows * kColumns][4];
  for (int m = 0; m < kRows; ++m)
    for (int i = 0; i < 4; ++i)
      a_words[m][i] = words(a + (m * 16 + group + (i == 1 || i == 3 ? 8 : 0)) * 16 + pair + (i >= 2 ? 8 : 0));
  for (int n = 0; n < kColumns; ++n)
    for (int i = 0; i < 2; ++i) b_words[n][i] = words(b + (n * 8 + group) * 16 + pair + i * 8);
  const auto at = [&](int m, int n, int i) -> float& {
    return c[(m * 16 + group + (i >= 2 ? 8 : 0)) * 24 + n * 8 + pair + (i & 1)];
  };
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kColumns; ++n)
      for (int i = 0; i < 4; ++i) sums[m * kColumns + n][i] = at(m, n, i);
  multiply_add<T, kRows, kColumns>(sums, a_words, b_words);
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kColumns; ++n)
      for (int i = 0; i < 4; ++i) at(m, n, i) = sums[m * kColumns + n][i];
}

// Small whole numbers, so that every sum is exact.
template <typename T>
void compare_with_plain_product() {
  std::vector<T> a(32 * 16), b(24 * 16);
  std::vector<float> c(32 * 24), want(32 * 24);
  const auto value = [](std::size_t i) { return static_cast<float>(i * 7 % 13) - 6.0f; };
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = from_float<T>(value(i));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = from_float<T>(value(i + 5));
  for (std::size_t i = 0; i < c.size(); ++i) {
    c[i] = want[i] = value(i + 2);
    for (std::size_t k = 0; k < 16; ++k) want[i] += value(i / 24 * 16 + k) * value(i % 24 * 16 + k + 5);
  }
  launch("mma", mma_kernel<T>, {1, 32}, {}, a.data(), b.data(), c.data());
  CHECK(c == want);
}

TEST_CASE("simt: mma is the product of its fragments") {
  compare_with_plain_product<__nv_bfloat16>();
  compare_with_plain_product<__half>();
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
