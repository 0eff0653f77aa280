// Writing pictures.
#pragma once

#include <string>

#include "loader/image.h"

namespace damoyolo {

// Throws Error when the file cannot be written completely. Safe to call from any thread.
void write_png(const std::string& path, ImageView image);

}  // namespace damoyolo
