// Instructions of compute capability 8.0 that conv_sm80 is made of, and stmatrix.
#include <cmath>
#include <limits>

#include "tests/kernels/instructions.cuh"

namespace damoyolo::kernels {
namespace {

// Element k of row r of matrix i is 100·i + 10·r + k.
__host__ __device__ constexpr int element_of_matrix(int row, int k) { return row / 8 * 100 + row % 8 * 10 + k; }

// What a lane has of four matrices: two neighbouring elements of each, the first in the lower half.
std::vector<unsigned> words_of_matrices() {
  std::vector<unsigned> words;
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = i * 8 + lane / 4, k = lane % 4 * 2;
      words.push_back(static_cast<unsigned>(element_of_matrix(row, k) | element_of_matrix(row, k + 1) << 16));
    }
  return words;
}

// Rows lie `pitch` elements apart, the last first.
struct LoadMatrices {
  static constexpr int kCapability = 80, kThreads = 32;
  int pitch;
  unsigned* out;

  __device__ __forceinline__ void operator()() const {
    const int lane = static_cast<int>(threadIdx.x);
    auto* const row = dynamic_shared<std::uint16_t>() + (31 - lane) * pitch;
    for (int k = 0; k < 8; ++k) row[k] = static_cast<std::uint16_t>(element_of_matrix(lane, k));
    __syncwarp();
    unsigned words[4];
    ldmatrix_x4(words, row);
    for (int i = 0; i < 4; ++i) out[(blockIdx.x * kLanes + lane) * 4 + i] = words[i];
  }
};

KERNEL_TEST_CASE("instructions: ldmatrix hands out four matrices by rows") {
  if (!can_run(80)) return;
  for (const int pitch : {8, 24}) {
    CAPTURE(pitch);
    const DeviceArray<unsigned> out(kBlocks * 32 * 4);
    run(LoadMatrices{pitch, out.data()});
    check_elements(out.download(), words_of_matrices(), 4);
  }
}

struct StoreMatrices {
  static constexpr int kCapability = 90, kThreads = 32;
  const unsigned* words;  // of each lane
  std::uint16_t* out;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    fill_room(shared, nullptr, 32 * 16);
    const int lane = static_cast<int>(threadIdx.x);
    unsigned mine[4];
    for (int i = 0; i < 4; ++i) mine[i] = words[lane * 4 + i];
    stmatrix_x4(shared.bytes + lane * 32, mine);
    __syncwarp();
    take_room(shared, out, 32 * 16);
  }
};

KERNEL_TEST_CASE("instructions: stmatrix puts words where ldmatrix takes them from, and nothing between the rows") {
  if (!can_run(90)) return;
  const DeviceArray<unsigned> words(words_of_matrices());
  const DeviceArray<std::uint16_t> out(kBlocks * 32 * 16);
  run(StoreMatrices{words.data(), out.data()});
  std::vector<std::uint16_t> want(32 * 16, kNothing);
  for (int row = 0; row < 32; ++row)
    for (int k = 0; k < 8; ++k) want[row * 16 + k] = static_cast<std::uint16_t>(element_of_matrix(row, k));
  check_elements(out.download(), want, 16);
}

constexpr int kFragmentRows = 2, kFragmentColumns = 3;
constexpr int kRows = 16 * kFragmentRows, kColumns = 8 * kFragmentColumns;

// sums[kRows][kColumns] = start + a[kRows][16] · b[kColumns][16]ᵀ, by the layouts that the PTX manual draws.
template <typename T>
struct MultiplyFragments {
  static constexpr int kCapability = 80, kThreads = 32;
  const std::byte *a, *b;
  const float* start;
  float* out;

