#include "loader/stb_image.h"

#include <cstdint>
#include <cstdlib>

namespace {

thread_local std::size_t limit = SIZE_MAX;

// Zeroed, because a JPEG may use a Huffman table that it never defines, and stb looks up what is there: a table of
// zeros decodes to zeros, anything else could lead outside it.
void* bounded_malloc(std::size_t size) { return size <= limit ? std::calloc(1, size) : nullptr; }
void* bounded_realloc(void* block, std::size_t size) { return size <= limit ? std::realloc(block, size) : nullptr; }

}  // namespace

namespace damoyolo {

StbAllocationLimit::StbAllocationLimit(std::size_t bytes) : previous_(limit) { limit = bytes; }
StbAllocationLimit::~StbAllocationLimit() { limit = previous_; }

}  // namespace damoyolo

#define STBI_MALLOC(size) bounded_malloc(size)
#define STBI_REALLOC(block, size) bounded_realloc(block, size)
#define STBI_FREE(block) std::free(block)
#define STB_IMAGE_IMPLEMENTATION
// Its include guard covers the declarations alone: this time it is the implementation.
#include <stb_image.h>
