// Constants on a device that is the host.
#include "engine/cuda/uploaded.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <future>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

using namespace damoyolo::cuda;

namespace {

std::vector<std::byte> bytes(std::size_t count, int first) {
  std::vector<std::byte> result(count, std::byte{7});
  result.front() = static_cast<std::byte>(first);
  return result;
}

std::size_t hash_of(const std::vector<std::byte>& bytes) {
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// Two times two words that std::hash takes for each other. libstdc++ computes hash = (hash ^ mix(word)) * kMultiplier
// word by word, with a mix that can be undone: what the highest bit of the first word's mix changes is not changed by
// an odd product, and the highest bit of the second's takes it back.
std::pair<std::vector<std::byte>, std::vector<std::byte>> colliding_bytes() {
  constexpr std::uint64_t kMultiplier = 0xc6a4a7935bd1e995, kTop = std::uint64_t{1} << 63;
  std::uint64_t inverse = kMultiplier;  // mod 2^64, by Newton's iteration
  for (int i = 0; i < 6; ++i) inverse *= 2 - kMultiplier * inverse;
  const auto fold = [](std::uint64_t value) { return value ^ (value >> 47); };  // its own inverse
  const auto mix = [&](std::uint64_t word) { return fold(word * kMultiplier) * kMultiplier; };
  const auto unmix = [&](std::uint64_t mixed) { return fold(mixed * inverse) * inverse; };
  const std::uint64_t words[2] = {1, 2}, others[2] = {unmix(mix(1) ^ kTop), unmix(mix(2) ^ kTop)};
  const auto bytes_of = [](const std::uint64_t(&from)[2]) {
    std::vector<std::byte> result(sizeof from);
    std::memcpy(result.data(), from, sizeof from);
    return result;
  };
  return {bytes_of(words), bytes_of(others)};
}

}  // namespace

TEST_CASE("cuda uploaded: the same bytes are on the device once, as long as somebody holds them") {
  const std::size_t before = uploaded_bytes();
  CHECK(Uploaded().data() == nullptr);
  std::optional<Uploaded> first(bytes(1000, 1));
  const Uploaded other(bytes(1000, 2)), shorter(bytes(999, 1));
  CHECK(uploaded_bytes() == before + 2999);
  CHECK(std::memcmp(first->data(), bytes(1000, 1).data(), 1000) == 0);
  CHECK(std::memcmp(other.data(), bytes(1000, 2).data(), 1000) == 0);
  CHECK(other.data() != first->data());
  CHECK(shorter.data() != first->data());

  std::optional<Uploaded> again(bytes(1000, 1));
  CHECK(again->data() == first->data());
  CHECK(uploaded_bytes() == before + 2999);
  first.reset();
  CHECK(std::memcmp(again->data(), bytes(1000, 1).data(), 1000) == 0);
  CHECK(uploaded_bytes() == before + 2999);
  again.reset();
  CHECK(uploaded_bytes() == before + 1999);
  const Uploaded once_more(bytes(1000, 1));
  CHECK(std::memcmp(once_more.data(), bytes(1000, 1).data(), 1000) == 0);
  CHECK(uploaded_bytes() == before + 2999);
}

TEST_CASE("cuda uploaded: different bytes of the same hash are not taken for each other") {
  const auto [some, others] = colliding_bytes();
  REQUIRE(some != others);
  REQUIRE(hash_of(some) == hash_of(others));
  const Uploaded first(some), second(others), first_again(some), second_again(others);
  CHECK(std::memcmp(first.data(), some.data(), some.size()) == 0);
  CHECK(std::memcmp(second.data(), others.data(), others.size()) == 0);
  CHECK(first_again.data() == first.data());
  CHECK(second_again.data() == second.data());
}

TEST_CASE("cuda uploaded: threads share what they upload") {
  const std::size_t before = uploaded_bytes();
  std::vector<std::future<std::vector<Uploaded>>> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.push_back(std::async(std::launch::async, [] {
      std::vector<Uploaded> result;
      for (int i = 0; i < 50; ++i) result.emplace_back(bytes(64, i));
      return result;
    }));
  std::vector<std::vector<Uploaded>> all;
  for (auto& thread : threads) all.push_back(thread.get());
  CHECK(uploaded_bytes() == before + 50 * 64);
  for (const auto& uploads : all)
    for (std::size_t i = 0; i < uploads.size(); ++i) CHECK(uploads[i].data() == all[0][i].data());
}

TEST_CASE("cuda uploaded: memory to write to is not shared") {
  const ZeroedMemory first(64), second(64);
  REQUIRE(first.data() != second.data());
  std::memset(first.data(), 1, 64);
  CHECK(std::memcmp(second.data(), std::vector<std::byte>(64).data(), 64) == 0);
}
