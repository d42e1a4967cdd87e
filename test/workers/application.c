/* An application of its own around forkd_run: ./application MODE. */
#define _GNU_SOURCE
#include "forkd.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

extern char **environ; /* not every system declares it */
#ifndef RLIMIT_AS      /* OpenBSD */
#define RLIMIT_AS RLIMIT_DATA
#endif

enum { megabytes = 16 };
static char *memory; /* set up by the application, before the workers are forked */

static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, NULL);
}

static int steady(int argc, char **argv) {
  dprintf(1, "worker %d argc %d last %s\n", forkd_worker_number(), argc,
          argc ? argv[argc - 1] : argv[0] ? "more" : "none");
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
  dprintf(1, "hangs\n");
  while (pause() != 0) {
  }
  return 0;
}

static int never_yields(int argc, char **argv) {
  (void)argc;
  (void)argv;
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
    printf(" %c%d",
           is.sa_handler == SIG_DFL   ? 'd'
           : is.sa_handler == SIG_IGN ? 'i'
           : is.sa_handler == handler ? 'h'
                                      : '?',
           is.sa_flags & (int)(SA_NODEFER | SA_RESTART | SA_NOCLDSTOP | SA_RESETHAND));
  }
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  printf(" term %d usr1 %d", sigismember(&mask, SIGTERM), sigismember(&mask, SIGUSR1));
  for (int fd = 0; fd < 256; fd++) open_count += fcntl(fd, F_GETFD) >= 0;
  printf(" open %d\n", open_count);
  fflush(stdout);
}

static int invalid(int result) { return result == -1 && errno == EINVAL; }

/* Ends its pool at once, in an orderly way. */
static int stops_master(int argc, char **argv) {
  (void)argc;
  (void)argv;
  kill(getppid(), SIGTERM);
  while (forkd_yield()) pause_ms(1);
  return 0;
}

static int check_errors(void) {
  char *arguments[] = {(char *)"a", NULL};
  const struct forkd_options wrong[] = {
      {.num_workers = -1},    {.num_workers = 1025},    {.grace = NAN},         {.grace = INFINITY},
      {.grace = 1.1e9},       {.timeout = -1},          {.timeout = NAN},       {.timeout = INFINITY},
      {.timeout = 1.1e9},     {.warm_up = -1},          {.warm_up = NAN},       {.warm_up = INFINITY},
      {.warm_up = 1.1e9},     {.log_level = INT_MIN},   {.log_level = -1},      {.log_level = LOG_ALERT},
      {.log_level = LOG_NOTICE}, {.log_level = 8},
  };
  alarm(20); /* or a pool of no workers would run for ever */
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    errno = 0;
    if (!invalid(forkd_run(stops_master, 1, arguments, &wrong[i]))) return printf("option %zu\n", i), 1;
  }
  errno = 0;
  if (!invalid(forkd_run(NULL, 1, arguments, NULL))) return puts("null function"), 1;
  errno = 0;
  if (!invalid(forkd_run(stops_master, -1, arguments, NULL))) return puts("negative argc"), 1;
  errno = 0;
  if (!invalid(forkd_run(stops_master, 1, NULL, NULL))) return puts("null argv"), 1;
  puts("all refused");
  return 0;
}

/* The outermost options there are. After an error, for that shall change nothing. */
static int check_limits(void) {
  const struct forkd_options right[] = {
      {.num_workers = 1024, .grace = -1}, {.grace = 1e9},           {.grace = -1e30},         {.timeout = 1e9},
      {.warm_up = 1e9},       {.log_level = LOG_CRIT},  {.log_level = LOG_DEBUG}, {.num_workers = 1},
  };
  for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
    const int failed = forkd_run(stops_master, 1, NULL, &right[i]);
    const int status = forkd_run(stops_master, 0, NULL, &right[i]);
    if (failed != -1 || status != 0) return printf("option %zu: %d %d\n", i, failed, status), 1;
  }
  puts("all taken");
  return 0;
}

/* Never yields; ends when the stop descriptor says so. */
static int polls_once(int argc, char **argv) {
  struct pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  (void)argc;
  (void)argv;
  poll(&stop, 1, -1);
  return 0;
}

static int stops_master_and_polls(int argc, char **argv) {
  kill(getppid(), SIGTERM);
  return polls_once(argc, argv);
}

/* Asks its master to end, again and again, so that one comes later than an echo; and never ends itself. */
static int asks_again(int argc, char **argv) {
  (void)argc;
  (void)argv;
  for (;; pause_ms(200)) kill(getppid(), SIGTERM);
}

/* Asks its master to end, and takes its time. */
static int asks_and_lingers(int argc, char **argv) {
  (void)argc;
  (void)argv;
  kill(getppid(), SIGTERM);
  pause_ms(250);
  return !forkd_yield() ? 0 : 9;
}

