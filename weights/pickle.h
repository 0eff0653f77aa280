// Python's pickle format read as data. A pickle is a program that builds objects by calling functions; here a call
// is only recorded, with the name of what would be called and its arguments, and nothing is ever run.
// Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

namespace damoyolo {

// One object. Only the fields its kind names are used; values may be shared and may contain themselves.
struct PickleValue {
  enum class Kind : std::uint8_t {
    None,
    Bool,          // integer
    Int,           // integer
    Long,          // text: an integer beyond 64 bits, little-endian two's complement
    Float,         // real
    Text,          // text, UTF-8; the escapes of protocol 0 are left as they are
    Bytes,         // text
    Tuple,         // items
    List,          // items
    Set,           // items
    Dict,          // items: key, value, key, value, …
    Global,        // module, text: a Python name
    Call,          // callable, arguments; items: what was then appended, or set as in a Dict
    PersistentId,  // arguments: what the writer of the file stored outside the pickle, a tuple in PyTorch's files
  };
  Kind kind = Kind::None;
  std::int64_t integer = 0;
  double real = 0;
  std::string_view module, text;
  const PickleValue* callable = nullptr;   // a Global
  const PickleValue* arguments = nullptr;  // of a Call: a Tuple
  std::vector<const PickleValue*> items;

  // Whether this is the result of calling the global `module`.`name`.
  bool is_call_of(std::string_view module, std::string_view name) const;
};

// The objects of one pickle; they live in `values` and point to each other, and into the bytes that were read.
struct Pickle {
  std::deque<PickleValue> values;
  const PickleValue* root = nullptr;
  std::size_t size = 0;  // bytes of the pickle, to find what follows it
};

// Decides which Python names may occur.
using GlobalFilter = bool (*)(std::string_view module, std::string_view name);

// Reads the pickle at the beginning of `bytes`, protocols 0 to 5. Throws Error naming `origin` when it is malformed,
// longer than two million opcodes (a checkpoint has some ten thousand), uses an opcode no checkpoint needs, or
// mentions a global that `allowed` refuses, which the message names. Uses no recursion; memory is bounded by the
// bytes.
Pickle read_pickle(std::span<const std::byte> bytes, std::string_view origin, GlobalFilter allowed);

}  // namespace damoyolo
