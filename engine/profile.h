// Where the time of a network goes: what benchmarks ask a backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/graph.h"

namespace damoyolo {

struct KernelTime {
  std::string kernel;
  double seconds = 0;
};

// One step of a plan, and how long it takes by itself.
struct StepTime {
  std::string node;                             // of the graph, or "a + b"; "results" for what follows the last one
  std::string operation;                        // "conv", or the name of any other step
  std::string kernel;                           // what computes it
  Shape in, out;                                // in: empty when it reads several tensors
  int kernel_size = 1, stride = 1, groups = 1;  // of a convolution, of two in one step the first
  bool pair = false;                            // a convolution of kernel 1 follows in the same step
  std::int64_t flops = 0;                       // 2·multiply-adds of a convolution, of two in one step both
  std::int64_t bytes = 0;                       // moved at least: inputs, weights and output once each
  int stream = 0;                               // GPU: of the whole network's run
  double seconds = 0;
  std::vector<KernelTime> candidates;  // what else can compute it, when that was asked for; the fastest first
  std::size_t without_turn = 0;        // how many more there was no time for
};

struct ProfileOptions {
  int batch = 1;  // a GPU runs the next larger plan, see Backend
  int repetitions = 20;
  // GPU: also time every candidate for a convolution whose name begins with one of these ("own", "cudnn", "cublaslt").
  std::vector<std::string> compare = {};
  // That all these may take together, each convolution an equal part of it, the best by prediction first: a library
  // proposes a hundred for one convolution, and needs a second to compile some.
  double compare_seconds = 60;
  // GPU: the plan of detect(), whose first step resizes images and whose last one suppresses boxes, in place of the
  // one that time_network() runs. A CPU does that outside of its plan.
  bool detecting = false;
};

// Whole runs, in seconds.
struct RunTimes {
  std::vector<double> alone;         // each begins when the one before is over
  std::vector<double> back_to_back;  // all enqueued at once: from the end of one to the end of the next
};

// Bytes without a pattern, always the same ones: pixels to measure with.
std::vector<std::uint8_t> noise(std::size_t bytes);

}  // namespace damoyolo
