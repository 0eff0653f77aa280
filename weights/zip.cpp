#include "weights/zip.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "engine/core/error.h"
#include "weights/byte_reader.h"
#include "weights/in_quotes.h"

namespace damoyolo {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50, kDirectoryHeader = 0x02014b50, kDataDescriptor = 0x08074b50;
constexpr std::uint32_t kEndRecord = 0x06054b50, kEndRecord64 = 0x06064b50, kEndLocator64 = 0x07064b50;
constexpr std::size_t kEndRecordSize = 22, kEndLocator64Size = 20;
constexpr std::uint16_t kEncrypted = 1, kHasDataDescriptor = 8;
constexpr std::uint32_t kIn64 = 0xffffffffu;  // a 32-bit field that says: look in the zip64 record
constexpr std::uint16_t kIn64Short = 0xffffu;

using Bytes = std::span<const std::byte>;

struct Directory {
  std::uint64_t entries = 0, size = 0, offset = 0;
  std::uint64_t end = 0;  // where the records after the directory begin
};

// What both headers of an entry say about it.
struct Header {
  std::uint16_t flags = 0, method = 0;
  std::uint32_t crc32 = 0;
  std::uint64_t stored_size = 0, size = 0, offset = 0;
  std::string_view name;
};

Bytes slice(Bytes bytes, std::uint64_t offset, std::uint64_t size, std::string_view origin, std::string_view what) {
  if (offset > bytes.size() || size > bytes.size() - offset)
    throw Error("{}: is a broken zip archive: {} should be {} bytes at offset {}, and the file has {}", origin, what,
                size, offset, bytes.size());
  return bytes.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(size));
}

// The end record is the last thing in the file, but for a comment of at most 65535 bytes whose length it states.
std::size_t find_end_record(Bytes bytes, std::string_view origin) {
  if (bytes.size() >= kEndRecordSize) {
    const std::size_t last = bytes.size() - kEndRecordSize;
    for (std::size_t comment = 0; comment <= std::min<std::size_t>(last, 0xffff); ++comment) {
      ByteReader reader(bytes.subspan(last - comment), origin, "the end record");
      if (reader.little_endian<std::uint32_t>() != kEndRecord) continue;
      reader.skip(16);
      if (reader.little_endian<std::uint16_t>() == comment) return last - comment;
    }
  }
  throw Error("{}: is a zip archive without an end record; it has been cut short", origin);
}

Directory read_end(Bytes bytes, std::string_view origin) {
  const std::size_t position = find_end_record(bytes, origin);
  ByteReader reader(bytes.subspan(position), origin, "the end record");
  reader.skip(4);
  std::uint32_t disk = reader.little_endian<std::uint16_t>();
  std::uint32_t directory_disk = reader.little_endian<std::uint16_t>();
  std::uint64_t entries_here = reader.little_endian<std::uint16_t>();
  Directory directory;
  directory.entries = reader.little_endian<std::uint16_t>();
  directory.size = reader.little_endian<std::uint32_t>();
  directory.offset = reader.little_endian<std::uint32_t>();
  directory.end = position;
  const bool in_64 = directory.entries == kIn64Short || directory.size == kIn64 || directory.offset == kIn64;

  bool has_locator = false;
  if (position >= kEndLocator64Size) {
    ByteReader locator(bytes.subspan(position - kEndLocator64Size), origin, "the zip64 locator");
    has_locator = locator.little_endian<std::uint32_t>() == kEndLocator64;
    if (has_locator) {
      locator.skip(4);
      const auto offset = locator.little_endian<std::uint64_t>();
      ByteReader record(slice(bytes, offset, 56, origin, "the zip64 end record"), origin, "the zip64 end record");
      if (record.little_endian<std::uint32_t>() != kEndRecord64)
        throw Error("{}: is a broken zip archive: no zip64 end record at offset {}", origin, offset);
      record.skip(12);
      Directory wide;
      disk = record.little_endian<std::uint32_t>();
      directory_disk = record.little_endian<std::uint32_t>();
      entries_here = record.little_endian<std::uint64_t>();
      wide.entries = record.little_endian<std::uint64_t>();
      wide.size = record.little_endian<std::uint64_t>();
      wide.offset = record.little_endian<std::uint64_t>();
      wide.end = offset;
      if ((directory.entries != kIn64Short && directory.entries != wide.entries) ||
          (directory.size != kIn64 && directory.size != wide.size) ||
          (directory.offset != kIn64 && directory.offset != wide.offset))
        throw Error("{}: is a broken zip archive: its two end records disagree", origin);
      directory = wide;
    }
  }
  if (in_64 && !has_locator) throw Error("{}: is a broken zip archive: its zip64 end record is missing", origin);
  if (disk != 0 || directory_disk != 0 || entries_here != directory.entries)
    throw Error("{}: is one part of a zip archive in several files; expected a single file", origin);
  return directory;
}

