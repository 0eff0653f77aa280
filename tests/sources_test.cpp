#include "loader/sources.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <sstream>

#include "tests/file_bytes.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;
using test::contains;

namespace {

using Paths = std::vector<std::string>;

Paths expand(const Paths& arguments, const std::string& list = "") {
  std::istringstream stream(list);
  return expand_sources(arguments, stream);
}

}  // namespace

TEST_CASE("sources: a file is itself, even when there is none") {
  CHECK(expand({"b.jpg", "a.txt", "no/such.png"}) == Paths{"b.jpg", "a.txt", "no/such.png"});
}

TEST_CASE("sources: a directory is its images by name, without its subdirectories") {
  const test::TemporaryFolder folder;
  for (const char* name : {"c.PNG", "a.jpg", "b.Jpeg", "d.bmp", "notes.txt", "jpg"}) {
    test::write_file(folder.file(name), "");
  }
  std::filesystem::create_directory(folder.file("e.jpg"));
  test::write_file(folder.file("e.jpg/inside.jpg"), "");
  CHECK(expand({folder.file("")}) ==
        Paths{folder.file("a.jpg"), folder.file("b.Jpeg"), folder.file("c.PNG"), folder.file("d.bmp")});
}

TEST_CASE("sources: a pattern is what the shell would make of it") {
  const test::TemporaryFolder folder;
  for (const char* name : {"1.jpg", "2.jpg", "3.png", "[4].png"}) test::write_file(folder.file(name), "");
  CHECK(expand({folder.file("*.jpg")}) == Paths{folder.file("1.jpg"), folder.file("2.jpg")});
  CHECK(expand({folder.file("[13].*")}) == Paths{folder.file("1.jpg"), folder.file("3.png")});
  CHECK(expand({folder.file("[4].png")}) == Paths{folder.file("[4].png")});  // a file of that very name
  std::filesystem::create_directory(folder.file("more"));
  test::write_file(folder.file("more/5.jpg"), "");
  CHECK(expand({folder.file("m*")}) == Paths{folder.file("more/5.jpg")});
}

TEST_CASE("sources: - is a list of paths, in place") {
  CHECK(expand({"first.png", "-", "last.png"}, "a b.jpg\r\n\n*.jpg\nc.jpg") ==
        Paths{"first.png", "a b.jpg", "*.jpg", "c.jpg", "last.png"});
}

TEST_CASE("sources: what stands for no image is an error") {
  const test::TemporaryFolder folder;
  CHECK(contains(test::error_of([&] { expand({folder.file("")}); }), "is a directory without images"));
  CHECK(contains(test::error_of([&] { expand({folder.file("*.jpg")}); }), "*.jpg: no file matches the pattern"));
  CHECK(contains(test::error_of([&] { expand({"-"}, "\n"); }), "the list names no image"));
}

TEST_CASE("sources: names for results are distinct and stay the image's own where they can") {
  CHECK(output_stems({"a/x.jpg", "y.tar.png", "b/x.png", "x-2.bmp", "c/x.jpg", "a/x.jpg"}) ==
        Paths{"x", "y.tar", "x-3", "x-2", "x-4", "x-5"});
  CHECK(output_stems({}).empty());
}
