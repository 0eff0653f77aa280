#include "loader/image.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/core/error.h"
#include "loader/jpeg_markers.h"
#include "loader/png.h"
#include "tests/file_bytes.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;
using test::as_bytes;
using test::contains;

namespace {

const std::string kFolder = "tests/data/images/";

std::string refusal(std::string_view content) {
  return test::error_of([&] { decode_image(as_bytes(content), "picture"); });
}

std::string big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

// The JPEG with an EXIF segment after its first marker: a directory with one entry in either byte order.
std::string with_orientation(std::string jpeg, int orientation, bool little_endian) {
  using namespace std::string_literals;
  const char value = static_cast<char>(orientation);
  std::string tiff = little_endian ? "II*\0\x08\0\0\0"s + "\x01\0"s + "\x12\x01\x03\0\x01\0\0\0"s + value + "\0\0\0"s
                                   : "MM\0*\0\0\0\x08"s + "\0\x01"s + "\x01\x12\0\x03\0\0\0\x01\0"s + value + "\0\0"s;
  tiff += "\0\0\0\0"s;  // no further directory
  const std::string payload = "Exif\0\0"s + tiff;
  const std::size_t length = payload.size() + 2;
  return jpeg.insert(2, "\xff\xe1"s + static_cast<char>(length >> 8) + static_cast<char>(length & 0xff) + payload);
}

}  // namespace

TEST_CASE("image: every kind of file has OpenCV's pixels") {
  struct Case {
    const char* file;
    int width, height;
    int tolerance;  // levels; JPEG decoders differ in how they round
  };
  constexpr Case kCases[] = {
      {"rgb8.png", 24, 16, 0},
      {"rgb16.png", 24, 16, 0},
      {"rgba8.png", 24, 16, 0},
      {"rgba16.png", 24, 16, 0},
      {"grey8.png", 24, 16, 0},
      {"grey16.png", 24, 16, 0},
      {"grey1.png", 24, 16, 0},
      {"palette.png", 24, 16, 0},
      {"palette_transparent.png", 24, 16, 0},
      {"grey_alpha.png", 24, 16, 0},
      {"rgb.bmp", 24, 16, 0},
      {"interlaced.png", 24, 16, 0},
      {"palette.bmp", 24, 16, 0},
      {"rgba.bmp", 24, 16, 0},
      {"one_pixel.png", 1, 1, 0},
      {"baseline.jpg", 24, 16, 3},
      {"grey.jpg", 24, 16, 1},
      {"progressive.jpg", 24, 16, 3},
      {"subsampling_none.jpg", 24, 16, 2},
      {"restarts.jpg", 24, 16, 3},
      {"cmyk.jpg", 24, 16, 3},
      {"ycck.jpg", 24, 16, 3},
      {"one_pixel.jpg", 1, 1, 2},
  };
  for (const Case& c : kCases) {
    CAPTURE(c.file);
    const Image image = read_image(kFolder + c.file);
    CHECK(image.width == c.width);
    CHECK(image.height == c.height);
    const std::string expected = test::read_file(kFolder + c.file + ".rgb");
    REQUIRE(image.rgb.size() == expected.size());
    int difference = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      difference = std::max(difference, std::abs(image.rgb[i] - static_cast<unsigned char>(expected[i])));
    }
    CHECK(difference <= c.tolerance);
  }
}