// Sizes and offset that did not fit in 32 bits stand in extra field 1, in this order, only those that did not fit.
void read_extra_64(Bytes extra, Header& header, std::string_view origin) {
  ByteReader fields(extra, origin, "a zip extra field");
  while (fields.remaining() >= 4) {
    const auto id = fields.little_endian<std::uint16_t>();
    const auto field = fields.take(fields.little_endian<std::uint16_t>());
    if (id != 1) continue;
    ByteReader reader(field, origin, "a zip64 extra field");
    for (std::uint64_t* value : {&header.size, &header.stored_size, &header.offset})
      if (*value == kIn64) *value = reader.little_endian<std::uint64_t>();
    return;
  }
}

struct NameAndExtra {
  std::uint16_t name = 0, extra = 0;  // lengths
};

// What both headers of an entry have, one field after the other.
NameAndExtra read_common(ByteReader& reader, Header& header) {
  header.flags = reader.little_endian<std::uint16_t>();
  header.method = reader.little_endian<std::uint16_t>();
  reader.skip(4);  // time and date
  header.crc32 = reader.little_endian<std::uint32_t>();
  header.stored_size = reader.little_endian<std::uint32_t>();
  header.size = reader.little_endian<std::uint32_t>();
  const auto name = reader.little_endian<std::uint16_t>();
  return {name, reader.little_endian<std::uint16_t>()};
}

Header read_directory_header(ByteReader& reader, std::string_view origin) {
  if (reader.little_endian<std::uint32_t>() != kDirectoryHeader)
    throw Error("{}: is a broken zip archive: its directory has something other than an entry", origin);
  Header header;
  reader.skip(4);  // versions
  const NameAndExtra lengths = read_common(reader, header);
  const auto comment_size = reader.little_endian<std::uint16_t>();
  reader.skip(8);  // disk and attributes
  header.offset = reader.little_endian<std::uint32_t>();
  header.name = reader.text(lengths.name);
  read_extra_64(reader.take(lengths.extra), header, origin);
  reader.skip(comment_size);
  return header;
}

struct Located {
  std::uint64_t begin = 0, end = 0;  // with the header and the data descriptor
  std::string_view name;
};

// After the data of an entry whose header was written before its size was known: checksum and sizes, in 32 or 64 bits.
std::uint64_t descriptor_size(Bytes after, const Header& header, std::string_view origin) {
  const auto matches = [&]<typename Size>(Size) {
    constexpr std::size_t kSize = 8 + 2 * sizeof(Size);
    if (after.size() < kSize) return false;
    ByteReader reader(after, origin, "a zip data descriptor");
    return reader.little_endian<std::uint32_t>() == kDataDescriptor &&
           reader.little_endian<std::uint32_t>() == header.crc32 &&
           reader.little_endian<Size>() == header.stored_size && reader.little_endian<Size>() == header.size;
  };
  if (matches(std::uint32_t{})) return 16;
  if (matches(std::uint64_t{})) return 24;
  throw Error("{}: is a broken zip archive: entry {} is not followed by the length the directory gives, {}", origin,
              in_quotes(header.name), header.size);
}