  __device__ __forceinline__ void operator()() const {
    const int lane = static_cast<int>(threadIdx.x), group = lane / 4, pair = lane % 4 * 2;
    unsigned a_words[kFragmentRows][4], b_words[kFragmentColumns][2];
    float sums[kFragmentRows * kFragmentColumns][4];
    for (int m = 0; m < kFragmentRows; ++m)
      for (int i = 0; i < 4; ++i)
        __builtin_memcpy(&a_words[m][i], a + ((m * 16 + group + i % 2 * 8) * 16 + pair + i / 2 * 8) * 2, 4);
    for (int n = 0; n < kFragmentColumns; ++n)
      for (int i = 0; i < 2; ++i) __builtin_memcpy(&b_words[n][i], b + ((n * 8 + group) * 16 + pair + i * 8) * 2, 4);
    const auto place = [&](int fragment, int i) {
      const int m = fragment / kFragmentColumns, n = fragment % kFragmentColumns;
      return (m * 16 + group + i / 2 * 8) * kColumns + n * 8 + pair + i % 2;
    };
    for (int fragment = 0; fragment < kFragmentRows * kFragmentColumns; ++fragment)
      for (int i = 0; i < 4; ++i) sums[fragment][i] = start[place(fragment, i)];
    multiply_add<T, kFragmentRows, kFragmentColumns>(sums, a_words, b_words);
    for (int fragment = 0; fragment < kFragmentRows * kFragmentColumns; ++fragment)
      for (int i = 0; i < 4; ++i) out[blockIdx.x * kRows * kColumns + place(fragment, i)] = sums[fragment][i];
  }
};

template <typename T>
void check_mma(DType type) {
  if (!can_run(80)) return;
  const std::vector<float> a = whole_numbers(kRows * 16, 1), b = whole_numbers(kColumns * 16, 2),
                           start = whole_numbers(kRows * kColumns, 3);
  std::vector<float> want = start;
  for (int row = 0; row < kRows; ++row)
    for (int column = 0; column < kColumns; ++column)
      for (int k = 0; k < 16; ++k) want[row * kColumns + column] += a[row * 16 + k] * b[column * 16 + k];
  const DeviceArray<std::byte> device_a(encode(a, type)), device_b(encode(b, type));
  const DeviceArray<float> device_start(start), out(kBlocks * want.size());
  run(MultiplyFragments<T>{device_a.data(), device_b.data(), device_start.data(), out.data()});
  check_elements(out.download(), want, kColumns);
}

KERNEL_TEST_CASE("instructions: mma.sync multiplies fragments of bf16") { check_mma<__nv_bfloat16>(DType::BF16); }
KERNEL_TEST_CASE("instructions: mma.sync multiplies fragments of fp16") { check_mma<__half>(DType::F16); }

// Copies four packets of 16 bytes for each thread, a group each: the first, zeros, nothing, and the second. out: what
// is there when at most one group is under way, then all. yes and no: what they say, unknown to the compiler.
struct CopyPackets {
  static constexpr int kCapability = 80, kThreads = 64, kElements = 16 + 8;
  const float *in, *nowhere;
  float* out;
  bool yes = true, no = false;

  __device__ __forceinline__ void operator()() const {
    float* const mine = dynamic_shared<float>() + threadIdx.x * 16;
    for (int i = 0; i < 16; ++i) mine[i] = -1;
    cp_async_16(mine, in, yes, yes);
    cp_async_commit();
    cp_async_16(mine + 4, nowhere, no, yes);
    cp_async_commit();
    cp_async_16(mine + 8, nowhere, yes, no);
    cp_async_commit();
    cp_async_16(mine + 12, in + 4, yes, yes);
    cp_async_commit();
    cp_async_wait<1>();
    float* const to = out + (blockIdx.x * kThreads + threadIdx.x) * kElements;
    for (int i = 0; i < 8; ++i) to[i] = mine[i];
    cp_async_wait<0>();
    for (int i = 0; i < 16; ++i) to[8 + i] = mine[i];
  }
};

void check_copies(bool from_null) {
  if (!can_run(80)) return;
  const DeviceArray<float> in(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
  const DeviceArray<float> out(kBlocks * CopyPackets::kThreads * CopyPackets::kElements);
  run(CopyPackets{in.data(), from_null ? nullptr : in.data(), out.data()});
  const std::vector<float> want{1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, -1, -1, -1, -1, 5, 6, 7, 8};
  check_elements(out.download(), want, 4);
}

KERNEL_TEST_CASE("instructions: cp.async copies, zeroes where there is no source, and leaves what is not wanted") {
  check_copies(false);
}
KERNEL_TEST_CASE("instructions: cp.async that zeroes or is not wanted reads nothing, as where a pixel is outside") {
  check_copies(true);
}

// Has all of `in` brought to the second-level cache, and copies it.
struct PrefetchAndCopy {
  static constexpr int kCapability = 80, kThreads = 64;
  const unsigned* in;
  int count;
  unsigned* out;

  __device__ __forceinline__ void operator()() const {
    prefetch_l2(in, count * 4, static_cast<int>(threadIdx.x), kThreads);
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) out[blockIdx.x * count + i] = in[i];
  }
};

