#include "engine/cpu/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace damoyolo {
namespace {

constexpr int kWeightBits = 11;  // weights are fractions of 2048
constexpr int kDroppedBits = 4;  // by which a row's sums are shortened so that they fit 16 bits

// The two source positions that a position of the result lies between, and how much each counts.
struct Tap {
  int first = 0, second = 0;
  std::int16_t weights[2] = {0, 0};
};

std::vector<Tap> taps(int source_size, int size) {
  std::vector<Tap> result(static_cast<std::size_t>(size));
  const double scale = static_cast<double>(source_size) / size;
  for (int i = 0; i < size; ++i) {
    const double position = (i + 0.5) * scale - 0.5;
    const double floor = std::floor(position);
    const bool inside = floor >= 0 && floor < source_size - 1;
    const int first = std::clamp(static_cast<int>(floor), 0, source_size - 1);
    const float fraction = inside ? static_cast<float>(position - floor) : 0.0f;
    constexpr float kOne = 1 << kWeightBits;
    result[static_cast<std::size_t>(i)] = {first,
                                           std::min(first + 1, source_size - 1),
                                           {static_cast<std::int16_t>(std::lrint(kOne * (1.0f - fraction))),
                                            static_cast<std::int16_t>(std::lrint(kOne * fraction))}};
  }
  return result;
}

#ifdef __SSE2__
std::int32_t load_four_bytes(const void* from) {
  std::int32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
#endif

// A source row at the result's width, in 1/128 levels; `columns` count bytes. For the first `wide` columns a fourth
// byte after either pixel may be read and a fourth value after the result's written.
void resize_row(const std::uint8_t* source, const std::vector<Tap>& columns, [[maybe_unused]] std::size_t wide,
                std::int16_t* out) {
  std::size_t i = 0;
#ifdef __SSE2__
  for (; i < wide; ++i) {
    const __m128i first = _mm_cvtsi32_si128(load_four_bytes(source + columns[i].first));
    const __m128i second = _mm_cvtsi32_si128(load_four_bytes(source + columns[i].second));
    const __m128i weights = _mm_set1_epi32(load_four_bytes(columns[i].weights));
    const __m128i pairs = _mm_unpacklo_epi8(_mm_unpacklo_epi8(first, second), _mm_setzero_si128());
    const __m128i sums = _mm_srai_epi32(_mm_madd_epi16(pairs, weights), kDroppedBits);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 3 * i), _mm_packs_epi32(sums, sums));
  }
#endif
  for (; i < columns.size(); ++i) {
    const Tap& column = columns[i];
    for (int c = 0; c < 3; ++c) {
      const int sum = source[column.first + c] * column.weights[0] + source[column.second + c] * column.weights[1];
      out[3 * i + static_cast<std::size_t>(c)] = static_cast<std::int16_t>(sum >> kDroppedBits);
    }
  }
}

void blend_rows(const std::int16_t* first, const std::int16_t* second, const Tap& row, int count, std::uint8_t* out) {
  const int first_weight = row.weights[0], second_weight = row.weights[1];
  for (int i = 0; i < count; ++i) {
    const auto a = static_cast<std::int16_t>(first_weight * first[i] >> 16);
    const auto b = static_cast<std::int16_t>(second_weight * second[i] >> 16);
    out[i] = static_cast<std::uint8_t>(static_cast<std::int16_t>(a + b + 2) >> 2);
  }
}

}  // namespace

void resize_bilinear(ImageView image, int width, int height, std::uint8_t* out) {
  if (width == image.width && height == image.height) {
    std::memcpy(out, image.rgb, static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
    return;
  }
  const std::vector<Tap> rows = taps(image.height, height);
  std::vector<Tap> columns = taps(image.width, width);
  for (Tap& column : columns) {
    column.first *= 3;
    column.second *= 3;
  }
  const std::size_t source_stride = static_cast<std::size_t>(image.width) * 3;
  const std::size_t stride = static_cast<std::size_t>(width) * 3;
  // Not the last column, nor any that reads the last pixel: nothing follows them.
  const auto narrow = std::find_if(columns.begin(), columns.end() - 1, [&](const Tap& column) {
    return static_cast<std::size_t>(column.second) + 4 > source_stride;
  });
  const auto wide = static_cast<std::size_t>(narrow - columns.begin());

  // A band of rows keeps the last two source rows it resized: neighbours in the result mostly share one or both.
  constexpr int kBandRows = 64;
  const int bands = (height + kBandRows - 1) / kBandRows;
#pragma omp parallel for schedule(static) if (bands > 1)
  for (int band = 0; band < bands; ++band) {
    std::vector<std::int16_t> buffer(2 * stride);
    int held[2] = {-1, -1};
    // Source row y goes to slot y % 2, so that a pair of neighbours never competes for one.
    const auto resized_row = [&](int y) {
      std::int16_t* const row = buffer.data() + (y % 2) * stride;
      if (held[y % 2] != y) resize_row(image.rgb + static_cast<std::size_t>(y) * source_stride, columns, wide, row);
      held[y % 2] = y;
      return row;
    };
    for (int y = band * kBandRows; y < std::min(height, (band + 1) * kBandRows); ++y) {
      const Tap& row = rows[static_cast<std::size_t>(y)];
      const std::int16_t* const first = resized_row(row.first);
      const std::int16_t* const second = resized_row(row.second);
      blend_rows(first, second, row, static_cast<int>(stride), out + static_cast<std::size_t>(y) * stride);
    }
  }
}

}  // namespace damoyolo
