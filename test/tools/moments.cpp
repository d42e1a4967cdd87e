// Sends a signal at every moment of forkd's start, or of its shutdown, and looks how it ends.
//
//   moments start SIGNAL STEP-US LAST-US FORKD [ARGUMENT ...]
//   moments stop  SIGNAL STEP-US LAST-US FORKD [ARGUMENT ...]
//
// "start": SIGNAL after 0, STEP, 2 STEP, ... LAST microseconds; "stop": TERM, and SIGNAL so long after
// that. Prints how often it ended with status 0, and how often the signal came before main had run
// and had its default effect; any other end, or none within 10 seconds, is a failure.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void pause_us(long us) {
  timespec t = {us / 1000000, us % 1000000 * 1000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

// The status of the process, or -1 when it has not ended within ten seconds.
static int wait_for(pid_t pid) {
  int status;
  for (int i = 0; i < 10000; i++) {
    if (waitpid(pid, &status, WNOHANG) == pid) return status;
    pause_us(1000);
  }
  return -1;
}

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  const bool at_start = strcmp(argv[1], "start") == 0;
  const int number = atoi(argv[2]);
  const long step = atol(argv[3]), last = atol(argv[4]);
  int orderly = 0, early = 0;
  long time_to_start = 100000;
  signal(number, SIG_DFL);  // a shell may have it ignored, and then it is lost before forkd's main
  for (long delay = 0; delay <= last; delay += step) {
    const pid_t pid = fork();
    if (pid == 0) {
      execv(argv[5], argv + 5);
      _exit(127);
    }
    if (!at_start) {
      pause_us(time_to_start);
      kill(pid, SIGTERM);
    }
    pause_us(delay);
    kill(pid, number);
    const int status = wait_for(pid);
    if (status == 0) {
      orderly++;
    } else if (at_start && status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == number) {
      early++;
    } else if (!at_start && status == SIGTERM && time_to_start < 10000000) {
      time_to_start *= 2;  // a busy machine needs longer until main has run
      delay -= step;
    } else {
      printf("after %ld us: status %x\n", delay, static_cast<unsigned>(status));
      kill(pid, SIGKILL);
      return 1;
    }
  }
  printf("%d orderly, %d before main\n", orderly, early);
  return orderly > 0 ? 0 : 1;
}