// Finds the data of an entry and holds its own header against the directory's.
Located locate(Bytes bytes, const Header& header, std::string_view origin, Bytes& data) {
  if (header.offset > bytes.size())
    throw Error("{}: is a broken zip archive: entry {} should be at offset {}, and its entries end at {}", origin,
                in_quotes(header.name), header.offset, bytes.size());
  ByteReader reader(bytes.subspan(static_cast<std::size_t>(header.offset)), origin, "a zip entry");
  if (reader.little_endian<std::uint32_t>() != kLocalHeader)
    throw Error("{}: is a broken zip archive: entry {} is not at offset {}", origin, in_quotes(header.name),
                header.offset);
  reader.skip(2);  // version
  Header own;
  const NameAndExtra lengths = read_common(reader, own);
  own.name = reader.text(lengths.name);
  read_extra_64(reader.take(lengths.extra), own, origin);

  if (own.name != header.name || own.method != header.method || own.flags != header.flags)
    throw Error("{}: is a broken zip archive: entry {} and the directory disagree about name or method", origin,
                in_quotes(header.name));
  const bool sizes_follow = (own.flags & kHasDataDescriptor) != 0;
  const bool sizes_left_out = sizes_follow && own.size == 0 && own.stored_size == 0 && own.crc32 == 0;
  if (!sizes_left_out &&
      (own.size != header.size || own.stored_size != header.stored_size || own.crc32 != header.crc32))
    throw Error("{}: is a broken zip archive: entry {} is {} bytes long in its own header and {} in the directory",
                origin, in_quotes(header.name), own.size, header.size);
  data = reader.take(header.size);
  Located located{header.offset, header.offset + reader.position(), header.name};
  if (sizes_follow && header.size > 0)
    located.end += descriptor_size(bytes.subspan(static_cast<std::size_t>(located.end)), header, origin);
  return located;
}

void check_disjoint(std::vector<Located>& entries, std::string_view origin) {
  std::ranges::sort(entries, {}, &Located::begin);
  for (std::size_t i = 1; i < entries.size(); ++i)
    if (entries[i].begin < entries[i - 1].end)
      throw Error("{}: is a broken zip archive: entries {} and {} overlap", origin, in_quotes(entries[i - 1].name),
                  in_quotes(entries[i].name));
}

// Eight tables, so that eight bytes are taken at a time.
constexpr auto kCrcTables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
    tables[0][i] = crc;
  }
  for (std::size_t t = 1; t < 8; ++t)
    for (std::size_t i = 0; i < 256; ++i) tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xffu];
  return tables;
}();

std::uint32_t crc32_of(Bytes bytes) {
  std::uint32_t crc = ~0u;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    word ^= crc;
    crc = 0;
    for (std::size_t t = 0; t < 8; ++t) crc ^= kCrcTables[7 - t][(word >> (8 * t)) & 0xffu];
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ kCrcTables[0][(crc ^ static_cast<std::uint8_t>(bytes[i])) & 0xffu];
  return ~crc;
}

}  // namespace

std::map<std::string_view, ZipEntry> read_zip(Bytes bytes, std::string_view origin) {
  const Directory directory = read_end(bytes, origin);
  const Bytes records = slice(bytes, directory.offset, directory.size, origin, "its directory");
  if (directory.offset + directory.size > directory.end)
    throw Error("{}: is a broken zip archive: its directory runs into its end record", origin);
  const Bytes entries = bytes.first(static_cast<std::size_t>(directory.offset));

  std::map<std::string_view, ZipEntry> result;
  std::vector<Located> located;
  ByteReader reader(records, origin, "the zip directory");
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    const Header header = read_directory_header(reader, origin);
    if ((header.flags & kEncrypted) != 0)
      throw Error("{}: zip entry {} is encrypted; expected it stored plain", origin, in_quotes(header.name));
    if (header.method != 0)
      throw Error("{}: zip entry {} is compressed (method {}); expected it stored, as torch.save writes it", origin,
                  in_quotes(header.name), header.method);
    if (header.stored_size != header.size)
      throw Error("{}: is a broken zip archive: stored entry {} has two lengths, {} and {}", origin,
                  in_quotes(header.name), header.stored_size, header.size);
    ZipEntry entry{.bytes = {}, .crc32 = header.crc32};
    located.push_back(locate(entries, header, origin, entry.bytes));
    if (!result.emplace(header.name, entry).second)
      throw Error("{}: is a broken zip archive: it has two entries named {}", origin, in_quotes(header.name));
  }
  if (reader.remaining() != 0)
    throw Error("{}: is a broken zip archive: its directory holds more than the {} entries it states", origin,
                directory.entries);
  check_disjoint(located, origin);
  return result;
}

void check_crc32(const ZipEntry& entry, std::string_view name, std::string_view origin) {
  if (crc32_of(entry.bytes) != entry.crc32)
    throw Error("{}: is damaged: zip entry {} does not have the checksum the archive gives", origin, in_quotes(name));
}

}  // namespace damoyolo
