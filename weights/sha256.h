// SHA-256 (FIPS 180-4), to name the file that weights were imported from.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace damoyolo {

// The digest as 64 lower-case hexadecimal digits.
std::string sha256(std::span<const std::byte> bytes);

}  // namespace damoyolo
