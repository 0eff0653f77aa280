// Tables for people, as text or Markdown.
#pragma once

#include <string>
#include <vector>

namespace damoyolo::cli {

struct Column {
  std::string title;
  bool number = true;  // numbers stand at the right
};

struct Table {
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;  // each as long as `columns`
};

std::string to_text(const Table& table, bool markdown);

// With three significant digits and never an exponent: "0.0123", "1.23", "12.3", "1230".
std::string three_digits(double value);

// In µs, with one digit behind the point.
std::string microseconds(double seconds);

}  // namespace damoyolo::cli
