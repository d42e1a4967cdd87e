// The workers of the benchmark, as a shared object, in an application (-DAPPLICATION), and for the
// bare loop and the other supervisors, which know no yield (-DALONE).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifndef ALONE
#include "forkd.h"
#endif

static int64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

// Tells the measuring program that this worker runs, and since when. The time is taken before
// anything else, so what the message costs is not in it. The descriptor stays open: when the last
// one is closed, the pool has gone.
void stamp(void) {
  const int64_t message[2] = {clock_ns(), getpid()};
  const char* path = getenv("BENCH_STAMPS");
  const int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
  if (fd < 0 || write(fd, message, sizeof message) < 0) _exit(1);
}

#ifdef ALONE
void waits(void) {
  stamp();
  for (;;) pause();
}

static volatile sig_atomic_t asked;
static void ask(int number) { asked = number; }

// Ends as a worker of forkd does: by a handler and exit(3), not by the signal itself.
void exits(void) {
  sigset_t term, before;
  signal(SIGTERM, ask);
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, &before);
  stamp();
  while (!asked) sigsuspend(&before);
  exit(0);
}
#else
// Stands for any work: what is measured is how long it took to get here.
int waits(int argc, char** argv) {
  (void)argc, (void)argv;
  stamp();
  while (forkd_yield()) pause();
  return 0;
}

// Waits for the request to end.
int yields(int argc, char** argv) {
  (void)argc, (void)argv;
  struct pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  stamp();
  while (forkd_yield()) poll(&stop, 1, -1);
  return 0;
}

// Sets itself up for two seconds, then answers clients at the socket, ten milliseconds each.
int serves(int argc, char** argv) {
  (void)argc, (void)argv;
  const struct timespec second = {1, 0}, task = {0, 10000000};
  for (int i = 0; i < 2; i++) nanosleep(&second, NULL);
  while (forkd_yield()) {
    const int client = accept(3, NULL, NULL);
    nanosleep(&task, NULL);
    if (client >= 0 && write(client, "x", 1) < 0) perror("write");
    close(client);
  }
  return 0;
}

// Prints what a yield costs, and what the shortest system call, in nanoseconds, many times in turn;
// then ends the pool.
int yield_cost(int argc, char** argv) {
  (void)argc, (void)argv;
  for (int round = 0; round < 51; round++) {
    enum { yield_count = 5000000, call_count = 200000 };
    const int64_t begin = clock_ns();
    for (int i = 0; i < yield_count; i++) forkd_yield();
    const int64_t middle = clock_ns();
    for (int i = 0; i < call_count; i++) syscall(SYS_getppid);
    const int64_t end = clock_ns();
    printf("1 shared yield %.3f\n1 limit yield %.3f\n", (double)(middle - begin) / yield_count,
           (double)(end - middle) / call_count);
  }
  fflush(stdout);
  kill(getppid(), SIGTERM);
  while (forkd_yield()) pause();
  return 0;
}

#ifdef APPLICATION
// NUMBER FUNCTION: a pool in an application of its own.
int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const struct forkd_options options = {.num_workers = atoi(argv[1]), .grace = 0.1};
  return forkd_run(strcmp(argv[2], "yields") == 0 ? yields : waits, argc, argv, &options);
}
#endif
#endif
