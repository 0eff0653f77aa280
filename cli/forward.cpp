#include <fmt/ostream.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/text.h"
#include "engine/core/error.h"
#include "engine/detector.h"
#include "weights/safetensors.h"

namespace damoyolo::cli {
namespace {

struct ForwardOptions {
  std::string weights, in, out;
  DetectorOptions detector;
};

struct Pixels {
  std::span<const std::uint8_t> bytes;  // [count, height, width, 3] RGB
  int count, height, width;
};

Pixels find_pixels(const Safetensors& file, const std::string& path) {
  const auto found = file.tensors.find("images");
  if (found == file.tensors.end()) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file.tensors) names.push_back(name);
    throw Error("{}: has no tensor \"images\" (it has: {})", path, names.empty() ? "none" : joined(names, 10));
  }
  const TensorView& images = found->second;
  if (images.dtype != DType::U8) throw Error("{}: tensor \"images\" is {}, expected U8", path, name_of(images.dtype));
  constexpr std::int64_t kMost = 16384;
  const auto& shape = images.shape;
  const auto usable = [](std::int64_t size) { return size > 0 && size <= kMost && size % 32 == 0; };
  if (shape.size() != 4 || shape[0] < 1 || shape[0] > kMost || !usable(shape[1]) || !usable(shape[2]) || shape[3] != 3)
    throw Error(
        "{}: tensor \"images\" has the shape [{}], expected [images, height, width, 3] with height and width "
        "multiples "
        "of 32",
        path, fmt::join(shape, ", "));
  return {{reinterpret_cast<const std::uint8_t*>(images.bytes.data()), images.bytes.size()},
          static_cast<int>(shape[0]),
          static_cast<int>(shape[1]),
          static_cast<int>(shape[2])};
}

int forward(const ForwardOptions& options, Console& console) {
  const SafetensorsFile file(options.in);
  const Pixels pixels = find_pixels(file.contents(), options.in);
  Detector detector(options.weights, options.detector);
  const RawOutput output = detector.forward(pixels.bytes, pixels.count, pixels.height, pixels.width);

  Safetensors result;
  result.tensors["scores"] = {
      DType::F32, {output.images, output.anchors, output.classes}, std::as_bytes(std::span(output.scores))};
  result.tensors["boxes"] = {DType::F32, {output.images, output.anchors, 4}, std::as_bytes(std::span(output.boxes))};
  write_safetensors(options.out, result);
  fmt::print(console.out, "wrote {}: {}, {} anchors, {}\n", options.out,
             counted(static_cast<std::size_t>(output.images), "image"), output.anchors,
             counted(static_cast<std::size_t>(output.classes), "class"));
  return 0;
}

}  // namespace

Action add_forward(CLI::App& command) {
  const auto options = std::make_shared<ForwardOptions>();
  add_weights_option(command, options->weights)->required();
  command
      .add_option("-i,--in", options->in,
                  "safetensors file with the tensor images: uint8 [N,H,W,3], RGB, H and W multiples of 32")
      ->type_name("FILE")
      ->required();
  command
      .add_option("-o,--out", options->out,
                  "safetensors file to write: scores [N,A,C] and boxes [N,A,4] (x1, y1, x2, y2), float32, A anchors")
      ->type_name("FILE")
      ->required();
  add_device_options(command, options->detector);
  return [options](Console& console) { return forward(*options, console); };
}

}  // namespace damoyolo::cli
