#include "cli/comparison.h"

#include <fmt/format.h>

#include "cli/table.h"
#include "cli/text.h"

namespace damoyolo::cli {

std::string comparison_text(const Profile& profile, bool markdown) {
  Table table{{{"node", false}, {"µs"}, {"to the plan's"}, {"kernel", false}}, {}};
  std::size_t timed = 0, without_turn = 0;
  for (const StepTime& step : profile.steps) {
    if (step.candidates.empty() && step.without_turn == 0) continue;
    table.rows.push_back({step.node, microseconds(step.seconds), "", step.kernel});
    for (const KernelTime& other : step.candidates)
      table.rows.push_back(
          {"", microseconds(other.seconds), fmt::format("{:.2f}x", other.seconds / step.seconds), other.kernel});
    if (step.without_turn > 0) table.rows.push_back({"", "", "", fmt::format("{} not timed", step.without_turn)});
    timed += step.candidates.size();
    without_turn += step.without_turn;
  }
  if (table.rows.empty()) return "Nothing to compare: each step has one kernel here.\n";
  std::string text = to_text(table, markdown);
  if (without_turn > 0)
    text += fmt::format("There was no time for {} of {}: --seconds gives more.\n", without_turn,
                        counted(timed + without_turn, "kernel"));
  return text;
}

}  // namespace damoyolo::cli
