// stb_image with the formats that are wanted and a bound on its memory. For loader/image.cpp alone.
#pragma once

#include <cstddef>

#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#include <stb_image.h>

namespace damoyolo {

// While one lives, no block that stb_image allocates on this thread exceeds `bytes`: a PNG chunk that lies about its
// length, or a compressed stream that inflates to more than the image holds, ends as a failed allocation, which
// stb_image reports as an error.
class StbAllocationLimit {
 public:
  explicit StbAllocationLimit(std::size_t bytes);
  ~StbAllocationLimit();
  StbAllocationLimit(const StbAllocationLimit&) = delete;
  StbAllocationLimit& operator=(const StbAllocationLimit&) = delete;

 private:
  std::size_t previous_;
};

}  // namespace damoyolo
