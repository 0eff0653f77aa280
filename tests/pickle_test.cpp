#include "weights/pickle.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "tests/file_bytes.h"

using namespace damoyolo;
using namespace std::string_view_literals;
using Kind = PickleValue::Kind;

namespace {

bool only_collections(std::string_view module, std::string_view) { return module == "collections"; }

Pickle read(std::string_view text) { return read_pickle(test::as_bytes(text), "p", only_collections); }
std::string refusal(std::string_view text) {
  return test::error_of([&] { read(text); });
}

}  // namespace

TEST_CASE("pickle: integers of every opcode") {
  CHECK(read("K\xff."sv).root->integer == 255);
  CHECK(read("M\x00\x01."sv).root->integer == 256);
  CHECK(read("J\xfd\xff\xff\xff."sv).root->integer == -3);
  CHECK(read("\x8a\x06\x00\x00\x00\x00\x00\x01."sv).root->integer == 1099511627776);
  CHECK(read("\x8a\x01\xff."sv).root->integer == -1);
  CHECK(read("\x8a\x00."sv).root->integer == 0);
  CHECK(read("\x8b\x02\x00\x00\x00\x00\x80."sv).root->integer == -32768);
  CHECK(read("I-12\n."sv).root->integer == -12);
  CHECK(read("L12L\n."sv).root->integer == 12);
  const Pickle wide = read("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01."sv);
  CHECK(wide.root->kind == Kind::Long);
  CHECK(wide.root->text.size() == 9);
}

TEST_CASE("pickle: floats, booleans, None and texts") {
  CHECK(read("G\x3f\xf8\x00\x00\x00\x00\x00\x00."sv).root->real == 1.5);
  CHECK(read("F-0.25\n."sv).root->real == -0.25);
  CHECK(read("\x88."sv).root->integer == 1);
  CHECK(read("I00\n."sv).root->kind == Kind::Bool);
  CHECK(read("N."sv).root->kind == Kind::None);
  for (const auto text : {"X\x02\x00\x00\x00\xc3\xaf."sv, "\x8c\x02\xc3\xaf."sv, "U\x02\xc3\xaf."sv,
                          "\x8d\x02\x00\x00\x00\x00\x00\x00\x00\xc3\xaf."sv, "V\xc3\xaf\n."sv, "S'\xc3\xaf'\n."sv}) {
    const Pickle pickle = read(text);
    CHECK(pickle.root->kind == Kind::Text);
    CHECK(pickle.root->text == "ï");
  }
  CHECK(read("C\x01z."sv).root->kind == Kind::Bytes);
}

TEST_CASE("pickle: containers, memo and marks") {
  const Pickle pickle = read(
      "\x80\x02}q\x00(K\x01]q\x01(K\x05K\x06"
      "eK\x02h\x01u."sv);
  REQUIRE(pickle.root->kind == Kind::Dict);
  REQUIRE(pickle.root->items.size() == 4);
  CHECK(pickle.root->items[1]->items.size() == 2);
  CHECK(pickle.root->items[1] == pickle.root->items[3]);
  CHECK(read("(K\x01K\x02(K\x03tt."sv).root->items.size() == 3);
  CHECK(read("K\x01(K\x02K\x03"
             "1."sv)
            .root->integer == 1);
  CHECK(read("K\x07K\x08"
             "0."sv)
            .root->integer == 7);
  CHECK(read("(K\x01K\x02\x91."sv).root->kind == Kind::Set);
  CHECK(read("(K\x01K\x02"
             "d."sv)
            .root->items.size() == 2);
}

TEST_CASE("pickle: protocol 4 frames, memoize and stack global") {
  const Pickle pickle = read(
      "\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00\x8c\x0b"
      "collections\x94\x8c\x0b"
      "OrderedDict"
      "\x94\x93\x94)R\x94\x8c\x01"
      "aK\x01s."sv);
  CHECK(pickle.root->is_call_of("collections", "OrderedDict"));
  CHECK(pickle.root->items.size() == 2);
}

TEST_CASE("pickle: a list that contains itself") {
  const Pickle pickle = read(
      "]q\x00h\x00"
      "a."sv);
  CHECK(pickle.root->items[0] == pickle.root);
}

TEST_CASE("pickle: says where it ends") { CHECK(read("K\x01.rest"sv).size == 3); }

TEST_CASE("pickle: globals that are not allowed are named and refused, in every spelling") {
  for (const auto text : {"cposix\nsystem\n."sv, "\x8c\x05posix\x8c\x06system\x93."sv})
    CHECK(test::contains(refusal(text), "\"posix.system\""));
  CHECK(test::contains(refusal("(iposix\nsystem\n."sv), "opcode 0x69"));
  CHECK(test::contains(refusal("cos\x1b[2J\nx\n."sv), "os\\x1b[2J"));
}

TEST_CASE("pickle: malformed programs") {
  CHECK(test::contains(refusal(""sv), "cut short"));
  CHECK(test::contains(refusal("N"sv), "cut short"));
  CHECK(test::contains(refusal("."sv), "the stack is empty"));
  CHECK(test::contains(refusal("t."sv), "no mark"));
  CHECK(test::contains(refusal("K\x01(\x85."sv), "the stack is empty"));  // nothing is taken from below a mark
  CHECK(test::contains(refusal("h\x05."sv), "never stored"));
  CHECK(test::contains(refusal("K\x01)R."sv), "uncallable"));
  CHECK(test::contains(refusal("K\x01K\x02"
                               "a."sv),
                       "no container"));
  CHECK(test::contains(refusal("}(K\x01u."sv), "key without a value"));
  CHECK(test::contains(refusal("Ix\n."sv), "number"));
  CHECK(test::contains(refusal("X\xff\xff\xff\xff"
                               "abc."sv),
                       "4294967295 bytes"));
  CHECK(test::contains(refusal("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
                               "abc."sv),
                       "18446744073709551615 bytes"));
  CHECK(test::contains(refusal("\x80\x06N."sv), "protocol 6"));
  CHECK(test::contains(refusal(std::string(3'000'000, 'N')), "opcodes"));
  CHECK(test::contains(refusal(std::string(3'000'000, '(')), "opcodes"));
}

TEST_CASE("pickle: deep nesting needs no stack") {
  const std::string deep = "N" + std::string(1'000'000, '\x85') + ".";
  CHECK(read(deep).root->kind == Kind::Tuple);
}
