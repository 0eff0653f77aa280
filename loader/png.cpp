#include "loader/png.h"

#include <fstream>

#include "engine/core/error.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

namespace damoyolo {

void write_png(const std::string& path, ImageView image) {
  std::ofstream file(path, std::ios::binary);
  const auto write = [](void* stream, void* data, int size) {
    static_cast<std::ofstream*>(stream)->write(static_cast<const char*>(data), size);
  };
  const int encoded = stbi_write_png_to_func(write, &file, image.width, image.height, 3, image.rgb, image.width * 3);
  file.close();
  if (!encoded || !file) throw Error("{}: cannot be written", path);
}

}  // namespace damoyolo
