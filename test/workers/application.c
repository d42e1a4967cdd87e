/* An application of its own around forkd_run: ./application MODE. */
#include "forkd.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { megabytes = 16 };
static char *memory; /* set up by the application, before the workers are forked */

static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, NULL);
}

static int steady(int argc, char **argv) {
  dprintf(1, "worker %d argc %d last %s\n", forkd_worker_number(), argc,
          argc ? argv[argc - 1] : "none");
  while (forkd_yield()) pause_ms(10);
  return 0;
}

static int reads_memory(int argc, char **argv) {
  long sum = 0;
  (void)argc;
  (void)argv;
  for (long i = 0; i < megabytes * 1024L * 1024; i += 512) sum += memory[i];
  dprintf(1, "sum %ld\n", sum);
  while (forkd_yield()) pause_ms(10);
  return 0;
}

static int fails(int argc, char **argv) {
  (void)argc;
  (void)argv;
  return 3;
}

static int hangs(int argc, char **argv) {
  (void)argc;
  (void)argv;
  forkd_yield();
  while (pause() != 0) {
  }
  return 0;
}

/* Sets itself up from a file, which has to say "good". */
static int reads_config(int argc, char **argv) {
  char text[16] = "";
  const int fd = open("config", O_RDONLY);
  (void)argc;
  (void)argv;
  if (fd < 0 || read(fd, text, sizeof text - 1) < 0) return 1;
  close(fd);
  text[strcspn(text, "\n")] = '\0';
  dprintf(1, "config %s number %d\n", text, forkd_worker_number());
  if (strncmp(text, "good", 4) != 0) return 1;
  while (forkd_yield()) pause_ms(10);
  return 0;
}

static int returns_at_once(int argc, char **argv) {
  (void)argc;
  (void)argv;
  return 0;
}

static char variable[] = "VARIABLE=before";

static int prints_variable(int argc, char **argv) {
  (void)argc;
  (void)argv;
  dprintf(1, "VARIABLE=%s\n", getenv("VARIABLE"));
  while (forkd_yield()) pause_ms(10);
  return 0;
}

static void *change_variable(void *unused) {
  while (access("go", F_OK) != 0) pause_ms(5);
  strcpy(variable, "VARIABLE=after");
  dprintf(1, "changed\n");
  return unused;
}

static int counts_to_five(int argc, char **argv) {
  int tasks = 0;
  (void)argc;
  (void)argv;
  do tasks++;
  while (forkd_yield() && tasks < 5);
  return tasks;
}

static void handler(int number) { (void)number; }

/* What a caller has set up that forkd_run must leave as it was. */
static void print_state(const char *when) {
  static const int numbers[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
                                SIGUSR2, SIGCHLD, SIGPIPE, SIGTTOU, SIGCONT};
  sigset_t mask;
  int open_count = 0;
  printf("%s", when);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction is;
    sigaction(numbers[i], NULL, &is);
    printf(" %c", is.sa_handler == SIG_DFL   ? 'd'
                  : is.sa_handler == SIG_IGN ? 'i'
                  : is.sa_handler == handler ? 'h'
                                             : '?');
  }
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  printf(" term %d usr1 %d", sigismember(&mask, SIGTERM), sigismember(&mask, SIGUSR1));
  for (int fd = 0; fd < 256; fd++) open_count += fcntl(fd, F_GETFD) >= 0;
  printf(" open %d\n", open_count);
  fflush(stdout);
}

static int invalid(int result) { return result == -1 && errno == EINVAL; }

static int check_errors(void) {
  char *arguments[] = {(char *)"a", NULL};
  const struct forkd_options wrong[] = {
      {-1, 0, 0, 0}, {1025, 0, 0, 0},     {1, NAN, 0, 0}, {1, 1e30, 0, 0},
      {1, 0, -1, 0}, {1, 0, NAN, 0},  {1, 0, 1e30, 0},      {1, 0, 0, 0, -1}, {1, 0, 0, -1, 0}, {1, 0, 0, NAN, 0}, {1, 0, 0, 1e30, 0},
      {1, 0, 0, 0, 8}, {1, 0, 0, 0, LOG_ALERT}, {1, 0, 0, 0, LOG_NOTICE},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    errno = 0;
    if (!invalid(forkd_run(steady, 1, arguments, &wrong[i]))) return printf("option %zu\n", i), 1;
  }
  errno = 0;
  if (!invalid(forkd_run(NULL, 1, arguments, NULL))) return puts("null function"), 1;
  errno = 0;
  if (!invalid(forkd_run(steady, -1, arguments, NULL))) return puts("negative argc"), 1;
  errno = 0;
  if (!invalid(forkd_run(steady, 1, NULL, NULL))) return puts("null argv"), 1;
  puts("all refused");
  return 0;
}

static void *run_in_thread(void *result) {
  const struct forkd_options options = {.num_workers = 2};
  *(int *)result = forkd_run(steady, 0, NULL, &options);
  return NULL;
}

