// Times a network from pixels of its own size to scores and boxes, on request, so that a script can take turns between
// it and a peer in one run:
//   build/network-bench WEIGHTS PRECISION THREADS BATCH
// Each line on standard input is a number of runs; the answer is a line with the seconds of each. The line `check`
// answers with a digest of the output: the largest score, and the sums of scores and boxes.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <string>

#include "engine/core/error.h"
#include "engine/detector.h"
#include "tests/golden_generator.h"

namespace {

using damoyolo::Detector;
using damoyolo::RawOutput;

int serve(int argc, char** argv) {
  if (argc != 5) throw damoyolo::Error("usage: network-bench WEIGHTS PRECISION THREADS BATCH");
  const int batch = std::stoi(argv[4]);
  Detector detector(argv[1], {.device = "cpu",
                              .precision = damoyolo::precision_from_name(argv[2]),
                              .max_batch = batch,
                              .threads = std::stoi(argv[3])});
  const int height = detector.model().input_height, width = detector.model().input_width;
  const std::vector<std::uint8_t> images = damoyolo::golden_bytes("input", std::size_t{3} * batch * height * width);
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "check") {
      const RawOutput output = detector.forward(images, batch, height, width);
      fmt::print("{:.6f} {:.4f} {:.2f}\n", *std::max_element(output.scores.begin(), output.scores.end()),
                 std::accumulate(output.scores.begin(), output.scores.end(), 0.0),
                 std::accumulate(output.boxes.begin(), output.boxes.end(), 0.0));
    } else {
      const int runs = std::stoi(line);
      for (int i = 0; i < runs; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        const RawOutput output = detector.forward(images, batch, height, width);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
        fmt::print("{}{:.6f}", i > 0 ? " " : "", time.count());
      }
      fmt::print("\n");
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return serve(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "network-bench: %s\n", error.what());
    return 1;
  }
}
