#include "loader/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace damoyolo {
namespace {

std::string duration(double seconds) {
  const auto whole = static_cast<long>(std::min(seconds, 359999.0) + 0.5);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string progress_line(std::size_t done, std::size_t total, double seconds, int columns) {
  const double fraction = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  std::string text = fmt::format("{}/{}  {:.0f}%", done, total, 100 * fraction);
  if (done > 0 && seconds > 0) {
    const double rate = static_cast<double>(done) / seconds;
    text += fmt::format("  {:.1f} images/s  {} left", rate, duration(static_cast<double>(total - done) / rate));
  }
  const auto room = static_cast<std::size_t>(std::max(columns, 0));
  constexpr std::size_t kLeastBar = 8, kMostBar = 40, kFrame = 4;  // "[", "]" and two blanks
  if (room >= text.size() + kFrame + kLeastBar) {
    const std::size_t bar = std::min(kMostBar, room - text.size() - kFrame);
    const auto filled = static_cast<std::size_t>(static_cast<double>(bar) * fraction);
    text = fmt::format("[{:#<{}}{:-<{}}]  {}", "", filled, "", bar - filled, text);
  }
  return text.substr(0, room);
}

Progress::Progress(std::size_t total, bool quiet)
    : total_(total), enabled_(!quiet && ::isatty(STDERR_FILENO) == 1), start_(Clock::now()) {}

Progress::~Progress() { hide(); }

void Progress::advance(std::size_t images) {
  done_ = std::min(done_ + images, total_);
  const Clock::time_point now = Clock::now();
  if (!enabled_ || (visible_ && now - drawn_ < std::chrono::milliseconds(100))) return;
  // The last column stays free: some terminals wrap when it is written.
  const double seconds = std::chrono::duration<double>(now - start_).count();
  fmt::print(stderr, "\r\x1b[K{}", progress_line(done_, total_, seconds, terminal_columns() - 1));
  std::fflush(stderr);
  visible_ = true;
  drawn_ = now;
}

void Progress::hide() {
  if (!visible_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  visible_ = false;
}

}  // namespace damoyolo
