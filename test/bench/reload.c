/* How much a reload costs a pool, as its clients see it: ./reloadbench SOCKET MASTER LOG
 *
 * Eight clients ask the server at the Unix socket for one answer after the other, without a pause. After some
 * seconds MASTER gets SIGHUP, and when the file LOG says that the reload is complete they stop. Prints the
 * figures of the benchmark: the answers in the worst quarter of a second of the reload, in percent of the
 * median before it, and for how many milliseconds they were fewer than 90 percent. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { clients = 8, window_ms = 250, before = 20, most = 400, complete_within = most - before };

static struct sockaddr_un server = {.sun_family = AF_UNIX};
static int64_t begun;
static int answers[most + 1]; /* in each window; the last one for what comes too late */
static int stop;

static int64_t clock_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static void *ask(void *unused) {
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char byte;
    if (connect(fd, (const struct sockaddr *)&server, sizeof server) == 0 &&
        read(fd, &byte, 1) == 1) {
      const int64_t window = (clock_ms() - begun) / window_ms;
      __atomic_fetch_add(&answers[window < most ? window : most], 1, __ATOMIC_RELAXED);
    }
    close(fd);
  }
  return unused;
}

static void wait_for_window(int number) {
  const int64_t left = begun + (int64_t)number * window_ms - clock_ms();
  if (left > 0) usleep((useconds_t)left * 1000);
}

static int is_complete(const char *log) {
  char line[512];
  int found = 0;
  FILE *file = fopen(log, "r");
  while (file && fgets(line, sizeof line, file)) found |= strstr(line, "reload complete") != NULL;
  if (file) fclose(file);
  return found;
}

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int main(int argc, char **argv) {
  pthread_t thread[clients];
  int sorted[before], window = before, worst, weak = 0;
  if (argc != 4) return 2;
  snprintf(server.sun_path, sizeof server.sun_path, "%s", argv[1]);
  begun = clock_ms();
  for (int i = 0; i < clients; i++) pthread_create(&thread[i], NULL, ask, NULL);
  wait_for_window(before);
  kill(atoi(argv[2]), SIGHUP);
  do wait_for_window(++window);
  while (!is_complete(argv[3]) && window < before + complete_within);
  __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < clients; i++) pthread_join(thread[i], NULL);
  if (window == before + complete_within) return 1;

  /* The first windows, in which the clients start, say nothing. */
  memcpy(sorted, answers, sizeof sorted);
  qsort(sorted + 4, before - 4, sizeof *sorted, compare);
  const int median = sorted[4 + (before - 4) / 2];
  if (median == 0) return 1;
  worst = median;
  for (int i = before; i < window; i++) {
    if (answers[i] < worst) worst = answers[i];
    if (answers[i] < 0.9 * median) weak += window_ms;
  }
  printf("4 shared strength %.1f\n4 shared weak %d\n4 shared reload %d\n", 100.0 * worst / median, weak,
         (window - before) * window_ms);
  return 0;
}
