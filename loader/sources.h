// From what a user names on the command line to the images meant.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace damoyolo {

// The paths of the images that the arguments stand for, in the arguments' order:
//   a directory   the .jpg, .jpeg, .png and .bmp files in it (any case, not in its subdirectories), sorted by name
//   a pattern     with * ? or [, when no file has that very name: what the shell would make of it
//   -             the lines of `list`, each the path of an image
//   anything else itself, also when there is no such file: reading it will tell, and spoils nothing for its neighbours
// Throws Error when a directory cannot be read, or when an argument stands for no image at all.
std::vector<std::string> expand_sources(const std::vector<std::string>& arguments, std::istream& list);

// For each image a file name without extension for what is written about it: the image's own, and where several share
// one, "NAME-2", "NAME-3", … for all but the first.
std::vector<std::string> output_stems(const std::vector<std::string>& images);

}  // namespace damoyolo
