// Bulk tensor copies: which elements come to which places, how many bytes count, and what a store writes.
#include <array>

#include "kernels/conv_sm90_epilogue.cuh"
#include "tests/kernels/instructions.cuh"

namespace damoyolo::kernels {
namespace {

struct Place {
  int channel = 0, column = 0, row = 0, image = 0;
};

// An NHWC tensor of 16-bit elements, or weights: `c` channels, from `first` on, of a buffer of `width` channels, whose
// elements are numbered from 1.
struct Tensor {
  int n = 1, h = 1, w = 1, c = 64, width = 64, first = 0;

  std::size_t elements() const { return static_cast<std::size_t>(n) * h * w * width; }
  bool holds(const Place& at) const {
    return at.channel >= 0 && at.channel < c && at.column >= 0 && at.column < w && at.row >= 0 && at.row < h &&
           at.image >= 0 && at.image < n;
  }
  std::size_t index(const Place& at) const {
    return static_cast<std::size_t>(((at.image * h + at.row) * w + at.column) * width + first + at.channel);
  }
  std::vector<std::uint16_t> numbered() const {
    std::vector<std::uint16_t> values(elements());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i + 1);
    return values;
  }
};

// A box of `span` / 2 channels, columns, rows and images.
struct Box {
  int span = 128;
  std::array<int, 3> size{8, 4, 1};
  Place start{};
  int step = 1;  // of columns and rows
  DType type = DType::BF16;

  int rows() const { return size[0] * size[1] * size[2]; }  // in shared memory
  int elements() const { return rows() * span / 2; }
  CUtensorMap map(const Tensor& tensor, std::uint16_t* data) const {
    const auto extent = [](int value) { return static_cast<std::uint32_t>(value); };
    const std::uint64_t pixel = extent(tensor.width) * 2, row = extent(tensor.w) * pixel;
    TensorMap map;
    map.type = type;
    map.data = data + tensor.first;
    map.rank = 4;
    map.size = {extent(tensor.c), extent(tensor.w), extent(tensor.h), extent(tensor.n)};
    map.strides = {pixel, row, extent(tensor.h) * row};
    map.box = {extent(span) / 2, extent(size[0]), extent(size[1]), extent(size[2])};
    map.steps = {1, extent(step), extent(step), 1};
    map.span = span;
    return encode(map, "test");
  }
  // Calls element(index in shared memory, place in the tensor or outside).
  template <typename Element>
  void for_each_element(Element element) const {
    for (int i = 0; i < rows(); ++i)
      for (int k = 0; k < span / 2; ++k)
        element(static_cast<std::size_t>(swizzled_unit(i, k / 8, span) * 8 + k % 8),
                Place{start.channel + k, start.column + i % size[0] * step, start.row + i / size[0] % size[1] * step,
                      start.image + i / size[0] / size[1]});
  }
};

std::string describe(const Tensor& tensor, const Box& box) {
  std::ostringstream text;
  text << "box of " << box.span << " bytes, " << box.size[0] << " columns, " << box.size[1] << " rows and "
       << box.size[2] << " images, every " << box.step << ", from channel " << box.start.channel << ", column "
       << box.start.column << ", row " << box.start.row << ", image " << box.start.image << " of [" << tensor.n << ", "
       << tensor.h << ", " << tensor.w << ", " << tensor.c << " of " << tensor.width << "]";
  return text.str();
}

constexpr int kBehind = 512;  // elements behind a box that a copy must leave alone

struct LoadBox {
  static constexpr int kCapability = 90, kThreads = 64;
  CUtensorMap map;
  Place start;
  int elements;
  bool prefetch;
  std::uint16_t* out;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    fill_room(shared, nullptr, elements + kBehind);
    make_barriers(shared, 1);
    if (threadIdx.x == 0) {
      if (prefetch) prefetch_tensor_map(map);
      mbarrier_arrive_expect(shared.barrier(), elements * 2);
      tensor_load(shared.room, map, shared.barrier(), start.channel, start.column, start.row, start.image);
    }
    mbarrier_wait(shared.barrier(), 0);
    take_room(shared, out, elements + kBehind);
  }
};

