// Code that does harm while it is loaded: it crashes, exits, never comes back, is slow, waits for a
// file named go, or takes all descriptors for its own.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int files[6];

[[gnu::constructor]] static void load() {
#if defined CRASH
  raise(SIGSEGV);
#elif defined EXIT
  _exit(0);
#elif defined HANG
  for (;;) pause();
#elif defined SLOW
  usleep(800000);
#elif defined WAITS
  while (access("go", F_OK) != 0) usleep(1000);
#elif defined FILES
  for (int fd = 3; fd < 64; fd++) close(fd);
  for (int& fd : files) fd = open("/", O_RDONLY);
#endif
}

extern "C" int steady() {
  int kept = 0;
  for (const int fd : files) kept += fcntl(fd, F_GETFD) >= 0;
  dprintf(1, "kept %d of 6\n", kept);
  if (fork() == 0) {
    kept = 0;
    for (const int fd : files) kept += fcntl(fd, F_GETFD) >= 0;
    dprintf(1, "child kept %d of 6\n", kept);
    _exit(0);
  }
  while (wait(nullptr) > 0) {
  }
  return 0;
}