TEST_CASE("image: a JPEG is turned as its EXIF orientation says") {
  const std::string jpeg = test::read_file(kFolder + "subsampling_none.jpg");
  const Image plain = decode_image(as_bytes(jpeg), "plain");
  const int w = plain.width, h = plain.height;
  // Where the pixel at the result's (x, y) is in the stored picture, by the definition of each orientation: what the
  // stored picture's row 0 and column 0 are of the scene.
  using Point = std::array<int, 2>;
  const auto stored = [&](int orientation, int x, int y) -> Point {
    switch (orientation) {
      case 2: return {w - 1 - x, y};          // top, right
      case 3: return {w - 1 - x, h - 1 - y};  // bottom, right
      case 4: return {x, h - 1 - y};          // bottom, left
      case 5: return {y, x};                  // left, top
      case 6: return {y, h - 1 - x};          // right, top
      case 7: return {w - 1 - y, h - 1 - x};  // right, bottom
      case 8: return {w - 1 - y, x};          // left, bottom
      default: return {x, y};
    }
  };
  for (const bool little_endian : {false, true}) {
    for (int orientation = 0; orientation <= 9; ++orientation) {
      CAPTURE(orientation);
      const Image image = decode_image(as_bytes(with_orientation(jpeg, orientation, little_endian)), "turned");
      const bool transposed = orientation >= 5 && orientation <= 8;
      REQUIRE(image.width == (transposed ? h : w));
      REQUIRE(image.height == (transposed ? w : h));
      bool same = true;
      for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
          const auto [from_x, from_y] = stored(orientation, x, y);
          same = same && std::equal(&image.rgb[static_cast<std::size_t>(3 * (y * image.width + x))],
                                    &image.rgb[static_cast<std::size_t>(3 * (y * image.width + x))] + 3,
                                    &plain.rgb[static_cast<std::size_t>(3 * (from_y * w + from_x))]);
        }
      }
      CHECK(same);
    }
  }
}

TEST_CASE("image: EXIF that makes no sense is as good as none") {
  const std::string jpeg = with_orientation(test::read_file(kFolder + "grey.jpg"), 6, true);
  CHECK(scan_jpeg_markers(as_bytes(jpeg)).orientation == 6);
  const std::size_t tiff = jpeg.find("II*");
  // Every byte of the TIFF header, the directory and its entry set to all ones must still be read within the segment.
  for (std::size_t i = tiff; i < tiff + 26; ++i) {
    std::string damaged = jpeg;
    damaged[i] = '\xff';
    const int orientation = scan_jpeg_markers(as_bytes(damaged)).orientation;
    CHECK((orientation == 1 || orientation == 6));
    CHECK(decode_image(as_bytes(damaged), "damaged").rgb.size() == 24 * 16 * 3);
  }
  for (std::size_t length = 0; length < jpeg.size(); ++length) {
    const int orientation = scan_jpeg_markers(as_bytes(jpeg).first(length)).orientation;
    CHECK((orientation == 1 || orientation == 6));
  }
}

TEST_CASE("image: what ends early is refused, wherever it ends") {
  for (const std::string file : {"rgb8.png", "interlaced.png", "palette.png", "rgb.bmp", "palette.bmp", "baseline.jpg",
                                 "progressive.jpg", "restarts.jpg", "cmyk.jpg"}) {
    CAPTURE(file);
    const std::string whole = test::read_file(kFolder + file);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      CAPTURE(length);
      // The CRC of a PNG's last, empty chunk is the one thing that can be missing without loss.
      if (file.ends_with(".png") && length >= whole.size() - 4) continue;
      CHECK(contains(refusal(std::string_view(whole).substr(0, length)), "picture: "));
    }
    CHECK(refusal(whole) == "");
    CHECK(refusal(whole + "what follows the image is not part of it") == "");
  }
  const std::string jpeg = test::read_file(kFolder + "baseline.jpg");
  CHECK(contains(refusal(std::string_view(jpeg).substr(0, jpeg.size() - 40)), "ends too early"));
}

TEST_CASE("image: other files are named for what they are") {
  CHECK(refusal("") == "picture: is empty, expected a JPEG, PNG or BMP image");
  CHECK(refusal("GIF89a and so on") == "picture: is not an image, expected a JPEG, PNG or BMP image");
  CHECK(contains(test::error_of([] { read_image("tests/data/images/none.png"); }), "none.png: there is no such file"));
  CHECK(contains(test::error_of([] { read_image("tests/data/images"); }), "images: is not a regular file"));
  CHECK(contains(test::error_of([] { read_image("/dev/null"); }), "/dev/null: is not a regular file"));
}

