// Tensors in device memory for tests of kernels: on the host they are host memory with AddressSanitizer's red zones
// around, on a GPU the same tests use the GPU.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/core/activation.h"
#include "kernels/launch.h"
#include "kernels/tensor.h"
#include "tests/skip.h"

// A test case that needs a device, and is reported as skipped where there is none. The host always is one.
#define KERNEL_TEST_CASE(name) KERNEL_TEST_CASE_AS(DOCTEST_ANONYMOUS(kernel_test_), name)
#define KERNEL_TEST_CASE_AS(function, name)          \
  static void function();                            \
  TEST_CASE(name) {                                  \
    if (damoyolo::kernels::has_device()) function(); \
  }                                                  \
  static void function()

namespace damoyolo::kernels {

// Whether there is a device. Otherwise the test case is reported as skipped, and returns.
inline bool has_device() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) return true;
  test::skip("needs a GPU");
  return false;
}

// Whether there is one that runs kernels made for compute capability `made_for` / 10: 90 stands for sm_90a, which
// runs on 9.0 alone. Otherwise the same.
inline bool can_run(int made_for) {
  if (!has_device()) return false;
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "test");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "test");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "test");
  const int capability = 10 * major + minor;
#ifdef DAMOYOLO_WITHOUT_SM90A
  if (made_for == 90) {
    test::skip("built without sm_90a");
    return false;
  }
#endif
  if (made_for == 90 ? capability == 90 : capability >= made_for) return true;
  test::skip("needs compute capability " + std::to_string(made_for / 10) + "." + std::to_string(made_for % 10));
  return false;
}

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    check(cudaMalloc(&data_, count_ * sizeof(T)), "test");
    check(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "test");
  }
  explicit DeviceArray(std::size_t count) : DeviceArray(std::vector<T>(count)) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> download() const {
    std::vector<T> values(count_);
    check(cudaDeviceSynchronize(), "test");
    check(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "test");
    return values;
  }

 private:
  void* data_ = nullptr;
  std::size_t count_ = 0;
};

inline std::vector<std::byte> encode(const std::vector<float>& values, DType type) {
  std::vector<std::byte> bytes(values.size() * size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::byte* to = bytes.data() + i * size_of(type);
    if (type == DType::F32) std::memcpy(to, &values[i], 4);
    const std::uint16_t bf16 = bf16_from_float(values[i]);
    if (type == DType::BF16) std::memcpy(to, &bf16, 2);
    const __half half = __float2half_rn(values[i]);
    if (type == DType::F16) std::memcpy(to, &half, 2);
  }
  return bytes;
}

inline std::vector<float> decode(const std::vector<std::byte>& bytes, DType type) {
  std::vector<float> values(bytes.size() / size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element_as_float(bytes.data() + i * size_of(type), type);
  return values;
}

// Repeatable values, about [−range, range].
inline std::vector<float> random_values(std::size_t count, unsigned seed, float range = 2.0f) {
  std::mt19937 generator(seed);
  std::vector<float> values(count);
  for (float& value : values) value = (static_cast<float>(generator() >> 8) * 0x1p-23f - 1.0f) * range;
  return values;
}

// Repeatable whole numbers from -6 to 6, whose products add up without rounding.
inline std::vector<float> whole_numbers(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(generator() % 13) - 6.0f;
  return values;
}

struct Size {
  int n, h, w, c;
};

// Where the channels lie in their buffer: before and after them, this many that belong to others.
struct Placement {
  int before = 0, after = 0;
};

// An aligned slice for every type, one aligned for none, and a buffer of its own.
constexpr Placement kPlacements[] = {{0, 0}, {8, 16}, {3, 2}};

class DeviceTensor {
 public:
  DeviceTensor(DType type, Size size, Placement place, unsigned seed)
      : DeviceTensor(type, size, place, random_values(elements(size, place), seed)) {}
  // buffer: [n, h, w, before + c + after], the channels of others included.
  DeviceTensor(DType type, Size size, Placement place, const std::vector<float>& buffer)
      : size_(size),
        type_(type),
        place_(place),
        initial_(decode(encode(buffer, type), type)),
        memory_(encode(initial_, type)) {}

  static std::size_t elements(Size size, Placement place) {
    return static_cast<std::size_t>(size.n * size.h * size.w * (place.before + size.c + place.after));
  }

  TensorView view() const {
    return {memory_.data(), type_, size_.n, size_.h, size_.w, size_.c, width(), place_.before};
  }
  // [n, h, w, c] as uploaded, and as it is now.
  std::vector<float> initial() const { return own_channels(initial_); }
  std::vector<float> values() const { return own_channels(decode(memory_.download(), type_)); }

  // The channels of others hold what they held.
  bool others_untouched() const {
    const std::vector<float> now = decode(memory_.download(), type_);
    for (std::size_t i = 0; i < now.size(); ++i)
      if (!is_own(i) && now[i] != initial_[i]) return false;
    return true;
  }

 private:
  int width() const { return place_.before + size_.c + place_.after; }
  bool is_own(std::size_t i) const {
    const int channel = static_cast<int>(i % static_cast<std::size_t>(width()));
    return channel >= place_.before && channel < place_.before + size_.c;
  }
  std::vector<float> own_channels(const std::vector<float>& all) const {
    std::vector<float> own;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (is_own(i)) own.push_back(all[i]);
    return own;
  }

  Size size_;
  DType type_;
  Placement place_;
  std::vector<float> initial_;
  DeviceArray<std::byte> memory_;
};

constexpr DType kStorageTypes[] = {DType::F32, DType::F16, DType::BF16};

// |got − exact| when `exact` is rounded once to `type` after fp32 sums whose terms' magnitudes add up to `terms`.
inline double rounding_bound(DType type, double exact, double terms) {
  const double unit = type == DType::F32 ? 0x1p-24 : type == DType::F16 ? 0x1p-11 : 0x1p-8;
  const double smallest = type == DType::F16 ? 0x1p-25 : 0x1p-126;
  return (std::abs(exact) * unit + smallest) * 1.001 + terms * 32 * 0x1p-24;
}

}  // namespace damoyolo::kernels
