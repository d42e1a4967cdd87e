// Code in two versions, for reloads: -DVERSION="1" or "2".
#include "forkd.h"
#include <dlfcn.h>
#include <signal.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WORKER extern "C" int

static void pause_ms(long ms) {
  const timespec t = {0, ms * 1000000};
  nanosleep(&t, nullptr);
}

static int steadily() {
  while (forkd_yield()) pause_ms(10);
  return 0;
}

// Says which version it is and which file it was loaded from.
static void introduce() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(introduce), &info)) dprintf(1, "file %s\n", info.dli_fname);
  dprintf(1, "version " VERSION " number %d\n", forkd_worker_number());
}

WORKER steady() {
  introduce();
  return steadily();
}

// Says nothing and waits by the stop descriptor: a thousand of them leave the machine to others.
WORKER quiet() {
  pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  while (forkd_yield()) poll(&stop, 1, -1);
  return 0;
}

// Steady in version 1, crashes before its first yield in version 2.
WORKER changing() {
  introduce();
  return *VERSION == '1' ? steadily() : raise(SIGSEGV);
}

// Steady in version 1; in version 2 it yields late for the first time, whatever SIGABRT says.
WORKER late_in_two() {
  if (*VERSION == '2') {
    signal(SIGABRT, SIG_IGN);
    for (int i = 0; i < 150; i++) pause_ms(10);
  }
  return steadily();
}

// Fails before its first yield in version 1, and is steady in version 2.
WORKER broken_in_one() {
  introduce();
  if (*VERSION == '1') {
    if (forkd_worker_number() == 0) forkd_yield();
    return 1;
  }
  return steadily();
}

// Worker 0, in version 1, stays within one task while the file that is its argument exists.
WORKER first_busy(int, char** argv) {
  introduce();
  while (forkd_yield()) {
    pause_ms(10);
    if (*VERSION != '1' || forkd_worker_number() != 0 || access(argv[1], F_OK) != 0) continue;
    dprintf(1, "busy\n");
    while (access(argv[1], F_OK) == 0) pause_ms(10);
  }
  return 0;
}

// Does not yield for the first time while the file that is its argument exists.
WORKER slow_start(int, char** argv) {
  introduce();
  if (access(argv[1], F_OK) == 0) dprintf(1, "slow %d\n", forkd_worker_number());
  while (access(argv[1], F_OK) == 0) pause_ms(10);
  return steadily();
}

// Tasks with a number each; the file that is its argument gets a line at their begin and end.
WORKER counts(int, char** argv) {
  const int tally = open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0666);
  for (int task = 0; task == 0 || forkd_yield(); task++) {
    dprintf(tally, "%d %d begin\n", static_cast<int>(getpid()), task);
    pause_ms(5);
    dprintf(tally, "%d %d end\n", static_cast<int>(getpid()), task);
  }
  return 0;
}