TEST_CASE("image: a size is believed only as far as the file can hold it") {
  const std::string png = test::read_file(kFolder + "rgb8.png");
  const auto resized = [&](std::uint32_t width, std::uint32_t height) {
    return std::string(png).replace(16, 8, big_endian(width) + big_endian(height));
  };
  CHECK(contains(refusal(resized(16384, 16385)), "is 16384×16385 pixels, expected between 1 and 2^28"));
  CHECK(contains(refusal(resized(16384, 16384)), "bytes cannot hold a PNG of 16384×16384 pixels"));
  CHECK(contains(refusal(resized(0, 5)), "picture: "));
  CHECK(contains(refusal(resized(0xffffffff, 0xffffffff)), "picture: "));
  CHECK(contains(refusal(resized(24, 17)), "damaged PNG"));

  std::string jpeg = test::read_file(kFolder + "baseline.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  jpeg.replace(frame + 5, 4, "\x7f\xff\x10\x10");
  CHECK(contains(refusal(jpeg), "cannot hold a JPEG of 4112×32767 pixels"));

  // A chunk of a gibibyte that is not there must not be allocated before that is noticed.
  const std::string idat = std::string(png).replace(png.find("IDAT") - 4, 4, big_endian(1u << 30));
  CHECK(contains(refusal(idat), "damaged PNG (outofmem)"));
}

TEST_CASE("image: a JPEG that asks for endless work is refused") {
  std::string jpeg = test::read_file(kFolder + "progressive.jpg");
  CHECK(scan_jpeg_markers(as_bytes(jpeg)).scans == 10);
  const std::size_t last_scan = jpeg.rfind("\xff\xda");
  const std::string scan = jpeg.substr(last_scan, jpeg.size() - 2 - last_scan);
  for (int i = 0; i < 1000; ++i) jpeg.insert(last_scan, scan);
  CHECK(contains(refusal(jpeg), "is a JPEG of 1010 scans, expected at most 128"));
}

TEST_CASE("image: a JPEG with more Huffman codes than symbols is refused") {
  std::string jpeg = test::read_file(kFolder + "baseline.jpg");
  const std::size_t counts = jpeg.find("\xff\xc4") + 5;
  CHECK(scan_jpeg_markers(as_bytes(jpeg)).huffman_tables_valid);
  jpeg.replace(counts, 16, 16, '\xff');
  CHECK_FALSE(scan_jpeg_markers(as_bytes(jpeg)).huffman_tables_valid);
  CHECK(contains(refusal(jpeg), "is a damaged JPEG (impossible Huffman table)"));
}

TEST_CASE("image: a very wide picture and a single pixel are written and read again") {
  const test::TemporaryFolder folder;
  for (const auto& [width, height] : {std::array{20000, 10}, std::array{1, 1}, std::array{3, 700}}) {
    Image image{width, height, {}};
    for (int i = 0; i < width * height * 3; ++i) image.rgb.push_back(static_cast<std::uint8_t>(i % 251));
    const std::string path = folder.file("picture.png");
    write_png(path, image);
    const Image again = read_image(path);
    CHECK(again.width == width);
    CHECK(again.height == height);
    CHECK(again.rgb == image.rgb);
  }
  const Image pixel{1, 1, {1, 2, 3}};
  CHECK(contains(test::error_of([&] { write_png(folder.file("no/such/folder.png"), pixel); }), "cannot be written"));
}

TEST_CASE("image: what fuzzing found is survived") {
  // A scan with a Huffman table that was never defined, and a PNG whose first data chunk is empty.
  for (const std::string name : {"undefined-table.jpg", "empty-first-idat.png"}) {
    CAPTURE(name);
    try {
      const Image image = read_image(std::string("tests/data/fuzz/image/") + name);
      CHECK(image.rgb.size() == static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3);
    } catch (const Error& error) {
      CHECK(test::contains(error.what(), name));
    }
  }
}
