// Encoded pictures in memory, for benchmarks from their bytes to boxes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cli/thread_pool.h"
#include "engine/core/mapped_file.h"
#include "loader/image.h"

namespace damoyolo::cli {

class Pictures {
 public:
  // Reads the files and decodes each once; `threads` as for helper_threads(). Throws Error naming one that cannot be
  // read.
  Pictures(std::vector<std::string> paths, int threads);

  bool empty() const { return files_.empty(); }

  // The next ones, in turns, several at a time. Not when empty.
  std::vector<Image> decode(std::size_t count);

 private:
  std::vector<std::string> paths_;
  std::vector<MappedFile> files_;
  std::size_t next_ = 0;
  ThreadPool pool_;
};

}  // namespace damoyolo::cli
