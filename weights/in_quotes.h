// Names out of untrusted files, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace damoyolo {

// In double quotes, at most 120 characters, everything but printable ASCII as \xNN.
std::string in_quotes(std::string_view text);

}  // namespace damoyolo
