// Files that a command writes in places that were named, which are no other named file's.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

namespace damoyolo::cli {

// The files that paths lead to, whatever the paths: relative or not, by links or not. A path without a file adds none.
class FileSet {
 public:
  explicit FileSet(const std::vector<std::string>& paths);
  void add(const std::string& path);
  bool contains(const std::string& path) const;

 private:
  std::set<std::pair<dev_t, ino_t>> files_;
};

// For commands that work long before they write: throws Error when one of `results` cannot be written, or is the same
// file as one of `inputs` or another result. Those that are empty are not asked for. Changes nothing; of a pipe it
// asks nothing.
void require_writable(std::vector<std::string> results, const std::vector<std::string>& inputs);

}  // namespace damoyolo::cli
