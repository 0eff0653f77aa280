#include "loader/image.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "engine/core/error.h"
#include "loader/jpeg_markers.h"
#include "loader/stb_image.h"

namespace damoyolo {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;
constexpr std::uint64_t kMaxPixels = std::uint64_t{1} << 28;
// Every scan of a progressive JPEG goes over the whole picture, so thousands of tiny ones would take hours.
constexpr int kMaxJpegScans = 128;

struct Format {
  std::string_view name, magic;
  // The most pixels a byte of a sound file can stand for: a JPEG spends at least a bit on a block of 8×8, deflate
  // makes at most 1032 bytes of one, and a PNG or BMP may have one bit per pixel.
  std::uint64_t pixels_per_byte;
};

constexpr Format kFormats[] = {
    {"JPEG", "\xff\xd8\xff", 8 * 64},
    {"PNG", "\x89PNG\r\n\x1a\n", 1032 * 8},
    {"BMP", "BM", 8},
};

const Format* format_of(Bytes bytes) {
  for (const Format& format : kFormats) {
    if (bytes.size() >= format.magic.size() &&
        std::memcmp(bytes.data(), format.magic.data(), format.magic.size()) == 0) {
      return &format;
    }
  }
  return nullptr;
}

// The bytes as a stream. stb_image takes zeros for what lies beyond the end; a stream can tell that it asked for it.
struct Stream {
  Bytes rest;
  bool overrun = false;

  static int read(void* user, char* data, int size) {
    auto& stream = *static_cast<Stream*>(user);
    const std::size_t count = std::min(static_cast<std::size_t>(size), stream.rest.size());
    if (count == 0) {
      stream.overrun = true;
      return 0;
    }
    std::memcpy(data, stream.rest.data(), count);
    stream.rest = stream.rest.subspan(count);
    return static_cast<int>(count);
  }
  static void skip(void* user, int size) {
    auto& stream = *static_cast<Stream*>(user);
    const std::size_t count = std::min(static_cast<std::size_t>(std::max(size, 0)), stream.rest.size());
    stream.overrun = stream.overrun || static_cast<std::size_t>(std::max(size, 0)) > count;
    stream.rest = stream.rest.subspan(count);
  }
  static int at_end(void* user) { return static_cast<Stream*>(user)->rest.empty(); }

  static constexpr stbi_io_callbacks kCallbacks{read, skip, at_end};
};

// Undoes EXIF's eight orientations: pixel (x, y) of the result is the one `start` + x·`across` + y·`down` of the
// image.
Image upright(Image image, int orientation) {
  if (orientation == 1) return image;
  const bool transposed = orientation >= 5;
  const bool right_to_left = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool bottom_up = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const std::ptrdiff_t width = image.width, height = image.height;
  const std::ptrdiff_t start = (right_to_left ? width - 1 : 0) + (bottom_up ? (height - 1) * width : 0);
  std::ptrdiff_t across = right_to_left ? -1 : 1, down = bottom_up ? -width : width;
  if (transposed) std::swap(across, down);

  Image result{transposed ? image.height : image.width, transposed ? image.width : image.height, {}};
  result.rgb.resize(image.rgb.size());
  std::uint8_t* out = result.rgb.data();
  for (std::ptrdiff_t y = 0; y < result.height; ++y) {
    for (std::ptrdiff_t x = 0; x < result.width; ++x, out += 3) {
      std::memcpy(out, image.rgb.data() + 3 * (start + x * across + y * down), 3);
    }
  }
  return result;
}

}  // namespace

Image decode_image(Bytes bytes, std::string_view origin) {
  const Format* format = format_of(bytes);
  if (format == nullptr) {
    throw Error("{}: {}, expected a JPEG, PNG or BMP image", origin, bytes.empty() ? "is empty" : "is not an image");
  }
  if (bytes.size() > kMaxFileBytes) throw Error("{}: has {} bytes, expected at most 1 GiB", origin, bytes.size());

  const bool jpeg = format == &kFormats[0];
  const JpegMarkers markers = jpeg ? scan_jpeg_markers(bytes) : JpegMarkers{};
  if (markers.scans > kMaxJpegScans) {
    throw Error("{}: is a JPEG of {} scans, expected at most {}", origin, markers.scans, kMaxJpegScans);
  }
  if (!markers.huffman_tables_valid) throw Error("{}: is a damaged JPEG (impossible Huffman table)", origin);

  int width = 0, height = 0;
  Stream header{bytes};
  if (!stbi_info_from_callbacks(&Stream::kCallbacks, &header, &width, &height, nullptr)) {
    throw Error("{}: is a {} whose header cannot be used ({})", origin, format->name, stbi_failure_reason());
  }
  const std::uint64_t pixels = static_cast<std::uint64_t>(width) * static_cast<std::uint64_t>(height);
  if (width <= 0 || height <= 0 || pixels > kMaxPixels) {
    throw Error("{}: is {}×{} pixels, expected between 1 and 2^28 of them", origin, width, height);
  }
  if (pixels > bytes.size() * format->pixels_per_byte) {
    throw Error("{}: ends too early: {} bytes cannot hold a {} of {}×{} pixels", origin, bytes.size(), format->name,
                width, height);
  }

  // 16 bytes for each pixel: PNG has up to 8, and stb_image doubles a buffer that is too small. 32 more columns and
  // rows: JPEG fills up its outermost blocks. The rest is for the compressed data, copied together, and the decoder's
  // state.
  const std::size_t padded_pixels = (static_cast<std::size_t>(width) + 32) * (static_cast<std::size_t>(height) + 32);
  const StbAllocationLimit limit(16 * padded_pixels + 2 * bytes.size() + 65536);
  Stream stream{bytes};
  const std::unique_ptr<std::uint8_t, void (*)(void*)> decoded(
      stbi_load_from_callbacks(&Stream::kCallbacks, &stream, &width, &height, nullptr, 3), stbi_image_free);
  if (stream.overrun) throw Error("{}: ends too early: the {} is not complete", origin, format->name);
  if (!decoded) throw Error("{}: is a damaged {} ({})", origin, format->name, stbi_failure_reason());
  return upright({width, height, {decoded.get(), decoded.get() + 3 * pixels}}, markers.orientation);
}

Image read_image(const std::string& path) {
  std::error_code failed;
  const std::filesystem::file_status status = std::filesystem::status(path, failed);
  if (!std::filesystem::exists(status)) throw Error("{}: there is no such file", path);
  if (!std::filesystem::is_regular_file(status)) throw Error("{}: is not a regular file, expected an image", path);
  const std::uintmax_t size = std::filesystem::file_size(path, failed);
  if (!failed && size > kMaxFileBytes) throw Error("{}: has {} bytes, expected at most 1 GiB", path, size);

  std::ifstream file(path, std::ios::binary);
  std::vector<std::byte> bytes(failed ? 0 : size);
  if (failed || !file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()))) {
    throw Error("{}: cannot be read", path);
  }
  return decode_image(bytes, path);
}

}  // namespace damoyolo
