#include "weights/zip.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/file_bytes.h"

using namespace damoyolo;

namespace {

std::string bytes_of(std::uint64_t value, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

// What both headers of an entry say; tests make them say different things.
struct Fields {
  std::string name = "a";
  std::uint16_t flags = 0, method = 0;
  std::uint32_t crc32 = 0x1ce1e79c;  // of "hello, zip"
  std::uint64_t stored_size = 10, size = 10, offset = 0;
  std::string extra = {};
};

std::string local_header(const Fields& f) {
  return "PK\x03\x04" + bytes_of(20, 2) + bytes_of(f.flags, 2) + bytes_of(f.method, 2) + bytes_of(0, 4) +
         bytes_of(f.crc32, 4) + bytes_of(f.stored_size, 4) + bytes_of(f.size, 4) + bytes_of(f.name.size(), 2) +
         bytes_of(f.extra.size(), 2) + f.name + f.extra;
}

std::string directory_header(const Fields& f) {
  return "PK\x01\x02" + bytes_of(20, 2) + bytes_of(20, 2) + bytes_of(f.flags, 2) + bytes_of(f.method, 2) +
         bytes_of(0, 4) + bytes_of(f.crc32, 4) + bytes_of(f.stored_size, 4) + bytes_of(f.size, 4) +
         bytes_of(f.name.size(), 2) + bytes_of(f.extra.size(), 2) + bytes_of(0, 2) + bytes_of(0, 8) +
         bytes_of(f.offset, 4) + f.name + f.extra;
}

std::string end_record(std::uint64_t entries, std::uint64_t size, std::uint64_t offset,
                       const std::string& comment = "") {
  return "PK\x05\x06" + bytes_of(0, 4) + bytes_of(entries, 2) + bytes_of(entries, 2) + bytes_of(size, 4) +
         bytes_of(offset, 4) + bytes_of(comment.size(), 2) + comment;
}

const std::string kContent = "hello, zip";

// An archive of one entry.
std::string archive(const Fields& local, const Fields& central, const std::string& after_data = "",
                    const std::string& comment = "") {
  const std::string entries = local_header(local) + kContent + after_data;
  const std::string directory = directory_header(central);
  return entries + directory + end_record(1, directory.size(), entries.size(), comment);
}
std::string archive(const Fields& both) { return archive(both, both); }

std::string refusal(const std::string& text) {
  return test::error_of([&] { read_zip(test::as_bytes(text), "z"); });
}

std::string_view content(const std::string& text, std::string_view name = "a") {
  const auto entry = read_zip(test::as_bytes(text), "z").at(name);
  check_crc32(entry, name, "z");
  return {reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size()};
}

}  // namespace

TEST_CASE("zip: a stored entry, with and without a comment") {
  const std::string plain = archive({});
  CHECK(content(plain) == kContent);
  const std::string commented =
      archive({}, {}, "", "a comment with PK\x05\x06 in it, long enough to look like a record");
  CHECK(content(commented) == kContent);
}

TEST_CASE("zip: sizes behind the data, in 32 and in 64 bits") {
  const Fields central{.flags = 8};
  const Fields local{.flags = 8, .crc32 = 0, .stored_size = 0, .size = 0};
  const std::string head = "PK\x07\x08" + bytes_of(central.crc32, 4);
  const std::string narrow = archive(local, central, head + bytes_of(10, 4) + bytes_of(10, 4));
  CHECK(content(narrow) == kContent);
  const std::string wide = archive(local, central, head + bytes_of(10, 8) + bytes_of(10, 8));
  CHECK(content(wide) == kContent);
  CHECK(test::contains(refusal(archive(local, central, head + bytes_of(9, 4) + bytes_of(9, 4))), "not followed by"));
  CHECK(test::contains(refusal(archive(local, central)), "not followed by"));
}

TEST_CASE("zip: zip64 sizes and end record") {
  Fields f{.stored_size = 0xffffffff, .size = 0xffffffff};
  f.extra = bytes_of(0x4242, 2) + bytes_of(1, 2) + "x" + bytes_of(1, 2) + bytes_of(16, 2) + bytes_of(10, 8) +
            bytes_of(10, 8);
  const std::string entries = local_header(f) + kContent, directory = directory_header(f);
  const std::string end64 = "PK\x06\x06" + bytes_of(44, 8) + bytes_of(45, 2) + bytes_of(45, 2) + bytes_of(0, 8) +
                            bytes_of(1, 8) + bytes_of(1, 8) + bytes_of(directory.size(), 8) +
                            bytes_of(entries.size(), 8);
  const std::string locator =
      "PK\x06\x07" + bytes_of(0, 4) + bytes_of(entries.size() + directory.size(), 8) + bytes_of(1, 4);
  const std::string good = entries + directory + end64 + locator + end_record(0xffff, 0xffffffff, 0xffffffff);
  CHECK(content(good) == kContent);
  CHECK(test::contains(refusal(entries + directory + end64 + locator + end_record(7, 0xffffffff, 0xffffffff)),
                       "disagree"));
  CHECK(test::contains(refusal(entries + directory + end_record(0xffff, 0xffffffff, 0xffffffff)),
                       "zip64 end record is missing"));

  Fields huge = f;
  huge.extra = bytes_of(1, 2) + bytes_of(16, 2) + bytes_of(~0ull, 8) + bytes_of(~0ull, 8);
  CHECK(test::contains(refusal(archive(huge)), "18446744073709551615 bytes"));
}

TEST_CASE("zip: entries that lie") {
  CHECK(test::contains(refusal(archive({}, {.stored_size = 9, .size = 9})), "10 bytes long in its own header and 9"));
  CHECK(test::contains(refusal(archive({.stored_size = 4000, .size = 4000})), "cut short"));
  CHECK(test::contains(refusal(archive({}, {.stored_size = 10, .size = 11})), "two lengths"));
  CHECK(test::contains(refusal(archive({}, {.name = "b"})), "disagree about name"));
  CHECK(test::contains(refusal(archive({}, {.offset = 3})), "is not at offset 3"));
  CHECK(test::contains(refusal(archive({}, {.offset = 0xfffffff0})), "should be at offset 4294967280"));
  CHECK(test::contains(refusal(archive({.method = 8})), "is compressed (method 8)"));
  CHECK(test::contains(refusal(archive({.flags = 1})), "encrypted"));
  const std::string damaged = archive({.crc32 = 5});
  CHECK(test::contains(test::error_of([&] { content(damaged); }), "checksum"));
}

TEST_CASE("zip: two entries may not share a name or bytes") {
  const Fields first;
  const Fields twin{.offset = local_header(first).size() + kContent.size()};
  const std::string entries = local_header(first) + kContent + local_header(twin) + kContent;
  const std::string directory = directory_header(first) + directory_header(twin);
  CHECK(test::contains(refusal(entries + directory + end_record(2, directory.size(), entries.size())),
                       "two entries named"));

  // The second entry's header stands inside the data of the first.
  const std::string inner = local_header({.name = "b"}) + kContent;
  const Fields outer{.stored_size = inner.size(), .size = inner.size()};
  const std::string nested = local_header(outer) + inner;
  const std::string both =
      directory_header(outer) + directory_header({.name = "b", .offset = local_header(outer).size()});
  CHECK(test::contains(refusal(nested + both + end_record(2, both.size(), nested.size())), "overlap"));
}

TEST_CASE("zip: a directory that lies") {
  const std::string entry = local_header({}) + kContent, directory = directory_header({});
  const auto refuse = [&](const std::string& end) { return refusal(entry + directory + end); };
  CHECK(test::contains(refuse(end_record(2, directory.size(), entry.size())), "cut short"));
  CHECK(test::contains(refuse(end_record(0, directory.size(), entry.size())), "more than the 0 entries"));
  CHECK(test::contains(refuse(end_record(1, directory.size() + 8, entry.size())), "runs into its end record"));
  CHECK(test::contains(refuse(end_record(1, 0xfffffff0, entry.size())), "its directory should be 4294967280 bytes"));
  CHECK(
      test::contains(refuse(end_record(1, directory.size() - 1, entry.size() + 1)), "something other than an entry"));
  CHECK(test::contains(refuse(""), "end record"));
}
