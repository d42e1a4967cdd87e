// Code in two versions, for reloads: -DVERSION="1" or "2". With -DHANGS="0" worker 0 never comes back
// from loading it; with -DREPLACES the file next.so takes the place of code.so while it is loaded.
//
// A file tells a worker what to do where it has come to: "load.2.1" worker 1 of version 2 while it is
// loaded, and "load.2" all of that version. For the function obeys there are also "first" (before its
// first yield), "task" (in a task) and "last" (when it has been let go). The file holds
//
//   wait          goes on when the file has gone, or says something else
//   stay          the same, whatever SIGABRT says
//   fail, crash   ends with status 5, or by SIGSEGV
//   return        ends with status 0
//   nonblock      sets O_NONBLOCK of the first socket
//
// and after that perhaps "once": then the worker removes the file first.
#include "forkd.h"
#include <dlfcn.h>
#include <signal.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORKER extern "C" int

static void pause_ms(long ms) {
  const timespec t = {0, ms * 1000000};
  nanosleep(&t, nullptr);
}

static void obey_file(const char* file) {
  for (bool told = false;; pause_ms(20)) {
    char order[32] = "";
    const int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (read(fd, order, sizeof order - 1) > 0 && strstr(order, "once")) unlink(file);
    close(fd);
    if (strstr(order, "fail")) _exit(5);
    if (strstr(order, "crash")) raise(SIGSEGV);
    if (strstr(order, "return")) _exit(0);
    if (strstr(order, "nonblock")) return void(fcntl(3, F_SETFL, O_NONBLOCK));
    if (strstr(order, "stay")) signal(SIGABRT, SIG_IGN);
    if (!told) dprintf(1, "waits %s\n", file);
    told = true;
  }
}

static void obey(const char* where) {
  char file[64];
  snprintf(file, sizeof file, "%s." VERSION, where);
  obey_file(file);
  const char* number = getenv("FORKD_WORKER");
  snprintf(file, sizeof file, "%s." VERSION ".%s", where, number ? number : "none");
  obey_file(file);
}

[[gnu::constructor]] static void load() {
#if defined HANGS
  while (strcmp(getenv("FORKD_WORKER"), HANGS) == 0) pause_ms(100);
#elif defined REPLACES
  rename("next.so", "code.so");
#else
  obey("load");
#endif
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

// Steady, and does what the files say. It says when it begins its tasks and when it has been let go.
WORKER obeys() {
  introduce();
  obey("first");
  dprintf(1, "ready " VERSION " %d pid %d\n", forkd_worker_number(), static_cast<int>(getpid()));
  for (; forkd_yield(); pause_ms(10)) obey("task");
  dprintf(1, "let go " VERSION " %d\n", forkd_worker_number());
  obey("last");
  return 0;
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

// Needs as many milliseconds as its first argument to set itself up, then does tasks. The file that
// is its second argument gets a line when it is ready, and when it is to end. With a third argument
// it waits for that by the stop descriptor, and goes on for so many milliseconds.
WORKER sets_up(int argc, char** argv) {
  const int tally = open(argv[2], O_WRONLY | O_APPEND | O_CREAT, 0666);
  for (int i = 0; i < atoi(argv[1]); i += 10) pause_ms(10);
  dprintf(tally, "ready %s %d\n", VERSION, forkd_worker_number());
  pollfd stop = {argc > 3 ? forkd_stop_fd() : -1, POLLIN, 0};
  while (forkd_yield()) poll(&stop, 1, 10);
  dprintf(tally, "let go %s %d\n", VERSION, forkd_worker_number());
  for (int i = 0; argc > 3 && i < atoi(argv[3]); i += 10) pause_ms(10);
  return 0;
}

// When it is let go, it says what further yields and the stop descriptor say.
WORKER asks_again() {
  introduce();
  const int before = forkd_stop_fd();
  while (forkd_yield()) pause_ms(10);
  pollfd stop = {before, POLLIN, 0};
  const int readable = poll(&stop, 1, 0);
  dprintf(1, "again %d readable %d\n", forkd_yield() || forkd_yield(), readable);
  return 0;
}

// Worker 0, or that whose number is the second argument, stays within one task in version 1 while the
// file that is the first one exists.
WORKER first_busy(int argc, char** argv) {
  introduce();
  const int busy = argc > 2 ? atoi(argv[2]) : 0;
  while (forkd_yield()) {
    pause_ms(10);
    if (*VERSION != '1' || forkd_worker_number() != busy || access(argv[1], F_OK) != 0) continue;
    dprintf(1, "busy\n");
    while (access(argv[1], F_OK) == 0) pause_ms(10);
  }
  return 0;
}

// In version 1 it is in a task while the file that is its argument exists, and asks for the stop
// descriptor only then, to wait by that alone.
WORKER polls_late(int, char** argv) {
  introduce();
  if (*VERSION != '1') return steadily();
  forkd_yield();
  dprintf(1, "busy\n");
  while (access(argv[1], F_OK) == 0) pause_ms(10);
  pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  while (poll(&stop, 1, -1) < 0) {
  }
  return forkd_yield();
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
