// A reader of zip archives whose entries are stored, not compressed, as torch.save writes them.
// Format: PKWARE's APPNOTE.TXT, with its zip64 records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string_view>

namespace damoyolo {

struct ZipEntry {
  std::span<const std::byte> bytes;
  std::uint32_t crc32 = 0;  // as the archive says; see check_crc32
};

// The entries by name. Names and contents point into `bytes`. Throws Error naming `origin` when a record is cut short
// or out of range, when an entry is compressed or encrypted, when the directory and an entry's own header disagree,
// when two entries overlap or share a name, or when the archive spans several files.
std::map<std::string_view, ZipEntry> read_zip(std::span<const std::byte> bytes, std::string_view origin);

// Throws Error naming `origin` and the entry unless the bytes have the checksum the archive gives for them.
void check_crc32(const ZipEntry& entry, std::string_view name, std::string_view origin);

}  // namespace damoyolo
