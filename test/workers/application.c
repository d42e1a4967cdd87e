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
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
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
      {.num_workers = 1024},  {.grace = 1e9},           {.grace = -1e30},         {.timeout = 1e9},
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

/* Makes the file "go" and yields; writes nothing. */
static int marks(int argc, char **argv) {
  (void)argc;
  (void)argv;
  close(open("go", O_WRONLY | O_CREAT, 0666));
  while (forkd_yield()) pause_ms(5);
  return 0;
}

/* Makes the file "go" and waits by the stop descriptor. */
static int waits(int argc, char **argv) {
  struct pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  (void)argc;
  (void)argv;
  close(open("go", O_WRONLY | O_CREAT, 0666));
  while (forkd_yield()) poll(&stop, 1, -1);
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

/* Asks its master twice to end, the second time after longer than an echo takes, and hangs. */
static int asks_twice(int argc, char **argv) {
  kill(getppid(), SIGTERM);
  pause_ms(200);
  kill(getppid(), SIGTERM);
  return hangs(argc, argv);
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

/* Runs pools, each with a big environment to copy. */
static int check_leaks(void) {
  static char big[100000];
  long before = 0;
  memset(big, 'x', sizeof big - 1);
  setenv("BIG", big, 1);
  for (int i = 0; i < 40; i++) {
    if (i == 10) before = pages();
    if (run_silently(stops_master) != 0) return 1;
  }
  printf("grown by %ld KiB\n", (pages() - before) * (sysconf(_SC_PAGESIZE) / 1024));
  return 0;
}

/* Pools without the memory for what they need, then one with it. */
static int check_memory(void) {
  enum { size = 8 << 20 };
  char *big = malloc(size);
  struct rlimit limit, tight;
  memset(big, 'x', size - 1);
  big[size - 1] = '\0';
  setenv("BIG", big, 1);
  print_state("before");
  getrlimit(RLIMIT_AS, &limit);
  tight = limit;
  for (int mebibytes = 0; mebibytes <= 4; mebibytes += 4) {
    tight.rlim_cur = (rlim_t)pages() * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)mebibytes << 20);
    setrlimit(RLIMIT_AS, &tight);
    printf("returned %d\n", run_one(stops_master));
    setrlimit(RLIMIT_AS, &limit);
  }
  print_state("after");
  printf("returned %d\n", run_one(stops_master));
  return 0;
}

static int prints_environment(int argc, char **argv) {
  (void)argc;
  (void)argv;
  for (char **entry = environ; *entry; entry++) dprintf(1, "%s\n", *entry);
  return stops_master(argc, argv);
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

/* What a process that the application has forked is: no master, and free to become one. */
static void check_child(void) {
  struct pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  dprintf(1, "child yields %d number %d stop %d\n", forkd_yield(), forkd_worker_number(), poll(&stop, 1, 0));
  dprintf(1, "child's own pool %d\n", run_silently(stops_master));
}

static void *ask_for_stop(void *fd) {
  *(int *)fd = forkd_stop_fd();
  return NULL;
}

/* Sends SIGCHLD to its parent as fast as it can, as long as that lives. */
static pid_t storm(void) {
  const pid_t parent = getpid(), child = fork();
  if (child == 0)
    while (kill(parent, SIGCHLD) == 0 && getppid() == parent) {
    }
  return child;
}

static void *run_in_thread(void *result) {
  const struct forkd_options options = {.num_workers = 2};
  *(int *)result = forkd_run(steady, 0, NULL, &options);
  return NULL;
}

static pthread_t pool_thread;

static void *run_quietly_in_thread(void *result) {
  *(int *)result = run_silently(marks);
  for (int i = 0; i < 10; i++) open("file", O_WRONLY | O_CREAT, 0666); /* under the numbers that are free */
  return NULL;
}

static void *end_pool_soon(void *unused) {
  pause_ms(150);
  pthread_kill(pool_thread, SIGTERM);
  return unused;
}

/* A signal handler of the pool's takes its time, in the thread that is asked for: strace delays the
   first write(2) of each by 0.4 s. */
static int check_slow_handler(int in_pool) {
  pthread_t other;
  sigset_t user;
  struct stat file;
  int result = -1, status = 0;
  pthread_create(&pool_thread, NULL, run_quietly_in_thread, &result);
  while (access("go", F_OK) != 0) pause_ms(1);
  sigemptyset(&user);
  sigaddset(&user, SIGUSR1);
  if (in_pool) { /* meanwhile this thread forks */
    pthread_sigmask(SIG_BLOCK, &user, NULL);
    pthread_kill(pool_thread, SIGUSR1);
    pause_ms(150);
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      _exit(run_silently(stops_master));
    }
    waitpid(child, &status, 0);
    pthread_kill(pool_thread, SIGTERM);
  } else { /* meanwhile the pool ends, whose own first write is over */
    pthread_kill(pool_thread, SIGUSR2);
    pause_ms(600);
    pthread_create(&other, NULL, end_pool_soon, NULL);
    raise(SIGUSR1);
    pthread_join(other, NULL);
  }
  pthread_join(pool_thread, NULL);
  if (stat("file", &file) != 0) return 1;
  printf("pool %d child %d file %d\n", result, status, (int)file.st_size);
  return 0;
}

