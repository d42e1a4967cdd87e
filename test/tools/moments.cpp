// Sends a signal at many moments of forkd's start, or of its shutdown, and looks how it ends.
//
//   moments start COUNT SIGNAL TEXT FORKD [ARGUMENT ...]
//   moments stop  COUNT SIGNAL TEXT FORKD [ARGUMENT ...]
//
// The start is over when standard error has TEXT. "start": SIGNAL at COUNT moments, spread over the
// time that a start takes here, and further ones until it has come after a start. "stop": the same
// between TERM and the end. Each must end with status 0. A signal may also kill, but only a process
// that has not written anything: then main has not run yet.
//
// Prints how often it ended with 0, and how often the signal came before main.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int patience = 60000;  // milliseconds without a line, until it counts as hanging

static long clock_us() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static void pause_us(long us) {
  timespec t = {us / 1000000, us % 1000000 * 1000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

// A forkd, and what it has written to standard error.
struct Run {
  pid_t pid;
  int log;
  char text[16384];
  size_t size;
  bool closed;  // it has ended, and its workers, too
};

static Run start(char** argv) {
  Run run = {};
  int ends[2];
  if (pipe(ends) != 0) exit(2);
  run.pid = fork();
  if (run.pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    execv(argv[0], argv);
    _exit(127);
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  run.log = ends[0];
  return run;
}

static void read_log(Run& run) {
  for (ssize_t got; (got = read(run.log, run.text + run.size, sizeof run.text - 1 - run.size)) >= 0;) {
    if (got == 0) {
      run.closed = true;
      return;
    }
    run.size += static_cast<size_t>(got);
  }
}

[[noreturn]] static void fail(const Run& run, const char* what, long number) {
  kill(run.pid, SIGKILL);
  printf("%s %ld; it has written:\n%s", what, number, run.text);
  exit(1);
}

// Waits until the text has come, or without one until the log is closed.
static void wait_for(Run& run, const char* text) {
  for (; read_log(run), text ? !strstr(run.text, text) : !run.closed;) {
    pollfd log = {run.log, POLLIN, 0};
    if (run.closed || poll(&log, 1, patience) == 0) fail(run, text ? text : "no end", 0);
  }
}

// Its status, when it and its workers have ended.
static int end(Run& run) {
  wait_for(run, nullptr);
  close(run.log);
  int status = -1;
  waitpid(run.pid, &status, 0);
  return status;
}

static bool has_ended(const Run& run) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(run.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  const bool at_start = strcmp(argv[1], "start") == 0;
  const int count = atoi(argv[2]), number = atoi(argv[3]);
  const char* started = argv[4];
  char** command = argv + 5;
  signal(number, SIG_DFL);  // a shell may have it ignored, and then it is lost before forkd's main
  signal(SIGTERM, SIG_DFL);

  Run first = start(command);
  long since = clock_us();
  wait_for(first, started);
  if (!at_start) since = clock_us();
  kill(first.pid, SIGTERM);
  if (!at_start) wait_for(first, nullptr);
  long step = (clock_us() - since) / count + 1;
  if (const int status = end(first)) fail(first, "status", status);

  int orderly = 0, early = 0, inside = 0;
  for (long delay = 0;; delay += step) {
    Run run = start(command);
    if (!at_start) {
      wait_for(run, started);
      kill(run.pid, SIGTERM);
    }
    pause_us(delay);
    read_log(run);
    const bool over = at_start ? strstr(run.text, started) != nullptr : has_ended(run);
    kill(run.pid, number);
    const int status = end(run);
    if (status == 0)
      orderly++;
    else if (at_start && WIFSIGNALED(status) && WTERMSIG(status) == number && run.size == 0)
      early++;
    else
      fail(run, "status", status);
    if (!at_start && (strstr(run.text, "the target") || strstr(run.text, "reload")))
      fail(run, "acted on, after us:", delay);
    inside += !over;
    if (over && inside >= count / 2) break;
    if (over) {  // it was faster than the first time
      step = step / 2 + 1;
      delay = -step;
    }
    if (inside > count) step += step / 4 + 1;  // slower
  }
  printf("%d orderly, %d before main\n", orderly, early);
  return 0;
}