static int run_one(forkd_worker *function) {
  const struct forkd_options options = {.grace = -1};
  return forkd_run(function, 0, NULL, &options);
}

/* A worker in the middle starts a process that runs a pool of its own, and says what that returns. */
static int has_a_master(int argc, char **argv) {
  (void)argc;
  (void)argv;
  if (forkd_worker_number() == 2) {
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) _exit(run_one(stops_master));
    waitpid(pid, &status, 0);
    printf("inner pool %d\n", WEXITSTATUS(status));
    fflush(stdout);
  }
  while (forkd_yield()) pause_ms(10);
  return 0;
}

static int run_silently(forkd_worker *function) {
  const struct forkd_options options = {.log_level = LOG_CRIT};
  return forkd_run(function, 0, NULL, &options);
}

/* Pages that this process has mapped. */
static long pages(void) {
  char text[64] = "";
  const int fd = open("/proc/self/statm", O_RDONLY);
  if (fd < 0 || read(fd, text, sizeof text - 1) < 0) return -1;
  close(fd);
  return atol(text);
}

/* Runs pools one after the other. */
static int check_leaks(void) {
  long before = 0;
  for (int i = 0; i < 40; i++) {
    if (i == 10) before = pages();
    if (run_silently(stops_master) != 0) return 1;
  }
  printf("grown by %ld KiB\n", (pages() - before) * (sysconf(_SC_PAGESIZE) / 1024));
  return 0;
}

/* A pool without the memory for what it needs, then one with it. */
static int check_memory(void) {
  struct rlimit limit, tight;
  print_state("before");
  getrlimit(RLIMIT_AS, &limit);
  tight = limit;
  tight.rlim_cur = (rlim_t)pages() * (rlim_t)sysconf(_SC_PAGESIZE);
  setrlimit(RLIMIT_AS, &tight);
  printf("returned %d\n", run_one(stops_master));
  setrlimit(RLIMIT_AS, &limit);
  print_state("after");
  printf("returned %d\n", run_one(stops_master));
  return 0;
}

static void print_environment(const char *when) {
  for (char **entry = environ; entry && *entry; entry++) dprintf(1, "%s %s\n", when, *entry);
}

static int prints_environment(int argc, char **argv) {
  print_environment("worker");
  return stops_master(argc, argv);
}

static int check_environment(void) {
  print_environment("before");
  const int status = run_one(prints_environment);
  print_environment("after");
  return status;
}

/* The signals that are blocked, of those from 1 to 31. */
static void print_mask(const char *when) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  dprintf(1, "%s blocks", when);
  for (int number = 1; number < 32; number++)
    if (sigismember(&mask, number) == 1) dprintf(1, " %d", number);
  dprintf(1, "\n");
}

static int prints_mask(int argc, char **argv) {
  print_mask("worker");
  return stops_master(argc, argv);
}

static int prints_state(int argc, char **argv) {
  print_state("worker");
  return stops_master(argc, argv);
}

static int prints_options(int argc, char **argv) {
  char found[16] = "";
  for (int c; (c = getopt(argc, argv, "abc")) != -1;) strncat(found, &(char){(char)c}, 1);
  dprintf(1, "worker finds %s\n", found);
  return stops_master(argc, argv);
}

