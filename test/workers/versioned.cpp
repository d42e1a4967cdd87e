// Code in two versions, for reloads: -DVERSION="1" or "2". With -DHANGS="0" worker 0 never comes back
// from loading it; with -DREPLACES the file next.so takes the place of code.so while it is loaded.
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

#ifdef HANGS
[[gnu::constructor]] static void load() {
  while (strcmp(getenv("FORKD_WORKER"), HANGS) == 0) pause_ms(100);
}
#endif

#ifdef REPLACES
[[gnu::constructor]] static void load() { rename("next.so", "code.so"); }
#endif

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

// Steady in version 1; in version 2 it works for 0.9 to 1.2 s, and fails without a yield.
WORKER fails_late_in_two() {
  introduce();
  if (*VERSION == '1') return steadily();
  for (int i = 0; i < 105; i++) pause_ms(10);
  return 1;
}

// Steady, but in version 2 not as the worker whose number is its argument: that one fails. (Not after
// a yield, which makes it healthy: the roll may be over before it fails.)
WORKER fails_in_two(int, char** argv) {
  introduce();
  return *VERSION == '1' || forkd_worker_number() != atoi(argv[1]) ? steadily() : 5;
}

// Steady, but in version 2 the worker whose number is its argument fails after a yield, while the file
// "fail" exists.
WORKER fails_while_in_two(int, char** argv) {
  introduce();
  const bool fails = *VERSION == '2' && forkd_worker_number() == atoi(argv[1]);
  for (; forkd_yield(); pause_ms(10))
    if (fails && access("fail", F_OK) == 0) return 5;
  return 0;
}

// Steady, but the worker whose number is its argument fails after a yield while the file "fail"
// exists. Version 2 removes that file, so it fails once.
WORKER fails_once_in_two(int, char** argv) {
  introduce();
  if (forkd_worker_number() != atoi(argv[1])) return steadily();
  forkd_yield();
  if (*VERSION == '1' ? access("fail", F_OK) == 0 : unlink("fail") == 0) return 5;
  return steadily();
}

// Steady, but worker 0 never yields, except when the file that is its argument was there: then it
// removes that, and fails.
WORKER first_silent(int, char** argv) {
  introduce();
  if (forkd_worker_number() != 0) return steadily();
  if (unlink(argv[1]) == 0) return 5;
  for (;;) pause();
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

// Returns 0 at once in version 1, and does that in version 2.
WORKER quick_in_one(int argc, char** argv) { return *VERSION == '1' ? 0 : sets_up(argc, argv); }

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

// Waits by the stop descriptor. Worker 0, in version 1, is not done when it is let go, while the file
// that is its argument exists.
WORKER first_lingers(int, char** argv) {
  introduce();
  quiet();
  while (*VERSION == '1' && forkd_worker_number() == 0 && access(argv[1], F_OK) == 0) pause_ms(10);
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