void check_load(const Tensor& tensor, const Box& box, bool prefetch = false) {
  if (!can_run(90)) return;
  INFO(describe(tensor, box));
  const DeviceArray<std::uint16_t> data(tensor.numbered());
  const auto count = static_cast<std::size_t>(box.elements() + kBehind);
  const DeviceArray<std::uint16_t> out(kBlocks * count);
  run(LoadBox{box.map(tensor, data.data()), box.start, box.elements(), prefetch, out.data()});
  std::vector<std::uint16_t> want(count, kNothing);
  box.for_each_element([&](std::size_t i, const Place& at) {
    want[i] = tensor.holds(at) ? static_cast<std::uint16_t>(tensor.index(at) + 1) : 0;
  });
  check_elements(out.download(), want, static_cast<std::size_t>(box.span) / 2);
}

constexpr Tensor kImages{.n = 2, .h = 9, .w = 11, .c = 64, .width = 64};

KERNEL_TEST_CASE("instructions: a bulk tensor copy swizzles units of 16 bytes over rows of 32, 64 and 128 bytes") {
  for (const int span : {32, 64, 128}) check_load(kImages, {.span = span});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings fp16 and several images") {
  check_load(kImages, {.size = {4, 3, 2}, .start = {0, 5, 6, 0}, .type = DType::F16});
}
KERNEL_TEST_CASE("instructions: a tensor map may be prefetched") { check_load(kImages, {}, true); }
KERNEL_TEST_CASE("instructions: a bulk tensor copy starts at negative coordinates and brings zeros") {
  for (const int span : {32, 64, 128}) check_load(kImages, {.span = span, .start = {0, -1, -1, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings zeros from behind the tensor's end") {
  for (const int span : {32, 64, 128}) check_load(kImages, {.span = span, .start = {0, 6, 7, 1}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings a box that is larger than the tensor") {
  check_load({.c = 8, .width = 8}, {.size = {16, 8, 1}, .start = {0, -1, -1, 0}});
  check_load({.c = 8, .width = 8}, {.span = 64, .size = {8, 18, 1}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy of a box outside the tensor brings zeros and counts its bytes") {
  check_load(kImages, {.start = {0, 0, 0, 2}});
  check_load(kImages, {.start = {64, 0, 0, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings zeros behind the last channel, also within 16 bytes") {
  for (const int channels : {20, 24, 56})
    check_load({.h = 5, .w = 9, .c = channels, .width = 80}, {.start = {0, 0, 0, 0}});
  check_load({.h = 5, .w = 9, .c = 72, .width = 80}, {.start = {64, 0, 0, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings channels of a wider buffer") {
  check_load({.h = 5, .w = 9, .c = 24, .width = 80, .first = 8}, {.start = {0, 2, 1, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy takes every other pixel") {
  for (const int span : {32, 64, 128}) check_load(kImages, {.span = span, .size = {4, 3, 1}, .step = 2});
}
KERNEL_TEST_CASE(
    "instructions: a bulk tensor copy takes every other pixel from an odd one on, to behind the tensor's end") {
  check_load(kImages, {.size = {8, 4, 1}, .start = {0, 1, 3, 1}, .step = 2});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy takes every other pixel from a negative one on") {
  for (const int span : {32, 64, 128})
    check_load(kImages, {.span = span, .size = {8, 4, 1}, .start = {0, -1, -1, 0}, .step = 2});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings one tap of the weights of many channels") {
  check_load({.n = 104, .h = 3, .w = 3, .c = 40, .width = 40},
             {.span = 64, .size = {1, 1, 96}, .start = {32, 1, 2, 64}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor copy brings 256 pixels of a row") {
  check_load({.w = 300, .c = 24, .width = 40}, {.span = 32, .size = {256, 1, 1}, .start = {16, 100, 0, 0}});
}

// The first copy is announced when the second has come, and so most likely the first.
struct AnnounceLate {
  static constexpr int kCapability = 90, kThreads = 64;
  CUtensorMap map;
  int elements;  // of a box
  std::uint16_t* out;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    make_barriers(shared, 1, 1);
    if (threadIdx.x == 0) {
      tensor_load(shared.room, map, shared.barrier(0), 0, 0, 0, 0);
      mbarrier_arrive_expect(shared.barrier(1), elements * 2);
      tensor_load(shared.room + elements * 2, map, shared.barrier(1), 0, 0, 0, 1);
      mbarrier_wait(shared.barrier(1), 0);
      mbarrier_arrive_expect(shared.barrier(0), elements * 2);
    }
    mbarrier_wait(shared.barrier(0), 0);
    mbarrier_wait(shared.barrier(1), 0);
    take_room(shared, out, 2 * elements);
  }
};

KERNEL_TEST_CASE("instructions: bytes that come before they are announced count") {
  if (!can_run(90)) return;
  const DeviceArray<std::uint16_t> data(kImages.numbered());
  const Box box;
  const DeviceArray<std::uint16_t> out(kBlocks * 2 * static_cast<std::size_t>(box.elements()));
  run(AnnounceLate{box.map(kImages, data.data()), box.elements(), out.data()});
  Box both = box;
  both.size[2] = 2;
  std::vector<std::uint16_t> want(static_cast<std::size_t>(both.elements()));
  both.for_each_element(
      [&](std::size_t i, const Place& at) { want[i] = static_cast<std::uint16_t>(kImages.index(at) + 1); });
  check_elements(out.download(), want, 64);
}

struct StoreBox {
  static constexpr int kCapability = 90, kThreads = 64;
  CUtensorMap map;
  Place start;
  const std::uint16_t* image;  // of shared memory
  int elements;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    fill_room(shared, image, elements);
    if (threadIdx.x == 0) {
      tensor_store(map, shared.room, start.channel, start.column, start.row, start.image);
      store_commit();
      store_wait_read<0>();
    }
  }
};

// Every block stores the same.
void check_store(const Tensor& tensor, const Box& box) {
  if (!can_run(90)) return;
  INFO(describe(tensor, box));
  std::vector<std::uint16_t> image(static_cast<std::size_t>(box.elements())), want = tensor.numbered();
  box.for_each_element([&](std::size_t i, const Place& at) {
    image[i] = static_cast<std::uint16_t>(40000 + i);
    if (tensor.holds(at)) want[tensor.index(at)] = image[i];
  });
  const DeviceArray<std::uint16_t> data(tensor.numbered()), device_image(image);
  run(StoreBox{box.map(tensor, data.data()), box.start, device_image.data(), box.elements()});
  check_elements(data.download(), want, static_cast<std::size_t>(tensor.width));
}

KERNEL_TEST_CASE("instructions: a bulk tensor store takes units from their swizzled places") {
  for (const int span : {32, 64, 128}) check_store(kImages, {.span = span, .start = {0, 2, 3, 1}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor store is cut off at the tensor's end") {
  for (const int span : {32, 64, 128}) check_store(kImages, {.span = span, .start = {0, 6, 7, 1}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor store is cut off at the tensor's beginning") {
  check_store(kImages, {.start = {0, -2, -1, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor store is cut off at the last channel, also within 16 bytes") {
  for (const int channels : {20, 24, 56})
    check_store({.h = 5, .w = 9, .c = channels, .width = 80}, {.start = {0, 3, 2, 0}});
  check_store({.h = 5, .w = 9, .c = 72, .width = 80}, {.start = {64, 3, 2, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor store leaves the other channels of a wider buffer alone") {
  check_store({.h = 5, .w = 9, .c = 24, .width = 80, .first = 8}, {.start = {0, 2, 1, 0}});
}
KERNEL_TEST_CASE("instructions: a bulk tensor store of a box outside the tensor writes nothing") {
  check_store(kImages, {.start = {0, 0, 0, 2}});
  check_store(kImages, {.start = {64, 0, 0, 0}});
}

// Block b stores to image b, row by row from the same place.
struct StoreRows {
  static constexpr int kCapability = 90, kThreads = 64;
  CUtensorMap map;  // boxes of a row
  int rows, elements;

  __device__ __forceinline__ void operator()() const {
    const SharedMemory shared;
    for (int row = 0; row < rows; ++row) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < elements; i += kThreads) {
        const auto value = static_cast<std::uint16_t>(row + 1);
        __builtin_memcpy(shared.bytes + 2 * i, &value, 2);
      }
      fence_async_shared();
      __syncthreads();
      if (threadIdx.x != 0) continue;
      tensor_store(map, shared.room, 0, 0, row, static_cast<int>(blockIdx.x));
      store_commit();
      store_wait_read<0>();
    }
  }
};

KERNEL_TEST_CASE("instructions: memory that a bulk tensor store has read may be filled again") {
  if (!can_run(90)) return;
  constexpr Tensor kTarget{.n = kBlocks, .h = 40, .w = 64, .c = 64, .width = 64};
  constexpr Box kRow{.size = {64, 1, 1}};
  const DeviceArray<std::uint16_t> data(kTarget.elements());
  run(StoreRows{kRow.map(kTarget, data.data()), kTarget.h, kRow.elements()});
  std::vector<std::uint16_t> want(kTarget.elements() / kBlocks);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] = static_cast<std::uint16_t>(i / 64 / 64 + 1);
  check_elements(data.download(), want, 64);
}

// What conv_sm90 does with a residual: a tile of 64 pixels × N channels comes by bulk copies, threads change it in
// place in the order in which wgmma leaves its sums, and it goes by bulk copies. Here they add pixel + channel to it.
template <int N>
struct ChangeTile {
  static constexpr int kCapability = 90, kThreads = 128;
  static constexpr Tile kTile{64, N, 64, 1};
  CUtensorMap from, to;  // boxes of 8 × 8 pixels and kTile.chunk() channels

  __device__ __forceinline__ void operator()() const {
    using T = __nv_bfloat16;
    const SharedMemory shared;
    const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
    const int image = static_cast<int>(blockIdx.x);
    make_barriers(shared, 1);
    if (threadIdx.x == 0) {
      mbarrier_arrive_expect(shared.barrier(), 64 * N * 2);
      for (int chunk = 0; chunk < N / kTile.chunk(); ++chunk)
        tensor_load(shared.room + chunk * Staged<kTile>::kChunkBytes, from, shared.barrier(), chunk * kTile.chunk(), 0,
                    0, image);
    }
    mbarrier_wait(shared.barrier(), 0);
    for (int i = 0; i < kTile.fragments() / 4; ++i) {
      const Piece piece = piece_of_warp<kTile>(warp, i);
      for (int half = 0; half < 2; ++half) {
        unsigned char* const place =
            shared.bytes + Staged<kTile>::place(piece.row * 16 + lane % 16, piece.column * 4 + half * 2 + lane / 16);
        unsigned words[4];
        ldmatrix_x4(words, place);
        for (int k = 0; k < 4; ++k) {
          const int pixel = piece.row * 16 + k % 2 * 8 + lane / 4;
          const int channel = piece.column * 32 + (half * 2 + k / 2) * 8 + lane % 4 * 2;
          float first, second;
          unpack<T>(words[k], first, second);
          words[k] =
              pack<T>(first + static_cast<float>(pixel + channel), second + static_cast<float>(pixel + channel + 1));
        }
        stmatrix_x4(place, words);
      }
    }
    fence_async_shared();
    named_barrier(1, kThreads);
    if (threadIdx.x == 0) {
      for (int chunk = 0; chunk < N / kTile.chunk(); ++chunk)
        tensor_store(to, shared.room + chunk * Staged<kTile>::kChunkBytes, chunk * kTile.chunk(), 0, 0, image);
      store_commit();
      store_wait_read<0>();
    }
  }
};

template <int N>
void check_change() {
  if (!can_run(90)) return;
  CAPTURE(N);
  constexpr Tensor kTensor{.n = kBlocks, .h = 8, .w = 8, .c = N, .width = N};
  constexpr Box kBox{.span = ChangeTile<N>::kTile.chunk() * 2, .size = {8, 8, 1}};
  const std::vector<float> before = whole_numbers(64 * N, 1);
  std::vector<std::uint16_t> bits(kTensor.elements()), want(before.size());
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = bf16_from_float(before[i % before.size()]);
  for (std::size_t i = 0; i < want.size(); ++i)
    want[i] = bf16_from_float(before[i] + static_cast<float>(i / N + i % N));
  const DeviceArray<std::uint16_t> from(bits), to(bits.size());
  run(ChangeTile<N>{kBox.map(kTensor, from.data()), kBox.map(kTensor, to.data())});
  check_elements(to.download(), want, N);
}

KERNEL_TEST_CASE("instructions: a tile that came by bulk copy is changed by ldmatrix and stmatrix and stored again") {
  check_change<64>();
  check_change<96>();
}

}  // namespace
}  // namespace damoyolo::kernels
