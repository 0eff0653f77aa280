// Products of warpgroups: how their descriptors find factors in shared memory, and where the sums are.
#include "kernels/conv_sm90_epilogue.cuh"
#include "tests/kernels/instructions.cuh"

namespace damoyolo::kernels {
namespace {

constexpr int kProducts = 16;  // of one instruction

template <typename T>
constexpr DType kTypeOf = std::is_same_v<T, __nv_bfloat16> ? DType::BF16 : DType::F16;

// A matrix of whole numbers, and boxes of `rows` × `span` bytes of it.
struct Matrix {
  int rows, columns;
  std::vector<float> values;
  DeviceArray<std::byte> data;
  DType type;

  Matrix(int rows, int columns, DType type, unsigned seed)
      : rows(rows),
        columns(columns),
        values(whole_numbers(static_cast<std::size_t>(rows) * columns, seed)),
        data(encode(values, type)),
        type(type) {}
  float at(int row, int column) const { return values[static_cast<std::size_t>(row) * columns + column]; }
  CUtensorMap map(int box_rows, int span) const {
    const auto r = static_cast<std::uint64_t>(rows), c = static_cast<std::uint64_t>(columns);
    TensorMap map;
    map.type = type;
    map.data = data.data();
    map.rank = 4;
    map.size = {c, r, 1, 1};
    map.strides = {2 * c, 2 * c * r, 2 * c * r};
    map.box = {static_cast<std::uint32_t>(span) / 2, static_cast<std::uint32_t>(box_rows), 1, 1};
    map.span = span;
    return encode(map, "test");
  }
};

// What a sum is before the first product.
__host__ __device__ constexpr float start_of(int row, int column) { return static_cast<float>(row - 2 * column); }

// Calls element(sum, row, column) for the sums that a thread of a warpgroup has of 64 rows × N columns.
template <int N, typename Element>
__device__ __forceinline__ void for_each_sum(float (*sums)[4], Element element) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < N / 8; ++i)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      element(sums[i][k], thread / 32 * 16 + k / 2 * 8 + thread % 32 / 4, 8 * i + thread % 4 * 2 + k % 2);
}

// Which part of the factors is multiplied: 64 rows of a's box from `first_row` on, products from `first` on. `room` is
// what shared memory has for both; b's box fills its end.
struct Part {
  int span = 128, rows = 64, first_row = 0, first = 0, depth = kProducts;
  unsigned room = SharedMemory::kRoom;
};

template <typename T, int N>
struct Multiply {
  static constexpr int kCapability = 90, kThreads = 128;
  CUtensorMap a, b;
  Part part;
  float* out;  // [64][N]

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    const std::uint32_t b_room = shared.room + part.room - N * part.span;
    make_barriers(shared, 1);
    if (threadIdx.x == 0) {
      mbarrier_arrive_expect(shared.barrier(), (part.rows + N) * part.span);
      tensor_load(shared.room, a, shared.barrier(), 0, 0, 0, 0);
      tensor_load(b_room, b, shared.barrier(), 0, 0, 0, 0);
    }
    float sums[N / 8][4];
    for_each_sum<N>(sums, [](float& sum, int row, int column) { sum = start_of(row, column); });
    mbarrier_wait(shared.barrier(), 0);
    const std::uint64_t a_factor = matrix_descriptor(shared.room + part.first_row * part.span, part.span),
                        b_factor = matrix_descriptor(b_room, part.span);
#pragma unroll 1
    for (int k = part.first; k < part.first + part.depth; k += kProducts) {
      fence_registers(sums);
      wgmma_fence();
      wgmma<T, N>(sums, a_factor + (2 * k >> 4), b_factor + (2 * k >> 4));
      wgmma_commit();
      wgmma_wait<0>();
      fence_registers(sums);
    }
    for_each_sum<N>(sums, [&](float sum, int row, int column) { out[(blockIdx.x * 64 + row) * N + column] = sum; });
  }
};

template <typename T, int N>
std::string wrong_product(const Part& part) {
  const Matrix a(part.rows, part.span / 2, kTypeOf<T>, 1), b(N, part.span / 2, kTypeOf<T>, 2);
  const DeviceArray<float> out(kBlocks * 64 * N);
  run(Multiply<T, N>{a.map(part.rows, part.span), b.map(N, part.span), part, out.data()}, {.room = part.room});
  std::vector<float> want;
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < N; ++column) {
      want.push_back(start_of(row, column));
      for (int k = part.first; k < part.first + part.depth; ++k)
        want.back() += a.at(part.first_row + row, k) * b.at(column, k);
    }
  return describe_wrong_elements(out.download(), want, N);
}

