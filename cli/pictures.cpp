#include "cli/pictures.h"

#include <future>
#include <utility>

#include "cli/pipeline.h"

namespace damoyolo::cli {

Pictures::Pictures(std::vector<std::string> paths, int threads)
    : paths_(std::move(paths)), pool_(helper_threads(threads)) {
  for (const std::string& path : paths_) files_.emplace_back(path);
  decode(paths_.size());
}

std::vector<Image> Pictures::decode(std::size_t count) {
  std::vector<std::future<Image>> decoding;
  for (std::size_t i = 0; i < count; ++i, next_ = (next_ + 1) % files_.size())
    decoding.push_back(
        pool_.submit([&file = files_[next_], &path = paths_[next_]] { return decode_image(file.bytes(), path); }));
  std::vector<Image> images;
  for (std::future<Image>& image : decoding) images.push_back(image.get());
  return images;
}

}  // namespace damoyolo::cli
