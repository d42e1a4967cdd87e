/* Preloaded into forkd, it makes time pass in poll(2) alone, and at once: a test need not wait for a
   deadline, and sees to the millisecond when it was kept. In the folder in which forkd runs,

     time      holds how far time may go, in ms; it stands still there until the file says more or is gone
     slow_fork is how long fork(2) takes, in ms
     no_fork   makes fork(2) fail with EAGAIN
     no_kill   makes SIGKILL to a process fail with EPERM, and that to a group with ESRCH
     no_right  makes signal 0 to a group that is there fail with EPERM
     freeze    is how late the next poll(2) is, in ms; it is used up
     out       gets a line "time MS fork", "time MS kill SIGNAL" or "time MS stands" for each of these

   Workers go on in real time, and the clock of a worker stands still. Time passes only when each of them
   has been seen asleep since the call of poll(2); and when the file time has changed, each that looks
   for something again and again, with pauses in between, has looked since then as well. So nothing
   depends on how fast the machine is. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { beginning = 1000, patience = 1 /* ms: a signal is seen first */, most = 4096 };

static long long passed; /* ms */

static void tell(const char *what) {
  const int fd = open("out", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return;
  dprintf(fd, "time %lld %s\n", passed, what);
  close(fd);
}

/* The number in a file; none if it is not there. */
static long long number_in(const char *file, long long none) {
  char text[32] = "";
  const int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return none;
  const ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  return length > 0 ? atoll(text) : 0;
}

/* What a child tells about its pauses, in memory that it shares with the master. */
struct pauses {
  unsigned begun;
  int now; /* it is in one */
};
static struct pauses *mine; /* in a child */

static struct child {
  pid_t pid;
  int slept; /* since have_slept() was told to begin */
  struct pauses *pauses;
  unsigned begun_before; /* how many pauses it had begun when the file time changed */
} children[most];
static int child_count;

enum state { Reaped, Runs, Sleeps, Stopped };

static enum state state_of(pid_t pid) {
  char text[512] = "", path[32];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const char *end = read(fd, text, sizeof text - 1) > 0 ? strrchr(text, ')') : NULL;
  if (fd >= 0) close(fd);
  return !end ? Reaped : end[2] == 'S' ? Sleeps : end[2] == 'T' || end[2] == 't' ? Stopped : Runs;
}

/* Of two pauses that it has begun, it has looked before the second. */
static int has_looked(const struct child *child) {
  return !__atomic_load_n(&child->pauses->now, __ATOMIC_SEQ_CST) ||
         __atomic_load_n(&child->pauses->begun, __ATOMIC_SEQ_CST) - child->begun_before >= 2;
}

/* Whether each child has slept. */
static int have_slept(int begin, int look) {
  int kept = 0, all = 1;
  for (int i = 0; i < child_count; i++) {
    struct child child = children[i];
    if (look) child.begun_before = __atomic_load_n(&child.pauses->begun, __ATOMIC_SEQ_CST);
    if (begin) child.slept = 0;
    if (!child.slept) {
      const enum state state = state_of(child.pid);
      if (state == Reaped) continue;
      child.slept = state == Stopped || (state == Sleeps && has_looked(&child));
    }
    if (!child.slept) all = 0;
    children[kept++] = child;
  }
  child_count = kept;
  return all;
}

int nanosleep(const struct timespec *time, struct timespec *left) {
  static int (*real)(const struct timespec *, struct timespec *);
  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, sizeof(long) == 8 ? "nanosleep" : "__nanosleep64");
  if (mine) {
    __atomic_add_fetch(&mine->begun, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&mine->now, 1, __ATOMIC_SEQ_CST);
  }
  const int result = real(time, left);
  if (mine) __atomic_store_n(&mine->now, 0, __ATOMIC_SEQ_CST);
  return result;
}

__attribute__((constructor)) static void load(void) { unsetenv("LD_PRELOAD"); /* not in commands */ }

int clock_gettime(clockid_t clock, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (clock == CLOCK_MONOTONIC) {
    t->tv_sec = beginning + passed / 1000;
    t->tv_nsec = passed % 1000 * 1000000;
    return 0;
  }
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, sizeof(long) == 8 ? "clock_gettime" : "__clock_gettime64");
  return real(clock, t);
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
  static int (*real)(struct pollfd *, nfds_t, int);
  static long long stood = -1, limit = -1;
  long long left = timeout;
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "poll");
  if (timeout <= 0) return real(fds, count, timeout);
  for (int begin = 1;; begin = 0) {
    const int events = real(fds, count, patience);
    if (events != 0) return events;
    const long long limit_now = number_in("time", 1LL << 60);
    const int changed = limit_now != limit;
    limit = limit_now;
    if (!have_slept(begin || changed, changed)) continue;
    if (passed + left <= limit) {
      passed += left;
      const long long late = number_in("freeze", 0);
      if (late > 0) unlink("freeze");
      passed += late;
      return 0;
    }
    if (limit > passed) {
      left -= limit - passed;
      passed = limit;
    }
    if (stood != passed) tell("stands");
    stood = passed;
  }
}

pid_t fork(void) {
  static pid_t (*real)(void);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fork");
  tell("fork");
  if (access("no_fork", F_OK) == 0) {
    errno = EAGAIN;
    return -1;
  }
  static struct pauses *all;
  static unsigned forks;
  if (!all)
    all = mmap(NULL, most * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct pauses *const its = &all[forks++ % most];
  its->now = 0;
  const pid_t child = real();
  if (child == 0) mine = its;
  if (child != 0) passed += number_in("slow_fork", 0);
  if (child > 0 && child_count < most) /* a new one has not missed anything: two pauses to its credit */
    children[child_count++] = (struct child){child, 0, its, its->begun - 2};
  return child;
}

int kill(pid_t pid, int number) {
  static int (*real)(pid_t, int);
  char text[32];
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "kill");
  snprintf(text, sizeof text, "kill %d", number);
  tell(text);
  if (number == SIGKILL && access("no_kill", F_OK) == 0) {
    errno = pid > 0 ? EPERM : ESRCH;
    return -1;
  }
  if (real(pid, number) != 0) return -1;
  if (number != 0 || pid > 0 || access("no_right", F_OK) != 0) return 0;
  errno = EPERM;
  return -1;
}
