// The steps of a plan beside the other kernels that can compute them.
#pragma once

#include <string>

#include "cli/report.h"

namespace damoyolo::cli {

// A table, of each step the plan's kernel first and then the others; and what there was no time for.
std::string comparison_text(const Profile& profile, bool markdown);

}  // namespace damoyolo::cli
