// bench - measures pools of pre-forked workers against each other
//
//   bench SECONDS NUMBER FIGURES POOL COMMAND [ARGUMENT ...] [-- POOL COMMAND ...]...
//
// Runs every COMMAND, each of which is a master that shall have NUMBER workers, again and again for
// that many seconds, all in turn and in a changing order, so that what disturbs the machine disturbs
// all of them alike. Prints a line "NUMBER POOL FIGURE VALUE" for each measured value. FIGURES are
// letters:
//
//   s  start    from the start of the master until the last worker runs, in microseconds
//   r  respawn  from the kill of one worker that has lived for a second until its successor runs
//   w  whole    from the kill of all workers, likewise, until the last successor runs
//   p  private  the master's private memory (of all processes that are no workers), in bytes
//   t  stop     from the signal to the master until it and all workers have gone
//
// POOL may end in @SIGNAL, the number of the signal that ends it, if that is not SIGTERM.
//
// A worker says that it runs by a message with the time and its pid, written to the FIFO that
// BENCH_STAMPS names. While workers start, this program looks into it once a millisecond, and takes
// the times from the messages: so it takes next to nothing of the processors.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;

enum { most_pools = 16, most_workers = 1024, respawns = 20, stop_patience = 20 };
static const int64_t ms = 1000000;           // nanoseconds
static const int64_t patience = 30000000000;  // for a pool to be whole

struct pool {
  const char* name;
  char** command;
  int stop_signal;
  char fifo[64];
  int stamps;               // the FIFO's reading end
  pid_t master;             // 0: does not run
  pid_t pids[most_workers];  // of the workers
};

static struct pool pools[most_pools];
static int pool_count;
static int number;

