// A progress bar on the terminal.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace damoyolo {

// "[####----]  12/40  30%  25.1 images/s  0:01 left" in at most `columns` characters; without the bar when that is
// too few, and without rate and time left before the first image.
std::string progress_line(std::size_t done, std::size_t total, double seconds, int columns);

// Shows on stderr how many of `total` images are done: redrawn in place at most ten times a second, erased at the end.
// Silent when stderr is not a terminal or `quiet`. For one thread.
class Progress {
 public:
  Progress(std::size_t total, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(std::size_t images = 1);

  // Takes the bar away so that something else can be printed; the next advance() draws it again.
  void hide();

 private:
  using Clock = std::chrono::steady_clock;

  std::size_t done_ = 0, total_;
  bool enabled_, visible_ = false;
  Clock::time_point start_, drawn_;
};

}  // namespace damoyolo
