#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "cli/text.h"

namespace damoyolo::cli {
namespace {

std::string padded(const std::string& text, std::size_t width, bool right) {
  const std::string blanks(width - std::min(width, characters(text)), ' ');
  return right ? blanks + text : text + blanks;
}

}  // namespace

std::string to_text(const Table& table, bool markdown) {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    widths.push_back(characters(table.columns[i].title));
    for (const auto& row : table.rows) widths[i] = std::max(widths[i], characters(row[i]));
  }
  const auto line = [&](const auto& cell_at) {
    std::string text = markdown ? "|" : "";
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const std::string cell = padded(cell_at(i), widths[i], table.columns[i].number);
      text += markdown ? " " + cell + " |" : (i > 0 ? "  " : "") + cell;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
  };
  std::string text = line([&](std::size_t i) { return table.columns[i].title; });
  if (markdown)
    text += line([&](std::size_t i) {
      return table.columns[i].number ? std::string(widths[i] - 1, '-') + ":" : std::string(widths[i], '-');
    });
  for (const auto& row : table.rows) text += line([&](std::size_t i) { return row[i]; });
  return text;
}

std::string three_digits(double value) {
  if (value == 0 || !std::isfinite(value)) return fmt::format("{}", value);
  const int before = static_cast<int>(std::floor(std::log10(std::abs(value)))) + 1;
  return fmt::format("{:.{}f}", value, std::clamp(3 - before, 0, 6));
}

std::string microseconds(double seconds) { return fmt::format("{:.1f}", 1e6 * seconds); }

}  // namespace damoyolo::cli