static int64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void nap(int64_t ns) {
  struct timespec t = {ns / 1000000000, ns % 1000000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

static void report(const struct pool* pool, const char* figure, int64_t ns) {
  printf("%d %s %s %.1f\n", number, pool->name, figure, (double)ns / 1000);
  fflush(stdout);
}

// Takes messages until so many have come, and notes who sent them. Returns the latest time in them;
// 0: they did not come.
static int64_t take_stamps(struct pool* pool, pid_t* pids, int count) {
  const int64_t deadline = clock_ns() + patience;
  int64_t last = 0;
  for (int taken = 0; taken < count;) {
    int64_t message[2];
    if (read(pool->stamps, message, sizeof message) == sizeof message) {
      if (message[0] > last) last = message[0];
      pids[taken++] = (pid_t)message[1];
      continue;
    }
    if (clock_ns() > deadline) {
      fprintf(stderr, "bench: %s: %d of %d workers run after %d s\n", pool->name, taken, count,
              (int)(patience / 1000 / ms));
      return 0;
    }
    if (count == 1) poll(&(struct pollfd){pool->stamps, POLLIN, 0}, 1, (int)(patience / ms));
    else nap(ms);
  }
  return last;
}

// Adds up what smaps_rollup calls private, of a process and of those below it that are no workers.
static int64_t private_memory(const struct pool* pool, pid_t pid) {
  for (int i = 0; i < number; i++)
    if (pool->pids[i] == pid) return 0;
  int64_t sum = 0;
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
  FILE* file = fopen(path, "r");
  for (long kib; file && fgets(line, sizeof line, file);)
    if (sscanf(line, "Private_Clean: %ld", &kib) == 1 ||
        sscanf(line, "Private_Dirty: %ld", &kib) == 1)
      sum += kib * 1024;
  if (file) fclose(file);
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
  file = fopen(path, "r");
  for (int child; file && fscanf(file, "%d", &child) == 1;) sum += private_memory(pool, child);
  if (file) fclose(file);
  return sum;
}

static void start(struct pool* pool, int measured) {
  setenv("BENCH_STAMPS", pool->fifo, 1);
  for (char late[4096]; read(pool->stamps, late, sizeof late) > 0;) {  // from the round before
  }
  const int64_t begin = clock_ns();
  if (posix_spawnp(&pool->master, pool->command[0], NULL, NULL, pool->command, environ) != 0) {
    fprintf(stderr, "bench: cannot run %s\n", pool->command[0]);
    pool->master = 0;
    return;
  }
  const int64_t end = take_stamps(pool, pool->pids, number);
  if (measured && end) report(pool, "start", end - begin);
}

static void respawn_one(struct pool* pool, int i) {
  pid_t* pid = &pool->pids[i];
  const int64_t begin = clock_ns();
  if (*pid <= 0 || kill(*pid, SIGKILL) != 0) return;
  const int64_t end = take_stamps(pool, pid, 1);
  if (end > begin) report(pool, "respawn", end - begin);
}

static void respawn_all(struct pool* pool) {
  const int64_t begin = clock_ns();
  for (int i = 0; i < number; i++)
    if (pool->pids[i] > 0) kill(pool->pids[i], SIGKILL);
  const int64_t end = take_stamps(pool, pool->pids, number);
  if (end > begin) report(pool, "whole", end - begin);
}

// Ends the pool; what it leaves behind is killed.
static void stop(struct pool* pool, int measured) {
  if (pool->master == 0) return;
  const int64_t begin = clock_ns();
  kill(pool->master, pool->stop_signal);
  // Woken when it ends, and not before; the alarm interrupts the wait when it never does.
  alarm(stop_patience);
  const pid_t ended = waitpid(pool->master, NULL, 0);
  alarm(0);
  if (ended < 0) {
    fprintf(stderr, "bench: %s does not end\n", pool->name);
    measured = 0;
    kill(pool->master, SIGKILL);
    waitpid(pool->master, NULL, 0);
  }
  pool->master = 0;
  // The FIFO hangs up when the last worker has gone.
  struct pollfd hangup = {pool->stamps, 0, 0};
  poll(&hangup, 1, 2000);
  if (measured && (hangup.revents & POLLHUP)) report(pool, "stop", clock_ns() - begin);
}

static void on_alarm(int signal_number) { (void)signal_number; }

// Kills what the masters have left behind, which has become this program's own.
static void kill_leftovers(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
  do {
    FILE* file = fopen(path, "r");
    for (int child; file && fscanf(file, "%d", &child) == 1;) kill(child, SIGKILL);
    if (file) fclose(file);
  } while (waitpid(-1, NULL, 0) > 0);
}

static int wants(const char* figures, char figure) { return strchr(figures, figure) != NULL; }

static void play_round(const char* figures, int first) {
  struct pool* order[most_pools];
  for (int i = 0; i < pool_count; i++) order[i] = &pools[(first + i) % pool_count];
  for (int i = 0; i < pool_count; i++) {
    memset(order[i]->pids, 0, sizeof order[i]->pids);
    start(order[i], wants(figures, 's'));
  }
  nap((wants(figures, 'r') || wants(figures, 'w') ? 1050 : 20) * ms);
  if (wants(figures, 'p'))
    for (int i = 0; i < pool_count; i++)
      printf("%d %s private %lld\n", number, order[i]->name,
             (long long)private_memory(order[i], order[i]->master));
  if (wants(figures, 'r')) {
    for (int sample = 0; sample < respawns && sample < number; sample++)
      for (int i = 0; i < pool_count; i++)
        respawn_one(order[(sample + i) % pool_count], sample * (number / respawns));
  }
  if (wants(figures, 'w')) {
    if (wants(figures, 'r')) nap(1050 * ms);
    for (int i = 0; i < pool_count; i++) respawn_all(order[i]);
  }
  for (int i = 0; i < pool_count; i++) stop(order[i], wants(figures, 't'));
  kill_leftovers();
}

static int add_pool(char** words) {
  struct pool* pool = &pools[pool_count++];
  char* at = strchr(words[0], '@');
  pool->stop_signal = at ? atoi(at + 1) : SIGTERM;
  if (at) *at = '\0';
  pool->name = words[0];
  pool->command = words + 1;
  snprintf(pool->fifo, sizeof pool->fifo, "stamps.%d.%d", (int)getpid(), pool_count);
  if (mkfifo(pool->fifo, 0600) != 0) return 0;
  pool->stamps = open(pool->fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  char* absolute = realpath(pool->fifo, NULL);  // some masters change their directory
  if (!absolute || pool->stamps < 0 || strlen(absolute) >= sizeof pool->fifo) return 0;
  strcpy(pool->fifo, absolute);
  free(absolute);
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 6) {
    fprintf(stderr, "usage: bench SECONDS NUMBER FIGURES POOL COMMAND [ARGUMENT ...] [-- ...]\n");
    return 2;
  }
  const int64_t seconds = atoi(argv[1]);
  const char* figures = argv[3];
  number = atoi(argv[2]);
  if (number < 1 || number > most_workers) return 2;
  sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // what a master leaves behind is reaped here
  for (int i = 4; i < argc && pool_count < most_pools;) {
    if (!add_pool(argv + i)) {
      perror("bench");
      return 1;
    }
    while (i < argc && strcmp(argv[i], "--") != 0) i++;
    argv[i++] = NULL;
  }
  const int64_t begin = clock_ns();
  // Not a further round when it would last longer than there is time.
  for (int round = 0; round == 0 || (clock_ns() - begin) / round * (round + 1) <=
                                        seconds * 1000 * ms;
       round++)
    play_round(figures, round);
  for (int i = 0; i < pool_count; i++) unlink(pools[i].fifo);
  return 0;
}
