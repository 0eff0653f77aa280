// A head with random outputs for the tests of the kernels behind it, and the same as the CPU sees it.
#pragma once

#include <array>
#include <memory>

#include "engine/decode.h"
#include "kernels/head.h"
#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {

struct HeadSizes {
  int batch, net_height, net_width, classes, reg_max;
  int unused_classes = 0;  // score channels past the classes
};

// Logits are multiples of 1/16 in [−6, 6]: different ones give clearly different scores, and many are equal.
class RandomHead {
 public:
  RandomHead(HeadSizes sizes, Placement place, unsigned seed) : sizes_(sizes) {
    const int box_channels = 4 * (sizes.reg_max + 1);
    for (int i = 0; i < 3; ++i) {
      const int stride = 8 << i;
      const Size cls{sizes.batch, sizes.net_height / stride, sizes.net_width / stride,
                     sizes.classes + sizes.unused_classes};
      const Size reg{cls.n, cls.h, cls.w, box_channels};
      cls_[i] = make(cls, place, seed + static_cast<unsigned>(i));
      reg_[i] = make(reg, {place.after, place.before}, seed + static_cast<unsigned>(i) + 100);
      view_.levels[i] = {cls_[i]->view(), reg_[i]->view(), stride};
      cls_values_[i] = cls_[i]->initial();
      reg_values_[i] = reg_[i]->initial();
      maps_.levels[i] = {cls_values_[i].data(), reg_values_[i].data(), cls.c, reg.c, cls.h, cls.w, stride};
    }
    view_.classes = maps_.classes = sizes.classes;
    view_.reg_max = maps_.reg_max = sizes.reg_max;
    maps_.batch = sizes.batch;
  }

  const HeadSizes& sizes() const { return sizes_; }
  const HeadView& view() const { return view_; }
  const HeadMaps& maps() const { return maps_; }

 private:
  static std::unique_ptr<DeviceTensor> make(Size size, Placement place, unsigned seed) {
    auto values = random_values(DeviceTensor::elements(size, place), seed, 6.0f);
    for (float& value : values) value = std::round(value * 16) / 16;
    return std::make_unique<DeviceTensor>(DType::F32, size, place, values);
  }

  HeadSizes sizes_;
  std::array<std::unique_ptr<DeviceTensor>, 3> cls_, reg_;
  std::array<std::vector<float>, 3> cls_values_, reg_values_;
  HeadView view_;
  HeadMaps maps_;
};

}  // namespace damoyolo::kernels
