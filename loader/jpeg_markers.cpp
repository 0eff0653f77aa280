#include "loader/jpeg_markers.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace damoyolo {
namespace {

using Bytes = std::span<const std::byte>;

// An unsigned integer of `size` bytes at `offset`; 0 where the bytes end.
std::uint32_t read(Bytes bytes, std::size_t offset, std::size_t size, bool little_endian) {
  if (offset > bytes.size() || size > bytes.size() - offset) return 0;
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value = value << 8 | std::to_integer<std::uint32_t>(bytes[offset + (little_endian ? size - 1 - i : i)]);
  }
  return value;
}

bool starts_with(Bytes bytes, std::string_view prefix) {
  return bytes.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), bytes.begin(),
                    [](char a, std::byte b) { return static_cast<std::byte>(a) == b; });
}

// The orientation in the payload of an APP1 segment: "Exif\0\0", then a TIFF file whose first directory holds it.
int exif_orientation(Bytes payload) {
  using namespace std::string_view_literals;
  if (!starts_with(payload, "Exif\0\0"sv)) return 1;
  const Bytes tiff = payload.subspan(6);
  const bool little_endian = starts_with(tiff, "II*\0"sv);
  if (!little_endian && !starts_with(tiff, "MM\0*"sv)) return 1;

  constexpr std::uint32_t kOrientation = 0x0112, kShort = 3;
  constexpr std::size_t kEntryBytes = 12;
  const std::size_t directory = read(tiff, 4, 4, little_endian);
  const std::size_t entries = read(tiff, directory, 2, little_endian);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + i * kEntryBytes;
    if (read(tiff, entry, 2, little_endian) != kOrientation) continue;
    const std::uint32_t value = read(tiff, entry + 8, 2, little_endian);
    const bool valid = read(tiff, entry + 2, 2, little_endian) == kShort && value >= 1 && value <= 8;
    return valid ? static_cast<int>(value) : 1;
  }
  return 1;
}

// The payload of a DHT segment is tables: an id, the number of codes of each length from 1 to 16, the codes' symbols.
bool huffman_tables_valid(Bytes payload) {
  constexpr std::size_t kSymbols = 17, kMostCodes = 256;
  while (!payload.empty()) {
    std::size_t codes = 0;
    for (std::size_t length = 1; length <= 16; ++length) codes += read(payload, length, 1, false);
    if (codes > kMostCodes || payload.size() < kSymbols + codes) return false;
    payload = payload.subspan(kSymbols + codes);
  }
  return true;
}

}  // namespace

JpegMarkers scan_jpeg_markers(Bytes bytes) {
  constexpr std::uint32_t kHuffmanTables = 0xc4, kRestart0 = 0xd0, kStartOfImage = 0xd8, kEndOfImage = 0xd9,
                          kStartOfScan = 0xda, kApp1 = 0xe1;
  JpegMarkers markers;
  bool exif_seen = false;
  std::size_t position = 0;
  while (true) {
    // In compressed data 0xff is followed by 0 or a restart marker; both stand alone, so that nothing else is needed
    // to get past it. A run of 0xff is padding before a marker.
    position = static_cast<std::size_t>(
        std::find(bytes.begin() + static_cast<std::ptrdiff_t>(position), bytes.end(), std::byte{0xff}) -
        bytes.begin());
    if (bytes.size() - position < 2) return markers;
    const std::uint32_t marker = read(bytes, position + 1, 1, false);
    if (marker == 0xff) {
      position += 1;
      continue;
    }
    position += 2;
    if (marker == kEndOfImage) return markers;
    if (marker <= 1 || (marker >= kRestart0 && marker <= kStartOfImage)) continue;

    // The length counts itself. Where the file ends, so does the segment.
    const std::size_t length = std::min<std::size_t>(read(bytes, position, 2, false), bytes.size() - position);
    if (length < 2) return markers;
    const Bytes payload = bytes.subspan(position + 2, length - 2);
    if (marker == kStartOfScan) ++markers.scans;
    if (marker == kHuffmanTables && !huffman_tables_valid(payload)) markers.huffman_tables_valid = false;
    if (marker == kApp1 && !exif_seen) {
      exif_seen = starts_with(payload, "Exif");
      markers.orientation = exif_orientation(payload);
    }
    position += length;
  }
}

}  // namespace damoyolo