template <typename T, int N>
void check_product(const Part& part) {
  if (!can_run(90)) return;
  CAPTURE(N);
  CAPTURE(part.span);
  CAPTURE(part.first_row);
  CAPTURE(part.first);
  const std::string wrong = wrong_product<T, N>(part);
  CHECK(wrong == "");
}

template <typename T>
void check_every_width(const Part& part) {
  check_product<T, 32>(part);
  check_product<T, 64>(part);
  check_product<T, 96>(part);
  check_product<T, 128>(part);
  check_product<T, 160>(part);
  check_product<T, 192>(part);
  check_product<T, 256>(part);
}

using Bf16 = __nv_bfloat16;

KERNEL_TEST_CASE("instructions: wgmma multiplies 64 rows by 32 to 256 columns of bf16") {
  check_every_width<Bf16>({});
}
KERNEL_TEST_CASE("instructions: wgmma multiplies 64 rows by 32 to 256 columns of fp16") {
  check_every_width<__half>({});
}
KERNEL_TEST_CASE("instructions: wgmma reads factors with rows of 32 and 64 bytes") {
  for (const int span : {32, 64}) {
    check_product<Bf16, 32>({.span = span});
    check_product<Bf16, 192>({.span = span});
  }
}
KERNEL_TEST_CASE("instructions: wgmma finds the next 16 products 32 bytes on in a swizzled row") {
  for (const int span : {64, 128})
    for (int first = kProducts; first < span / 2; first += kProducts)
      check_product<Bf16, 64>({.span = span, .first = first});
}
KERNEL_TEST_CASE("instructions: wgmma adds to the sums of the instructions before it") {
  for (const int span : {64, 128}) {
    check_product<Bf16, 64>({.span = span, .depth = span / 2});
    check_product<Bf16, 192>({.span = span, .depth = span / 2});
  }
}
KERNEL_TEST_CASE("instructions: wgmma reads the next 64 rows when its start is advanced by them") {
  for (const int span : {32, 64, 128})
    check_product<Bf16, 64>({.span = span, .rows = 128, .first_row = 64, .depth = span / 2});
}
KERNEL_TEST_CASE("instructions: wgmma reads the next tap's pixels when its start is advanced by 8, 16 or 24") {
  for (const int span : {64, 32, 128})
    for (const int columns : {8, 16, 24})
      for (const int tap : {1, 2})
        check_product<Bf16, 64>(
            {.span = span, .rows = 64 + 2 * columns, .first_row = tap * columns, .depth = span / 2});
}

KERNEL_TEST_CASE("instructions: bulk copies and wgmma reach the end of 227 KiB of shared memory") {
  check_product<Bf16, 192>({.depth = 64, .room = 225 * 1024});
}

// Like conv_sm90: one thread keeps two stages full, and a warpgroup, of 128 rows here, frees each when it has issued
// the next one's products and waited for all but those.
struct MultiplyRing {
  static constexpr int kCapability = 90, kThreads = 160, kColumns = 64, kSpan = 128, kStages = 2;
  CUtensorMap a, b;  // boxes of 128 and 64 rows
  int steps;
  float* out;  // [128][kColumns]

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    constexpr int kPixelBytes = 128 * kSpan, kStageBytes = kPixelBytes + kColumns * kSpan;
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kLanes, 0);
    const auto full = [&](int step) { return shared.barrier(step % kStages); };
    const auto empty = [&](int step) { return shared.barrier(kStages + step % kStages); };
    const auto stage = [&](int step) { return shared.room + step % kStages * kStageBytes; };
    const auto parity = [](int step) { return static_cast<unsigned>(step / kStages % 2); };
    make_barriers(shared, 1, 1, 4, 4);
    if (warp == 4) {
      if (elect_one())
        for (int step = 0; step < steps; ++step) {
          mbarrier_wait(empty(step), parity(step) ^ 1);
          mbarrier_arrive_expect(full(step), kStageBytes);
          tensor_load(stage(step), a, full(step), step * kSpan / 2, 0, 0, 0);
          tensor_load(stage(step) + kPixelBytes, b, full(step), step * kSpan / 2, 0, 0, 0);
        }
      return;
    }
    float sums[2 * kColumns / 8][4] = {};
    fence_registers(sums);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      mbarrier_wait(full(step), parity(step));
      wgmma_fence();
      const std::uint64_t pixels = matrix_descriptor(stage(step), kSpan),
                          weights = matrix_descriptor(stage(step) + kPixelBytes, kSpan);
#pragma unroll
      for (int k = 0; k < kSpan / 2; k += kProducts)
