#include "loader/progress.h"

#include <doctest/doctest.h>

using namespace damoyolo;

TEST_CASE("progress: count, rate and time left") {
  CHECK(progress_line(0, 40, 0, 30) == "[------------------]  0/40  0%");
  CHECK(progress_line(10, 40, 5, 60) == "[#####----------------]  10/40  25%  2.0 images/s  0:15 left");
  CHECK(progress_line(1, 10000, 1, 200) ==
        "[----------------------------------------]  1/10000  0%  1.0 images/s  2:46:39 left");
  CHECK(progress_line(5, 5, 1, 100) ==
        "[########################################]  5/5  100%  5.0 images/s  0:00 left");
}

TEST_CASE("progress: a narrow terminal gets no bar, and never too long a line") {
  CHECK(progress_line(10, 40, 5, 36) == "10/40  25%  2.0 images/s  0:15 left");
  CHECK(progress_line(10, 40, 5, 7) == "10/40  ");
  CHECK(progress_line(10, 40, 5, 0) == "");
  for (int columns = 0; columns < 120; ++columns) {
    CHECK(progress_line(123, 456, 78.9, columns).size() <= static_cast<std::size_t>(columns));
  }
}

TEST_CASE("progress: nothing to do is done") { CHECK(progress_line(0, 0, 0, 25) == "[############]  0/0  100%"); }
