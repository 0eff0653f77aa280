// The one exception type of the library.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace damoyolo {

// Thrown for anything a caller can be told about: bad files, unusable options, failed device calls.
// The message is one sentence that names the file or option, what was wrong, and what was expected.
class Error : public std::runtime_error {
 public:
  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace damoyolo
