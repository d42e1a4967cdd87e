// Which INT, QUIT or TERM is a second one, and which an echo of the first: $FORKD is told to end while
// its only worker ($BIN/workers.so:hangs) does not, so it ends by a second signal alone, with status 3.
// A round in which the machine was too slow to tell is repeated, some times.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

static void wait_until(double ms) {
  while (now_ms() < ms) {
    const timespec t = {0, 500000};
    nanosleep(&t, nullptr);
  }
}

// The master of a pool whose worker is at work.
static pid_t start_pool() {
  int ends[2];
  char worker[4096], bytes[64];
  snprintf(worker, sizeof worker, "%s/workers.so:hangs", getenv("BIN"));
  if (pipe(ends) != 0) exit(2);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execl(getenv("FORKD"), "forkd", "-g", "0", "-l", "critical", worker, nullptr);
    _exit(127);
  }
  close(ends[1]);
  if (read(ends[0], bytes, sizeof bytes) <= 0) exit(2);
  close(ends[0]);
  return pid;
}

// False: it has ended.
static bool is_there(pid_t pid, int* status) { return waitpid(pid, status, WNOHANG) == 0; }

enum Result { Right, Wrong, TooSlow };

static const double echoes[] = {0, 90};

// The third signal comes so many milliseconds after the first, and is the second that counts.
static Result check(const int* signals, double later) {
  int status = 0;
  const pid_t pid = start_pool();
  Result result = Right;
  const double earliest = now_ms();
  kill(pid, signals[0]);
  const double latest = now_ms();
  // One echo as soon, and one as late as it can be.
  for (const double echo_at : echoes) {
    wait_until(earliest + echo_at);
    kill(pid, signals[1]);
    if (now_ms() - earliest > 99) result = TooSlow;
  }
  wait_until(latest + later);
  if (!is_there(pid, &status)) {
    if (result == Right) printf("an echo of signal %d was taken for a second one\n", signals[0]);
    return result == Right ? Wrong : result;
  }
  kill(pid, signals[2]);
  for (const double end = now_ms() + 60000; is_there(pid, &status);) {
    if (now_ms() > end) {
      printf("a second signal %d, %.0f ms after the first, was taken for an echo\n", signals[2],
             later);
      wait_until(now_ms() + 200);
      kill(pid, SIGTERM);
      return Wrong;
    }
    wait_until(now_ms() + 1);
  }
  if (result == Right && !(WIFEXITED(status) && WEXITSTATUS(status) == 3))
    return printf("status %x, not 3\n", static_cast<unsigned>(status)), Wrong;
  return result;
}

int main() {
  static const int signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGINT, SIGQUIT};
  static const double later[] = {102, 150, 102};
  for (int i = 0; i < 3; i++) {
    Result result = TooSlow;
    for (int tries = 0; result == TooSlow && tries < 50; tries++)
      result = check(signals + i, later[i]);
    if (result == Wrong) return 1;
  }
  return 0;
}