#pragma unroll
        for (int group = 0; group < 2; ++group)
          wgmma<Bf16, kColumns>(&sums[group * kColumns / 8], pixels + ((group * 64 * kSpan + 2 * k) >> 4),
                                weights + (2 * k >> 4));
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0 && threadIdx.x % kLanes == 0) mbarrier_arrive(empty(step - 1));
    }
    wgmma_wait<0>();
    fence_registers(sums);
    for (int group = 0; group < 2; ++group)
      for_each_sum<kColumns>(&sums[group * kColumns / 8], [&](float sum, int row, int column) {
        out[((blockIdx.x * 2 + group) * 64 + row) * kColumns + column] = sum;
      });
  }
};

KERNEL_TEST_CASE("instructions: a ring of stages is filled again behind products that have been waited for") {
  if (!can_run(90)) return;
  constexpr int kSteps = 12, kColumns = MultiplyRing::kColumns, kDepth = kSteps * MultiplyRing::kSpan / 2;
  const Matrix a(128, kDepth, DType::BF16, 1), b(kColumns, kDepth, DType::BF16, 2);
  const DeviceArray<float> out(kBlocks * 128 * kColumns);
  run(MultiplyRing{a.map(128, MultiplyRing::kSpan), b.map(kColumns, MultiplyRing::kSpan), kSteps, out.data()});
  std::vector<float> want;
  for (int row = 0; row < 128; ++row)
    for (int column = 0; column < kColumns; ++column) {
      want.push_back(0);
      for (int k = 0; k < kDepth; ++k) want.back() += a.at(row, k) * b.at(column, k);
    }
  check_elements(out.download(), want, kColumns);
}

// The first factor is a tile that threads have written as an epilogue does.
struct MultiplyWritten {
  static constexpr int kCapability = 90, kThreads = 128, kColumns = 64;
  static constexpr Tile kTile{64, 64, 64, 1};
  const float* a;  // [64][64]
  CUtensorMap b;
  float* out;  // [64][kColumns]

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    constexpr int kSpan = Staged<kTile>::kSpan;
    const std::uint32_t b_room = shared.room + SharedMemory::kRoom / 2;
    const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
    make_barriers(shared, 1);
    if (threadIdx.x == 0) {
      mbarrier_arrive_expect(shared.barrier(), kColumns * kSpan);
      tensor_load(b_room, b, shared.barrier(), 0, 0, 0, 0);
    }
    for (int unit = 0; unit < Staged<kTile>::kUnits; unit += 2) {
      unsigned words[4];
      for (int k = 0; k < 4; ++k) {
        const float* const pair = a + (warp * 16 + k % 2 * 8 + lane / 4) * 64 + (unit + k / 2) * 8 + lane % 4 * 2;
        words[k] = pack<Bf16>(pair[0], pair[1]);
      }
      stmatrix_x4(shared.bytes + Staged<kTile>::place(warp * 16 + lane % 16, unit + lane / 16), words);
    }
    fence_async_shared();
    named_barrier(1, kThreads);
    mbarrier_wait(shared.barrier(), 0);
    float sums[kColumns / 8][4] = {};
    fence_registers(sums);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kSpan / 2; k += kProducts)
      wgmma<Bf16, kColumns>(sums, matrix_descriptor(shared.room, kSpan) + (2 * k >> 4),
                            matrix_descriptor(b_room, kSpan) + (2 * k >> 4));
    wgmma_commit();
    wgmma_wait<0>();
    fence_registers(sums);
    for_each_sum<kColumns>(
        sums, [&](float sum, int row, int column) { out[(blockIdx.x * 64 + row) * kColumns + column] = sum; });
  }
};

KERNEL_TEST_CASE("instructions: wgmma reads a tile that threads have written by stmatrix") {
  if (!can_run(90)) return;
  const std::vector<float> a = whole_numbers(64 * 64, 1);
  const Matrix b(64, 64, DType::BF16, 2);
  const DeviceArray<float> device_a(a), out(kBlocks * 64 * 64);
  run(MultiplyWritten{device_a.data(), b.map(64, 128), out.data()});
  std::vector<float> want;
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < 64; ++column) {
      want.push_back(0);
      for (int k = 0; k < 64; ++k) want.back() += a[row * 64 + k] * b.at(column, k);
    }
  check_elements(out.download(), want, 64);
}

// No kernel relies on it, but one set of pixels could serve nine taps if it is so (docs/performance.md). Where it is
// not, the case is skipped and says so.
KERNEL_TEST_CASE("instructions: wgmma may start at any row, which is open") {
  if (!can_run(90)) return;
  for (const int span : {64, 128})
    for (const int first_row : {1, 3, 13}) {
      const std::string wrong =
          wrong_product<Bf16, 64>({.span = span, .rows = 80, .first_row = first_row, .depth = span / 2});
      if (!wrong.empty())
        test::skip("it may not: span " + std::to_string(span) + ", first row " + std::to_string(first_row) + ": " +
                   wrong);
    }
}

}  // namespace
}  // namespace damoyolo::kernels
