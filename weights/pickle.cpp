#include "weights/pickle.h"

#include <bit>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "engine/core/error.h"
#include "weights/byte_reader.h"
#include "weights/in_quotes.h"

namespace damoyolo {
namespace {

constexpr std::int64_t kMostOpcodes = 2'000'000;

enum Opcode : std::uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kFloatText = 'F',
  kFloat = 'G',
  kIntText = 'I',
  kInt32 = 'J',
  kUint8 = 'K',
  kLongText = 'L',
  kUint16 = 'M',
  kNone = 'N',
  kPersistentId = 'Q',
  kReduce = 'R',
  kStringText = 'S',
  kString32 = 'T',
  kString8 = 'U',
  kUnicodeText = 'V',
  kUnicode32 = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kDict = 'd',
  kAppends = 'e',
  kGetText = 'g',
  kGet8 = 'h',
  kGet32 = 'j',
  kList = 'l',
  kPutText = 'p',
  kPut8 = 'q',
  kPut32 = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kProtocol = 0x80,
  kNewObject = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kTrue = 0x88,
  kFalse = 0x89,
  kLong8 = 0x8a,
  kLong32 = 0x8b,
  kBytes32 = 'B',
  kBytes8 = 'C',
  kUnicode8 = 0x8c,
  kUnicode64 = 0x8d,
  kBytes64 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kNewObjectKeywords = 0x92,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray64 = 0x96,
};

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string_view origin, GlobalFilter allowed)
      : reader_(bytes, origin, "a pickle"), origin_(origin), allowed_(allowed) {}

  Pickle run() {
    for (std::int64_t step = 0; step < kMostOpcodes; ++step) {
      const auto opcode = reader_.little_endian<std::uint8_t>();
      if (opcode == kStop) {
        result_.root = pop();
        result_.size = reader_.position();
        return std::move(result_);
      }
      execute(opcode);
    }
    throw Error("{}: has a pickle of more than {} opcodes; no checkpoint needs so many", origin_, kMostOpcodes);
  }

 private:
  using Kind = PickleValue::Kind;
  using Value = PickleValue*;

  void execute(std::uint8_t opcode) {
    switch (opcode) {
      case kProtocol: check_protocol(reader_.little_endian<std::uint8_t>()); break;
      case kFrame: reader_.skip(8); break;  // a hint for reading ahead

      case kNone: push(Kind::None); break;
      case kTrue: push(Kind::Bool)->integer = 1; break;
      case kFalse: push(Kind::Bool)->integer = 0; break;
      case kInt32: push(Kind::Int)->integer = reader_.little_endian<std::int32_t>(); break;
      case kUint8: push(Kind::Int)->integer = reader_.little_endian<std::uint8_t>(); break;
      case kUint16: push(Kind::Int)->integer = reader_.little_endian<std::uint16_t>(); break;
      case kIntText: push_int_line(reader_.line()); break;
      case kLongText: push_int_line(reader_.line()); break;
      case kLong8: push_long(reader_.text(reader_.little_endian<std::uint8_t>())); break;
      case kLong32: push_long(reader_.text(reader_.little_endian<std::uint32_t>())); break;
      case kFloat: push(Kind::Float)->real = big_endian_double(); break;
      case kFloatText: push(Kind::Float)->real = number<double>(reader_.line()); break;

      case kUnicode8: push_text(Kind::Text, reader_.little_endian<std::uint8_t>()); break;
      case kString8: push_text(Kind::Text, reader_.little_endian<std::uint8_t>()); break;
      case kUnicode32: push_text(Kind::Text, reader_.little_endian<std::uint32_t>()); break;
      case kString32: push_text(Kind::Text, reader_.little_endian<std::uint32_t>()); break;
      case kUnicode64: push_text(Kind::Text, reader_.little_endian<std::uint64_t>()); break;
      case kUnicodeText: push(Kind::Text)->text = reader_.line(); break;
      case kStringText: push_quoted_line(reader_.line()); break;
      case kBytes8: push_text(Kind::Bytes, reader_.little_endian<std::uint8_t>()); break;
      case kBytes32: push_text(Kind::Bytes, reader_.little_endian<std::uint32_t>()); break;
      case kBytes64: push_text(Kind::Bytes, reader_.little_endian<std::uint64_t>()); break;
      case kByteArray64: push_text(Kind::Bytes, reader_.little_endian<std::uint64_t>()); break;

      case kEmptyTuple: push(Kind::Tuple); break;
      case kEmptyList: push(Kind::List); break;
      case kEmptyDict: push(Kind::Dict); break;
      case kEmptySet: push(Kind::Set); break;
      case kTuple1: push_items(Kind::Tuple, pop_many(1)); break;
      case kTuple2: push_items(Kind::Tuple, pop_many(2)); break;
      case kTuple3: push_items(Kind::Tuple, pop_many(3)); break;
      case kTuple: push_items(Kind::Tuple, pop_to_mark()); break;
      case kList: push_items(Kind::List, pop_to_mark()); break;
      case kFrozenSet: push_items(Kind::Set, pop_to_mark()); break;
      case kDict: {
        auto items = pop_to_mark();
        push(Kind::Dict);
        add(items, true);
        break;
      }

      case kAppend: add(pop_many(1), false); break;
      case kAppends: add(pop_to_mark(), false); break;
      case kAddItems: add(pop_to_mark(), false); break;
      case kSetItem: add(pop_many(2), true); break;
      case kSetItems: add(pop_to_mark(), true); break;
      case kBuild:  // attributes of an object: nothing read here keeps its contents there
        pop();
        top();
        break;

      case kMark: marks_.push_back(stack_.size()); break;
      case kPop:
        if (!marks_.empty() && marks_.back() == stack_.size())
          marks_.pop_back();
        else
          pop();
        break;
      case kPopMark: pop_to_mark(); break;
      case kDup: stack_.push_back(top()); break;

      case kPut8: memo_[reader_.little_endian<std::uint8_t>()] = top(); break;
      case kPut32: memo_[reader_.little_endian<std::uint32_t>()] = top(); break;
      case kPutText: memo_[number<std::uint32_t>(reader_.line())] = top(); break;
      case kMemoize: memo_[static_cast<std::uint32_t>(memo_.size())] = top(); break;
      case kGet8: push_memo(reader_.little_endian<std::uint8_t>()); break;
      case kGet32: push_memo(reader_.little_endian<std::uint32_t>()); break;
      case kGetText: push_memo(number<std::uint32_t>(reader_.line())); break;

      case kGlobal: {
        const auto module = reader_.line();
        push_global(module, reader_.line());
        break;
      }
      case kStackGlobal: {
        const auto names = pop_many(2);
        for (const PickleValue* name : names)
          if (name->kind != Kind::Text) malformed("a global whose name is no text");
        push_global(names[0]->text, names[1]->text);
        break;
      }
      case kReduce: push_call(); break;
      case kNewObject: push_call(); break;
      case kNewObjectKeywords:
        pop();
        push_call();
        break;
      case kPersistentId: {
        const Value id = pop();
        push(Kind::PersistentId)->arguments = id;
        break;
      }
      default:
        throw Error("{}: has a pickle with opcode 0x{:02x} at offset {}, which no checkpoint needs", origin_, opcode,
                    reader_.position() - 1);
    }
  }

  [[noreturn]] void malformed(std::string_view what) const {
    throw Error("{}: has a malformed pickle: {}, before offset {}", origin_, what, reader_.position());
  }

  void check_protocol(int protocol) const {
    if (protocol > 5) throw Error("{}: has a pickle of protocol {}; 0 to 5 are known", origin_, protocol);
  }

  // Nothing is taken from below the latest mark.
  std::size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

  Value top() const {
    if (available() == 0) malformed("the stack is empty");
    return stack_.back();
  }

  Value pop() {
    const Value value = top();
    stack_.pop_back();
    return value;
  }

  std::vector<const PickleValue*> pop_many(std::size_t count) {
    if (available() < count) malformed("the stack is empty");
    std::vector<const PickleValue*> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }

  std::vector<const PickleValue*> pop_to_mark() {
    if (marks_.empty()) malformed("there is no mark");
    auto items = pop_many(available());
    marks_.pop_back();
    return items;
  }

  Value push(Kind kind) {
    const Value value = &result_.values.emplace_back();
    value->kind = kind;
    stack_.push_back(value);
    return value;
  }

  void push_items(Kind kind, std::vector<const PickleValue*> items) { push(kind)->items = std::move(items); }

  void push_text(Kind kind, std::uint64_t size) {
    const auto text = reader_.text(size);
    push(kind)->text = text;
  }

  void push_quoted_line(std::string_view line) {
    if (line.size() < 2 || line.front() != line.back() || (line.front() != '\'' && line.front() != '"'))
      malformed("a string without quotes");
    push(Kind::Text)->text = line.substr(1, line.size() - 2);
  }

  // Protocol 0 writes booleans as the integers 00 and 01, and a long with an L behind it.
  void push_int_line(std::string_view line) {
    if (line == "00" || line == "01") {
      push(Kind::Bool)->integer = line == "01";
      return;
    }
    if (line.ends_with('L')) line.remove_suffix(1);
    push(Kind::Int)->integer = number<std::int64_t>(line);
  }

  void push_long(std::string_view bytes) {
    if (bytes.size() > 8) {
      push(Kind::Long)->text = bytes;
      return;
    }
    const bool negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0;
    std::uint64_t bits = negative ? ~std::uint64_t{0} : 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bits &= ~(std::uint64_t{0xff} << (8 * i));
      bits |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    }
    push(Kind::Int)->integer = static_cast<std::int64_t>(bits);
  }

  template <typename T>
  T number(std::string_view line) const {
    T value{};
    const char* end = line.data() + line.size();
    const auto [stopped, error] = std::from_chars(line.data(), end, value);
    if (error != std::errc{} || stopped != end) malformed("a number that is none");
    return value;
  }

  double big_endian_double() {
    std::uint64_t bits = 0;
    for (const std::byte b : reader_.take(8)) bits = (bits << 8) | static_cast<std::uint64_t>(b);
    return std::bit_cast<double>(bits);
  }

  void push_memo(std::uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) malformed("a memo entry that was never stored");
    stack_.push_back(found->second);
  }

  void push_global(std::string_view module, std::string_view name) {
    if (!allowed_(module, name))
      throw Error(
          "{}: refers to the Python global {}, which a state dict does not need; it is refused, and nothing "
          "was run",
          origin_, in_quotes(fmt::format("{}.{}", module, name)));
    const Value value = push(Kind::Global);
    value->module = module;
    value->text = name;
  }

  void push_call() {
    const auto parts = pop_many(2);
    if (parts[0]->kind != Kind::Global || parts[1]->kind != Kind::Tuple) malformed("a call of something uncallable");
    const Value value = push(Kind::Call);
    value->callable = parts[0];
    value->arguments = parts[1];
  }

  // Adds items to the container on top of the stack. A Call may become any container once called.
  void add(const std::vector<const PickleValue*>& items, bool as_dict) {
    const Value container = top();
    const bool fits =
        as_dict ? container->kind == Kind::Dict : container->kind == Kind::List || container->kind == Kind::Set;
    if (!fits && container->kind != Kind::Call) malformed("items for something that is no container");
    if (as_dict && items.size() % 2 != 0) malformed("a key without a value");
    container->items.insert(container->items.end(), items.begin(), items.end());
  }

  ByteReader reader_;
  std::string_view origin_;
  GlobalFilter allowed_;
  Pickle result_;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;  // stack sizes at which a mark was set
  std::unordered_map<std::uint32_t, Value> memo_;
};

}  // namespace

bool PickleValue::is_call_of(std::string_view wanted_module, std::string_view name) const {
  return kind == Kind::Call && callable->module == wanted_module && callable->text == name;
}

Pickle read_pickle(std::span<const std::byte> bytes, std::string_view origin, GlobalFilter allowed) {
  return Machine(bytes, origin, allowed).run();
}

}  // namespace damoyolo
