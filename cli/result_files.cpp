#include "cli/result_files.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "engine/core/error.h"

namespace damoyolo::cli {
namespace {

namespace fs = std::filesystem;

std::optional<std::pair<dev_t, ino_t>> file_at(const std::string& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return std::nullopt;
  return std::pair(found.st_dev, found.st_ino);
}

// Files that are made only to see that they can be, and which they are.
struct NewFiles {
  std::vector<fs::path> paths;
  ~NewFiles() {
    std::error_code ignored;
    for (const fs::path& path : paths) fs::remove(path, ignored);
  }
};

}  // namespace

FileSet::FileSet(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) add(path);
}

void FileSet::add(const std::string& path) {
  if (const auto file = file_at(path)) files_.insert(*file);
}

bool FileSet::contains(const std::string& path) const {
  const auto file = file_at(path);
  return file && files_.contains(*file);
}

void require_writable(std::vector<std::string> results, const std::vector<std::string>& inputs) {
  std::erase(results, "");
  if (results.empty()) return;
  FileSet taken(inputs);
  NewFiles made;
  for (const std::string& path : results) {
    if (taken.contains(path))
      throw Error("{}: is read or written for something else, expected another file for the results", path);
    std::error_code failed;
    if (!fs::is_fifo(path, failed)) {  // a pipe's reader would take this for the end
      const bool is_new = !fs::exists(path, failed);
      if (!std::ofstream(path, std::ios::binary | std::ios::app)) throw Error("{}: cannot be written", path);
      if (is_new) made.paths.push_back(fs::canonical(path, failed));  // not a link that leads there
    }
    taken.add(path);
  }
}

}  // namespace damoyolo::cli
