// Small pieces of text that the commands print.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/spec.h"

namespace damoyolo::cli {

// "1 image", "2 images", "2 classes".
std::string counted(std::size_t count, std::string_view noun);

// "a, b, c"; of more than `most`, the first ones and how many follow.
std::string joined(std::span<const std::string> words, std::size_t most = 80);

// The parts between separators, without blanks around them; empty parts are left out.
std::vector<std::string> split(std::string_view text, char separator);

// The words in lines of at most `width` characters, or of one word; no line ends in a blank.
std::string folded(std::string_view text, std::size_t width);

// How many characters UTF-8 text has.
std::size_t characters(std::string_view text);

// "4.2 MB", in powers of ten.
std::string bytes_text(std::uintmax_t bytes);

// "DAMO-YOLO Ns, 10 classes, 256x256 network pixels" (height × width).
std::string describe(const ModelSpec& model);

}  // namespace damoyolo::cli