static void *ask_for_stop(void *fd) {
  *(int *)fd = forkd_stop_fd();
  return NULL;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  struct forkd_options options = {.num_workers = 2, .grace = -1};
  printf("buffered\n"); /* and still in stdio's buffer when the workers are forked */

  if (strcmp(mode, "run") == 0) return forkd_run(steady, argc, argv, &options);
  if (strcmp(mode, "late") == 0) { /* a child of its own has ended */
    siginfo_t end;
    if (fork() == 0) return 0;
    waitid(P_ALL, 0, &end, WEXITED | WNOWAIT);
    return forkd_run(steady, 0, NULL, &options);
  }
  if (strcmp(mode, "nested") == 0) {
    options.num_workers = 4;
    return forkd_run(has_a_master, 0, NULL, &options);
  }
  if (strcmp(mode, "defaults") == 0) return forkd_run(steady, 0, NULL, NULL);
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
  if (strcmp(mode, "errors") == 0) return check_errors();
  if (strcmp(mode, "limits") == 0) return check_limits();
  if (strcmp(mode, "leaks") == 0) return check_leaks();
  if (strcmp(mode, "memory-limit") == 0) return check_memory();
  if (strcmp(mode, "grace") == 0) { /* that is the argument */
    options.grace = atof(argv[2]);
    return forkd_run(hangs, 0, NULL, &options);
  }
  if (strcmp(mode, "levels") == 0) { /* a pool for each of the arguments */
    options.num_workers = 1;
    for (int i = 2; i < argc; i++) {
      dprintf(2, "level %s\n", argv[i]);
      options.log_level = atoi(argv[i]);
      forkd_run(stops_master, 0, NULL, &options);
    }
    return 0;
  }
  if (strcmp(mode, "pools") == 0) { /* one after the other, with nothing in common */
    printf("killed %d\n", run_one(asks_again));
    printf("lingers %d\n", run_one(asks_and_lingers));
    printf("fails %d\n", run_one(fails));
    printf("fails %d\n", run_one(fails));
    printf("stops %d\n", run_one(stops_master));
    return 0;
  }
  if (strcmp(mode, "timeout") == 0) { /* that and the warm-up are arguments */
    options.timeout = atof(argv[2]);
    options.warm_up = atof(argv[3]);
    return forkd_run(never_yields, 0, NULL, &options);
  }
  if (strcmp(mode, "environment") == 0) return check_environment();
  if (strcmp(mode, "no-environment") == 0) {
    environ = NULL;
    return check_environment();
  }
  if (strcmp(mode, "mask") == 0) {
    sigset_t blocked;
    sigemptyset(&blocked);
    for (int i = 2; i < argc; i++) sigaddset(&blocked, atoi(argv[i]));
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    run_one(prints_mask);
    print_mask("caller");
    return 0;
  }
  if (strcmp(mode, "blocked") == 0) { /* executes a command with that signal blocked */
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, atoi(argv[2]));
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    execvp(argv[3], argv + 3);
    return 127;
  }
  if (strcmp(mode, "zombie") == 0) { /* ends, and leaves its group a zombie while the file "stay" exists */
    siginfo_t end;
    const pid_t parent = fork(); /* of the zombie: it leaves the group */
    if (parent > 0)
      while (getpgid(parent) == getpid()) pause_ms(5);
    if (parent > 0 || fork() == 0) return 0;
    waitid(P_ALL, 0, &end, WEXITED | WNOWAIT);
    setsid();
    while (access("stay", F_OK) == 0) pause_ms(20);
    return 0;
  }
  if (strcmp(mode, "state") == 0) {
    print_state("caller");
    run_one(prints_state);
    print_state("after");
    return 0;
  }
  if (strcmp(mode, "stop") == 0) { /* it has asked for a stop descriptor before its workers do */
    struct pollfd stop = {forkd_stop_fd(), POLLIN, 0};
    printf("returned %d\n", run_silently(stops_master_and_polls));
    printf("readable %d\n", poll(&stop, 1, 0));
    return 0;
  }
  if (strcmp(mode, "stop-threads") == 0) { /* that ask for the stop descriptor at the same time */
    pthread_t thread;
    int other = -1;
    pthread_create(&thread, NULL, ask_for_stop, &other);
    const int own = forkd_stop_fd();
    pthread_join(thread, NULL);
    printf("same %d\n", own >= 0 && own == other);
    return 0;
  }
  if (strcmp(mode, "later") == 0) { /* forks when its pool has ended */
    run_silently(stops_master);
    signal(SIGPIPE, SIG_IGN);
    print_state("parent");
    if (fork() == 0) {
      print_state("child");
      _exit(0);
    }
    wait(NULL);
    return 0;
  }
  if (strcmp(mode, "refused") == 0) { /* the first pool, by the kernel */
    print_state("before");
    const int status = run_one(stops_master);
    printf("returned %d: %s\n", status, strerror(errno));
    print_state("after");
    printf("returned %d\n", run_one(stops_master));
    return 0;
  }
  if (strcmp(mode, "options") == 0) { /* of which it has read half a word itself */
    getopt(argc - 1, argv + 1, "abc");
    getopt(argc - 1, argv + 1, "abc");
    return forkd_run(prints_options, argc - 1, argv + 1, &options);
  }
  if (strcmp(mode, "silent") == 0) { /* its children leave no zombies, whatever they are */
    if (argc > 2) sigaction(SIGCHLD, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_NOCLDWAIT}, NULL);
    else signal(SIGCHLD, SIG_IGN);
    if (fork() == 0) {
      pause_ms(50);
      _exit(0);
    }
    return forkd_run(steady, 0, NULL, &options);
  }
  if (strcmp(mode, "alone") == 0) { /* a worker function without any forkd around it */
    printf("%d tasks, number %d, stop %d\n", counts_to_five(0, NULL), forkd_worker_number(),
           forkd_stop_fd() >= 0);
    return 0;
  }
  if (strcmp(mode, "memory") == 0) {
    memory = mmap(NULL, megabytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, megabytes << 20);
    return forkd_run(reads_memory, 0, NULL, &options);
  }
  if (strcmp(mode, "twice") == 0) {
    sigset_t blocked;
    options.warm_up = 1e-9; /* or a reload takes seconds */
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_NODEFER}, NULL);
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
