// A cursor over untrusted bytes: every read is checked against what is left.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "engine/core/error.h"

namespace damoyolo {

// Reads forward through `bytes`; throws Error naming `origin` and `what` ("the zip directory") when they end too
// early. Both texts must outlive the reader.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view origin, std::string_view what)
      : bytes_(bytes), origin_(origin), what_(what) {}

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > remaining())
      throw Error("{}: is cut short: {} needs {} bytes at offset {}, and {} are left", origin_, what_, count,
                  position_, remaining());
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(count));
    position_ += taken.size();
    return taken;
  }

  void skip(std::uint64_t count) { take(count); }

  std::string_view text(std::uint64_t count) {
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  // Up to the next line feed, which is read but not returned.
  std::string_view line() {
    const std::string_view rest{reinterpret_cast<const char*>(bytes_.data()) + position_, remaining()};
    const auto end = rest.find('\n');
    if (end == rest.npos) throw Error("{}: is cut short: {} has a line without an end", origin_, what_);
    position_ += end + 1;
    return rest.substr(0, end);
  }

  template <std::integral T>
  T little_endian() {
    using Bits = std::make_unsigned_t<T>;
    Bits value = 0;
    const auto taken = take(sizeof(T));
    for (std::size_t i = 0; i < sizeof(T); ++i)
      value = static_cast<Bits>(value | static_cast<Bits>(static_cast<Bits>(taken[i]) << (8 * i)));
    return static_cast<T>(value);
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view origin_;
  std::string_view what_;
  std::size_t position_ = 0;
};

}  // namespace damoyolo