KERNEL_TEST_CASE("instructions: a prefetch to the second-level cache changes nothing") {
  if (!can_run(80)) return;
  for (const unsigned count : {4u, 44u, 40000u}) {
    CAPTURE(count);
    std::vector<unsigned> numbers(count);
    for (unsigned i = 0; i < count; ++i) numbers[i] = i + 1;
    const DeviceArray<unsigned> in(numbers), out(kBlocks * count);
    run(PrefetchAndCopy{in.data(), static_cast<int>(count), out.data()});
    check_elements(out.download(), numbers, 4);
  }
}

struct Approximate {
  static constexpr int kCapability = 80, kThreads = 32;
  const float* in;
  float* out;  // 2^x and 1/x
  int count;

  __device__ __forceinline__ void operator()() const {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
      out[2 * i] = exp2_approximately(in[i]);
      out[2 * i + 1] = reciprocal_approximately(in[i]);
    }
  }
};

std::vector<float> approximate(const std::vector<float>& values) {
  const DeviceArray<float> in(values), out(2 * values.size());
  run(Approximate{in.data(), out.data(), static_cast<int>(values.size())});
  return out.download();
}

KERNEL_TEST_CASE("instructions: ex2.approx and rcp.approx are within two units of the last place") {
  if (!can_run(80)) return;
  std::vector<float> values;
  for (float x = -125.9f; x < 125.0f; x += 0.0637f) values.push_back(x);
  const std::vector<float> got = approximate(values);
  double worst[2] = {0, 0};
  float at[2] = {0, 0};
  for (std::size_t i = 0; i < got.size(); ++i) {
    const float x = values[i / 2];
    const double exact = i % 2 == 0 ? std::exp2(double{x}) : 1 / double{x};
    const double units = std::abs(got[i] - exact) / std::ldexp(1.0, std::ilogb(exact) - 23);
    if (!(units <= worst[i % 2])) worst[i % 2] = units, at[i % 2] = x;
  }
  CAPTURE(at[0]);
  CHECK(worst[0] <= 2);
  CAPTURE(at[1]);
  CHECK(worst[1] <= 2);
}

KERNEL_TEST_CASE("instructions: ex2.approx and rcp.approx end in infinity and, on a device, in zero below 2^-126") {
  if (!can_run(80)) return;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> got = approximate({128, -kInfinity, kInfinity, 0, -130, 0x1.8p126f, 0x1p-130f});
  CHECK(got[0] == kInfinity);
  CHECK(got[2] == 0);
  CHECK(got[5] == 0);
  CHECK(got[6] == 1);
  CHECK(got[7] == kInfinity);
#ifdef __CUDACC__
  CHECK(got[8] == 0);
  CHECK(got[11] == 0);
  CHECK(got[12] == 1);
  CHECK(got[13] == kInfinity);
#endif
}

// Every block writes its number, and whoever counts last adds up all of them.
struct TakeTickets {
  static constexpr int kCapability = 80, kThreads = 64;
  unsigned *numbers, *counter, *sum;

  __device__ __forceinline__ void operator()() const {
    if (threadIdx.x == 0) numbers[blockIdx.x] = blockIdx.x + 1;
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) last = count_up_acq_rel(counter, gridDim.x - 1) == gridDim.x - 1;
    if (!__syncthreads_or(last)) return;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) atomicAdd(sum, numbers[i]);
  }
};

KERNEL_TEST_CASE("instructions: a counter wraps, and who comes last sees what all before it have written") {
  if (!can_run(80)) return;
  constexpr unsigned kMany = 200;
  const DeviceArray<unsigned> numbers(kMany), counter(1), sum(1);
  for (unsigned turn = 1; turn <= 3; ++turn) {
    check(cudaMemsetAsync(numbers.data(), 0, kMany * sizeof(unsigned), nullptr), "test");
    run(TakeTickets{numbers.data(), counter.data(), sum.data()}, {.blocks = kMany});
    CHECK(counter.download()[0] == 0);
    CHECK(sum.download()[0] == turn * (kMany * (kMany + 1) / 2));
  }
}

}  // namespace
}  // namespace damoyolo::kernels
