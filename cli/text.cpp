#include "cli/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace damoyolo::cli {

std::string counted(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : noun.ends_with('s') ? "es" : "s");
}

std::string joined(std::span<const std::string> words, std::size_t most) {
  const auto shown = words.first(std::min(most, words.size()));
  std::string text = fmt::format("{}", fmt::join(shown, ", "));
  if (shown.size() < words.size()) text += fmt::format(" and {} more", words.size() - shown.size());
  return text;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    const std::string_view part = text.substr(0, end);
    const std::size_t first = part.find_first_not_of(" \t"), last = part.find_last_not_of(" \t");
    if (first != std::string_view::npos) parts.emplace_back(part.substr(first, last - first + 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

std::string folded(std::string_view text, std::size_t width) {
  std::string lines;
  std::size_t column = 0;
  for (const std::string& word : split(text, ' ')) {
    const std::size_t length = characters(word);
    const bool first = lines.empty(), breaks = !first && column + 1 + length > width;
    lines += first ? "" : breaks ? "\n" : " ";
    column = first || breaks ? length : column + 1 + length;
    lines += word;
  }
  return lines;
}

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; }));
}

std::string bytes_text(std::uintmax_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 1'000'000) return fmt::format("{:.1f} kB", value * 1e-3);
  if (bytes < 1'000'000'000) return fmt::format("{:.1f} MB", value * 1e-6);
  return fmt::format("{:.1f} GB", value * 1e-9);
}

std::string describe(const ModelSpec& model) {
  return fmt::format("DAMO-YOLO {}, {}, {}x{} network pixels", model.variant,
                     counted(static_cast<std::size_t>(model.head.classes), "class"), model.input_height,
                     model.input_width);
}

}  // namespace damoyolo::cli