static void *run_many_in_thread(void *result) {
  const struct forkd_options options = {.num_workers = 300, .log_level = LOG_CRIT};
  *(int *)result = forkd_run(waits, 0, NULL, &options);
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
  if (strcmp(mode, "slow-handler") == 0) return check_slow_handler(argc > 2);
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
  if (strcmp(mode, "limits") == 0) return check_limits();
  if (strcmp(mode, "leaks") == 0) return check_leaks();
  if (strcmp(mode, "memory-limit") == 0) return check_memory();
  if (strcmp(mode, "tiny") == 0) { /* times of less than a millisecond */
    options.grace = options.timeout = options.warm_up = 1e-9;
    return forkd_run(hangs, 0, NULL, &options);
  }
  if (strcmp(mode, "grace") == 0) { /* that is the argument */
    options.grace = atof(argv[2]);
    return forkd_run(hangs, 0, NULL, &options);
  }
  if (strcmp(mode, "warm-up") == 0) {
    options.warm_up = 0.1;
    return forkd_run(polls_once, 0, NULL, &options);
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
    printf("killed %d\n", run_one(asks_twice));
    printf("lingers %d\n", run_one(asks_and_lingers));
    printf("fails %d\n", run_one(fails));
    printf("fails %d\n", run_one(fails));
    printf("stops %d\n", run_one(stops_master));
    return 0;
  }
  if (strcmp(mode, "no-environment") == 0) {
    environ = NULL;
    return run_one(prints_environment);
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
  if (strcmp(mode, "spawns") == 0) { /* a command, while the pool runs in another thread */
    pthread_t thread;
    pid_t child;
    int result = -1, status;
    pthread_create(&thread, NULL, run_in_thread, &result);
    while (access("go", F_OK) != 0) pause_ms(5);
    if (argc > 2 && posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ) == 0) waitpid(child, &status, 0);
    pthread_join(thread, NULL);
    return result;
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
  if (strcmp(mode, "early") == 0) { /* forks while another thread is about to run a pool */
    pthread_t thread;
    int result = -1, status;
    pthread_create(&thread, NULL, run_in_thread, &result);
    pause_ms(200);
    const pid_t child = fork();
    if (child == 0) _exit(run_silently(stops_master));
    waitpid(child, &status, 0);
    dprintf(1, "child %d\n", WEXITSTATUS(status));
    pthread_join(thread, NULL);
    return result;
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
    signal(SIGUSR1, handler);
    print_state("start");
    pthread_create(&thread, NULL, run_in_thread, &result);
    while (access("go", F_OK) != 0) pause_ms(5);
    signal(SIGUSR2, handler); /* which takes it away from the pool */
    const pid_t child = fork();
    if (child == 0) {
      print_state("child");
      check_child();
      print_state("later");
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
  if (strcmp(mode, "storm") == 0) { /* forks while the pool starts workers and handles signals */
    pthread_t thread;
    sigset_t blocked;
    int result = -1, status, good = 0;
    const pid_t sender = storm();
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD); /* the signals are for the pool's thread */
    pthread_create(&thread, NULL, run_many_in_thread, &result);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    while (access("go", F_OK) != 0) pause_ms(1);
    for (int i = 0; i < 40; i++) {
      const pid_t child = fork();
      if (child == 0) {
        alarm(10);
        _exit(run_silently(stops_master));
      }
      waitpid(child, &status, 0);
      good += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    kill(sender, SIGKILL);
    kill(getpid(), SIGTERM);
    pthread_join(thread, NULL);
    printf("%d good children, pool %d\n", good, result);
    return 0;
  }
  if (strcmp(mode, "steals") == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, steal, NULL);
    return forkd_run(argc > 2 ? reads_config : steady, 0, NULL, &options);
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
