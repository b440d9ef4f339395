// nsa watch RUN [--once] [--every SECONDS]: follows a run from another terminal. Only reads metrics.jsonl, and of that
// only what is new.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "cli/verbs.h"
#include "core/program.h"
#include "report/terminal.h"

namespace nsa::cli {

namespace {

struct Follower {
  std::string file;
  report::MetricsReader reader;
  off_t position = 0;
  ino_t inode = 0;
  double changed = 0;  // time of the file's last change

  /// Takes what is new; begins again when the file was replaced or cut. False when nothing was.
  bool update() {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    NSA_CHECK(fd >= 0, "cannot open {}: {}", file, std::strerror(errno));
    struct stat info {};
    ::fstat(fd, &info);
    changed = static_cast<double>(info.st_mtime);
    const bool fresh = info.st_ino != inode || info.st_size < position;
    if (fresh) reader = report::MetricsReader(), position = 0;
    const off_t before = position;
    inode = info.st_ino;
    std::string buffer(1 << 20, '\0');
    ssize_t n = 0;
    while ((n = ::pread(fd, buffer.data(), buffer.size(), position)) > 0) {
      const std::string_view bytes(buffer.data(), static_cast<std::size_t>(n));
      if (position == 0) reader = report::MetricsReader(report::detect_delimiter(bytes));
      reader.feed(bytes);
      position += n;
    }
    ::close(fd);
    return fresh || position != before;
  }
};

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40 ? std::min<int>(size.ws_col, 160) : 100;
}

/// Over the last view: cursor home, each line's rest cleared, what is below cleared; no flicker.
std::string in_place(const std::string& view) {
  std::string screen = "\x1b[H";
  for (const char c : view) c == '\n' ? screen += "\x1b[K\n" : screen += c;
  return screen + "\x1b[J";
}

}  // namespace

Exit watch(CLI::App& app, int argc, char** argv) {
  std::string path;
  bool once = false;
  double every = 2;
  app.add_option("run", path, "run folder, runs/NAME")->required()->transform(home_path());
  app.add_flag("--once", once, "print once and end; so it does when the output is no terminal");
  app.add_option("--every", every, "seconds between updates")->check(CLI::Range(0.2, 3600.0));
  app.parse(argc, argv);

  Follower follower{report::metrics_path(path), report::MetricsReader(), 0, 0, 0};
  const bool follow = !once && ::isatty(STDOUT_FILENO), can_redraw = takes_escape_codes(STDOUT_FILENO);
  for (bool first = true;; first = false) {
    const bool news = follower.update();
    const report::Records& run = follower.reader.records;
    const double planned = run.info.planned_steps();
    const bool over =
        (planned > 0 && !run.steps.empty() && run.steps.back().step >= planned) || std::isfinite(run.diverged_at());
    const std::string view = report::watch_text(
        run, path, std::difftime(std::time(nullptr), static_cast<std::time_t>(follower.changed)), terminal_columns());
    // A terminal that cannot redraw gets the views one under the other, each when it has something new to say.
    if (follow && can_redraw && !(first && over)) {
      std::fputs(in_place(view).c_str(), stdout);
    } else if (news) {
      std::printf("%s%s", first ? "" : "\n", view.c_str());
    }
    flush_results();
    if (!follow || over) return Exit::ok;
    timespec pause{static_cast<std::time_t>(every), static_cast<long>((every - std::floor(every)) * 1e9)};
    ::nanosleep(&pause, nullptr);
  }
}

}  // namespace nsa::cli