/* Reaps whatever ends, which is not its business. */
static void *steal(void *unused) {
  for (;;)
    if (waitpid(-1, NULL, 0) < 0) pause_ms(1);
  return unused;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  struct forkd_options options = {.num_workers = 2, .grace = 0.5};
  printf("buffered\n"); /* and still in stdio's buffer when the workers are forked */

  if (strcmp(mode, "run") == 0) return forkd_run(steady, argc, argv, &options);
  if (strcmp(mode, "defaults") == 0) return forkd_run(steady, 0, NULL, NULL);
  if (strcmp(mode, "variable") == 0) {
    pthread_t thread;
    putenv(variable);
    pthread_create(&thread, NULL, change_variable, NULL);
    return forkd_run(prints_variable, 0, NULL, &options);
  }
  if (strcmp(mode, "reads") == 0) { /* its standard input, before and after the pool */
    char line[64];
    int status;
    if (fgets(line, sizeof line, stdin)) printf("%s", line);
    status = forkd_run(returns_at_once, 0, NULL, &options);
    while (fgets(line, sizeof line, stdin)) printf("%s", line);
    return status;
  }
  if (strcmp(mode, "config") == 0) return forkd_run(reads_config, 0, NULL, &options);
  if (strcmp(mode, "fails") == 0) return forkd_run(fails, 0, NULL, &options);
  if (strcmp(mode, "hangs") == 0) return forkd_run(hangs, 0, NULL, &options);
  if (strcmp(mode, "errors") == 0) return check_errors();
  if (strcmp(mode, "alone") == 0) { /* a worker function without any forkd around it */
    printf("%d tasks, number %d, stop %d\n", counts_to_five(0, NULL), forkd_worker_number(),
           forkd_stop_fd() >= 0);
    return 0;
  }
  if (strcmp(mode, "timeout") == 0) {
    options.timeout = 0.2;
    return forkd_run(hangs, 0, NULL, &options);
  }
  if (strcmp(mode, "memory") == 0) {
    memory = mmap(NULL, megabytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, megabytes << 20);
    return forkd_run(reads_memory, 0, NULL, &options);
  }
  if (strcmp(mode, "twice") == 0) {
    sigset_t blocked;
    signal(SIGUSR1, handler);
    signal(SIGHUP, SIG_IGN);
    signal(SIGCHLD, handler);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    print_state("before");
    printf("returned %d\n", forkd_run(steady, 0, NULL, &options));
    print_state("between");
    options.num_workers = 3;
    printf("returned %d\n", forkd_run(steady, 0, NULL, &options));
    print_state("after");
    return 0;
  }
  if (strcmp(mode, "thread") == 0) {
    pthread_t thread;
    int result = -1;
    pthread_create(&thread, NULL, run_in_thread, &result);
    pthread_join(thread, NULL);
    printf("thread %d\n", result);
    return 0;
  }
  if (strcmp(mode, "forks") == 0) { /* while the pool runs in another thread, when there is a file "go" */
    pthread_t thread;
    int result = -1, status;
    pthread_create(&thread, NULL, run_in_thread, &result);
    while (access("go", F_OK) != 0) pause_ms(5);
    const pid_t child = fork();
    if (child == 0) {
      print_state("child");
      for (;;) pause();
    }
    dprintf(1, "second %s\n", invalid(forkd_run(steady, 0, NULL, NULL)) ? "refused" : "ran");
    waitpid(child, &status, 0);
    dprintf(1, "child %d ended by %d\n", (int)child, WTERMSIG(status));
    pthread_join(thread, NULL);
    return result;
  }
  if (strcmp(mode, "strangers") == 0) { /* signals to processes that another thread forks just now */
    pthread_t thread;
    int result = -1, status, ended = 0;
    pthread_create(&thread, NULL, run_in_thread, &result);
    while (access("go", F_OK) != 0) pause_ms(5);
    for (int i = 0; i < 100; i++) {
      const pid_t child = fork();
      if (child == 0)
        for (;;) pause();
      kill(child, SIGTERM);
      waitpid(child, &status, 0);
      ended += WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
    }
    const pid_t child = vfork();
    if (child == 0) {
      kill(getpid(), SIGTERM);
      _exit(0);
    }
    waitpid(child, &status, 0);
    ended += WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
    dprintf(1, "strangers %d\n", ended);
    pthread_join(thread, NULL);
    return result;
  }
  if (strcmp(mode, "steals") == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, steal, NULL);
    return forkd_run(steady, 0, NULL, &options);
  }
  if (strcmp(mode, "children") == 0) { /* one that ends before the pool, one that ends within */
    int status;
    pid_t other = -1;
    const pid_t first = fork();
    if (first == 0) _exit(11);
    other = fork();
    if (other == 0) {
      pause_ms(300);
      _exit(12);
    }
    printf("returned %d\n", forkd_run(steady, 0, NULL, &options));
    waitpid(first, &status, 0);
    printf("first %d\n", WEXITSTATUS(status));
    waitpid(other, &status, 0);
    printf("other %d\n", WEXITSTATUS(status));
    return 0;
  }
  return 2;
}
