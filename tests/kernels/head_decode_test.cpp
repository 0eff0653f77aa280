#include "kernels/head_decode.h"

#include "tests/kernels/head_fixture.h"

namespace damoyolo::kernels {
namespace {

KERNEL_TEST_CASE("decoding gives every score and box as the CPU does") {
  for (const HeadSizes sizes :
       {HeadSizes{1, 32, 32, 1, 7}, HeadSizes{2, 64, 96, 5, 16}, HeadSizes{3, 32, 64, 3, 7, 1}})
    for (const Placement place : kPlacements) {
      const RandomHead head(sizes, place, 1);
      const auto anchors = static_cast<std::size_t>(sizes.batch * anchors_of(head.view()));
      REQUIRE(anchors_of(head.view()) == head.maps().anchors());
      const DeviceArray<float> scores(anchors * static_cast<std::size_t>(sizes.classes)), boxes(anchors * 4);
      launch_head_decode(head.view(), scores.data(), boxes.data(), {});

      std::vector<float> want_scores(scores.download().size()), want_boxes(anchors * 4);
      decode_all(head.maps(), want_scores, want_boxes);
      const auto got_scores = scores.download(), got_boxes = boxes.download();
      for (std::size_t i = 0; i < got_scores.size(); ++i) REQUIRE(std::abs(got_scores[i] - want_scores[i]) <= 1e-6f);
      for (std::size_t i = 0; i < got_boxes.size(); ++i) REQUIRE(std::abs(got_boxes[i] - want_boxes[i]) <= 1e-3f);
    }
}

KERNEL_TEST_CASE("decoding refuses a head whose parts do not fit") {
  const RandomHead head({1, 32, 32, 2, 7}, {}, 1);
  const DeviceArray<float> out(1000);
  HeadView wrong = head.view();
  wrong.classes = 3;
  CHECK_THROWS_WITH(launch_head_decode(wrong, out.data(), out.data(), {}),
                    "kernel head_decode expects a score channel per class and four times reg_max + 1 box channels");
  wrong = head.view();
  wrong.levels[1].reg = wrong.levels[0].reg;
  CHECK_THROWS_WITH(launch_head_decode(wrong, out.data(), out.data(), {}),
                    "kernel head_decode expects scores and boxes of the same size");
}

}  // namespace
}  // namespace damoyolo::kernels
