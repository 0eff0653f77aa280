#include "loader/sources.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <istream>
#include <iterator>
#include <memory>
#include <string_view>
#include <unordered_set>

#include "engine/core/error.h"

namespace damoyolo {
namespace {

namespace fs = std::filesystem;

bool has_image_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  constexpr std::string_view kExtensions[] = {".jpg", ".jpeg", ".png", ".bmp"};
  return std::find(std::begin(kExtensions), std::end(kExtensions), extension) != std::end(kExtensions);
}

std::vector<std::string> images_in(const std::string& directory) {
  std::vector<std::string> images;
  std::error_code failed;
  for (fs::directory_iterator entry(directory, failed), end; !failed && entry != end; entry.increment(failed)) {
    std::error_code ignored;
    if (has_image_extension(entry->path()) && !entry->is_directory(ignored)) images.push_back(entry->path().string());
  }
  if (failed) throw Error("{}: the directory cannot be read: {}", directory, failed.message());
  if (images.empty())
    throw Error("{}: is a directory without images, expected .jpg, .jpeg, .png or .bmp files", directory);
  std::sort(images.begin(), images.end());
  return images;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  const std::unique_ptr<glob_t, void (*)(glob_t*)> cleanup(&found, ::globfree);
  const int result = ::glob(pattern.c_str(), 0, nullptr, &found);
  if (result == GLOB_NOMATCH) throw Error("{}: no file matches the pattern", pattern);
  if (result != 0) throw Error("{}: the pattern cannot be expanded", pattern);
  return {found.gl_pathv, found.gl_pathv + found.gl_pathc};
}

std::vector<std::string> lines_of(std::istream& list) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(list, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) throw Error("-: the list names no image, expected a path on each line");
  return lines;
}

void append(std::vector<std::string>& to, std::vector<std::string> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

std::vector<std::string> expand_sources(const std::vector<std::string>& arguments, std::istream& list) {
  const auto is_directory = [](const std::string& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
  };
  std::vector<std::string> images;
  for (const std::string& argument : arguments) {
    std::error_code ignored;
    if (argument == "-") {
      append(images, lines_of(list));
    } else if (argument.find_first_of("*?[") == std::string::npos || fs::exists(argument, ignored)) {
      append(images, is_directory(argument) ? images_in(argument) : std::vector{argument});
    } else {
      for (const std::string& match : matches_of(argument)) {
        append(images, is_directory(match) ? images_in(match) : std::vector{match});
      }
    }
  }
  return images;
}

std::vector<std::string> output_stems(const std::vector<std::string>& images) {
  std::vector<std::string> stems;
  std::unordered_set<std::string> taken;
  for (const std::string& image : images) taken.insert(fs::path(image).stem().string());
  std::unordered_set<std::string> used;
  for (const std::string& image : images) {
    const std::string own = fs::path(image).stem().string();
    std::string stem = own;
    // A made-up name must not be another image's own.
    for (int i = 2; (stem != own && taken.contains(stem)) || !used.insert(stem).second; ++i) {
      stem = own + "-" + std::to_string(i);
    }
    stems.push_back(stem);
  }
  return stems;
}

}  // namespace damoyolo
