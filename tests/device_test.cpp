// Which device and precision "auto" comes to, on machines that are only described.
#include "engine/device.h"

#include <doctest/doctest.h>

#include "engine/core/error.h"
#include "engine/mode.h"

using namespace damoyolo;

namespace {

GpuList gpu(int major, int minor) {
  return {{{0, "First", major, minor, std::size_t{80} << 30, 132, 13000, 13000}, {1, "Second", 9, 0}}, {}};
}
const GpuList kNone{{}, "there is no NVIDIA driver"};

// With cuDNN, or with our own kernels alone.
GpuKernels all(const Gpu&) { return {{"cuDNN 9.1.0: file"}, true, true}; }
GpuKernels own(const Gpu& gpu) { return {{"cuDNN: not found", "our own"}, false, gpu.major >= 8}; }

std::string refusal(std::string_view device, Precision precision, const GpuList& gpus) {
  try {
    choose_device(device, precision, gpus);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("auto takes the first GPU, and the precision that it is fast in") {
  const auto chosen = [](int major, int minor) {
    return choose_device("auto", Precision::Auto, gpu(major, minor), all);
  };
  CHECK(chosen(9, 0).device == "cuda:0");
  CHECK(chosen(9, 0).precision == Precision::Bf16);
  CHECK(chosen(8, 0).precision == Precision::Bf16);
  CHECK(chosen(7, 5).precision == Precision::Fp16);
  CHECK(chosen(7, 0).precision == Precision::Fp32);
  CHECK(chosen(6, 1).precision == Precision::Fp32);
  CHECK(chosen(7, 5).reason == "cuda:0, because there is a GPU; fp16, because First has compute capability 7.5");
  CHECK(choose_device("cuda:1", Precision::Auto, gpu(7, 5)).device == "cuda:1");
  CHECK(choose_device("cuda", Precision::Fp32, gpu(9, 0)).precision == Precision::Fp32);
}

TEST_CASE("without a GPU auto takes the CPU and says why, and cuda is refused") {
  const DeviceChoice choice = choose_device("auto", Precision::Fp32, kNone);
  CHECK(choice.device == "cpu");
  CHECK(choice.reason == "cpu, because there is no NVIDIA driver; fp32, as asked");
  CHECK(choose_device("cpu", Precision::Fp32, gpu(9, 0)).device == "cpu");
  CHECK(refusal("cuda", Precision::Auto, kNone) ==
        "cuda was asked for, and there is no NVIDIA driver; expected auto or cpu");
}

TEST_CASE("auto takes a GPU only if something computes convolutions there") {
  CHECK(choose_device("auto", Precision::Auto, gpu(9, 0), own).device == "cuda:0");
  CHECK(choose_device("auto", Precision::Fp32, gpu(9, 0), all).device == "cuda:0");
  CHECK(choose_device("auto", Precision::Fp32, gpu(9, 0), own).reason ==
        "cpu, because nothing computes convolutions in fp32 on cuda:0 (cuDNN: not found; our own); fp32, as asked");
  const DeviceChoice turing = choose_device("auto", Precision::Auto, gpu(7, 5), own);
  CHECK(turing.device == "cpu");
  CHECK(turing.precision != Precision::Fp16);
  // Who asks for the GPU is told by the first convolution.
  CHECK(choose_device("cuda", Precision::Fp32, gpu(9, 0), own).device == "cuda:0");
}

TEST_CASE("a GPU or a precision that is not there is refused") {
  CHECK(refusal("cuda:2", Precision::Auto, gpu(9, 0)) == "there is no GPU 2, expected cuda:0 to cuda:1");
  CHECK(refusal("cuda", Precision::Bf16, gpu(7, 5)) ==
        "bf16 was asked for, and First has compute capability 7.5; expected auto, fp32 or fp16");
  CHECK(refusal("cuda", Precision::Fp16, gpu(7, 0)) ==
        "fp16 was asked for, and First has compute capability 7.0; expected auto or fp32");
  for (const char* name : {"cuda:", "cuda:x", "cuda:1x", "cuda:-1", "gpu", ""})
    CHECK(refusal(name, Precision::Auto, gpu(9, 0)).starts_with("there is no device"));
}

TEST_CASE("modes have the names that users know") {
  for (const Mode mode : {Mode::Default, Mode::ReduceOverhead, Mode::MaxAutotune})
    CHECK(mode_from_name(name_of(mode)) == mode);
  CHECK(name_of(Mode::ReduceOverhead) == "reduce-overhead");
  CHECK_THROWS_WITH_AS(mode_from_name("fast"),
                       "there is no mode \"fast\", expected default, reduce-overhead or max-autotune", Error);
  for (const KernelSource source : {KernelSource::Auto, KernelSource::Library, KernelSource::Own})
    CHECK(kernel_source_from_name(name_of(source)) == source);
  CHECK_THROWS_AS(kernel_source_from_name("cudnn"), Error);
}
