// The workers of the tests: each function behaves in one way.
#include "forkd.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#define WORKER extern "C" int

extern "C" char** environ;  // not every system declares it

namespace {

void pause_ms(long ms) {
  timespec t = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

// One write(2) a line, so that the lines of several workers do not mix.
template <typename... Args> void say(const char* format, Args... args) {
  dprintf(STDOUT_FILENO, format, args...);
}

int steadily() {
  while (forkd_yield()) pause_ms(10);
  return 0;
}

}  // namespace

// Yields every 10 ms, and ends when asked to.
WORKER steady() { return steadily(); }

// Prints its number and its arguments.
WORKER arguments(int argc, char** argv) {
  char line[1024] = "";
  for (int i = 0; i < argc; i++)
    snprintf(line + strlen(line), sizeof line - strlen(line), " [%s]", argv[i]);
  say("worker %d:%s %s\n", forkd_worker_number(), line, argv[argc] ? "no end" : "end");
  return steadily();
}

// Prints a variable of its environment.
WORKER environment(int, char** argv) {
  const char* value = getenv(argv[1]);
  say("%s=%s pid=%d\n", argv[1], value ? value : "(unset)", static_cast<int>(getpid()));
  return steadily();
}

// Returns the status that is its argument at once; "healthy" before it: after a yield.
WORKER returns(int argc, char** argv) {
  if (argc > 2) forkd_yield();
  return atoi(argv[1]);
}

// Prints all of its environment, in order, and its pid.
WORKER prints_environment() {
  for (char** entry = environ; *entry; entry++) say("%s\n", *entry);
  say("pid %d\n", static_cast<int>(getpid()));
  return steadily();
}

static void at_exit() { puts("atexit"); }

// Leaves a line in stdio's buffer and an atexit handler, and returns the status that is its argument.
WORKER leaves_by_return(int, char** argv) {
  atexit(at_exit);
  printf("buffered\n");
  return atoi(argv[1]);
}

// Crashes before it has yielded.
WORKER crashes() { return raise(SIGSEGV); }

// Crashes after its first yield.
WORKER crashes_later() {
  forkd_yield();
  return raise(SIGSEGV);
}

// Ends by a signal when it is asked to end: 15, 11 or 13, by its number.
WORKER crashes_at_end() {
  say("up\n");
  steadily();
  const int numbers[] = {SIGTERM, SIGSEGV, SIGPIPE}, number = numbers[forkd_worker_number() % 3];
  signal(number, SIG_DFL);
  return raise(number);
}

// Crashes until the file that is its argument exists; "healthy" after it: after a yield.
WORKER crashes_without(int argc, char** argv) {
  if (argc > 2) forkd_yield();
  if (access(argv[1], F_OK) != 0) return 1;
  return steadily();
}

// That, if it is worker 1; any other one yields steadily, so the master never gives up.
WORKER second_crashes_without(int argc, char** argv) {
  return forkd_worker_number() == 1 ? crashes_without(argc, argv) : steadily();
}

// The worker whose number is the second argument fails when the file that is the first one exists; any
// other one fails at once. None yields.
WORKER fails_when(int, char** argv) {
  while (forkd_worker_number() == atoi(argv[2]) && access(argv[1], F_OK) != 0) pause_ms(5);
  return 1;
}

// Fails when it is asked to end, which it learns by the stop descriptor, before any yield.
WORKER fails_when_asked() {
  pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  say("waiting\n");
  while (poll(&stop, 1, -1) < 0) {
  }
  return 1;
}

// Does one task of as many milliseconds as its argument says, and returns 0 without a yield.
WORKER one_task(int, char** argv) {
  pause_ms(atoi(argv[1]));
  return 0;
}

// Yields until the file that is its argument is there, and returns 0; while it is there at the
// start, it does not yield.
WORKER pauses_while(int, char** argv) {
  while (access(argv[1], F_OK) == 0) pause_ms(10);
  while (access(argv[1], F_OK) != 0 && forkd_yield()) pause_ms(10);
  return 0;
}

// Waits in a system call between two yields; only a signal gets it out of there.
WORKER blocked() {
  say("blocked\n");
  while (forkd_yield()) pause();
  return 0;
}

// Yields once and never again, whatever comes.
WORKER hangs() {
  forkd_yield();
  say("hangs\n");
  for (;;) pause();
}

// Returns 0 at once while the file that is its argument exists; else it waits for ever.
WORKER quick_or_stuck(int, char** argv) {
  while (access(argv[1], F_OK) != 0) pause();
  return 0;
}

// Never yields, whatever comes.
WORKER never_yields() {
  for (;;) pause();
}

// Needs a second to set itself up, yields once and hangs.
WORKER late_once() {
  pause_ms(1000);
  say("ready\n");
  return hangs();
}

// Yields every 10 ms, and writes a byte into the file "yielded" after each yield, if that is there.
WORKER says_yields() {
  while (forkd_yield()) {
    const int fd = open("yielded", O_WRONLY | O_APPEND);
    if (fd >= 0 && write(fd, "y", 1) == 1) close(fd);
    pause_ms(10);
  }
  return 0;
}

// Hangs if it is worker 0, and ends soon if it is not.
WORKER first_hangs_others_end() {
  if (forkd_worker_number() == 0) return hangs();
  return !forkd_yield();
}

// Worker 0 yields steadily; any other one does a single task until the file that is its argument
// exists, whatever comes.
WORKER first_yields(int, char** argv) {
  say("ready\n");
  if (forkd_worker_number() == 0) return steadily();
  while (access(argv[1], F_OK) != 0) pause_ms(10);
  return 0;
}

// Hangs if it is worker 0, and yields steadily if it is not.
WORKER first_hangs() { return forkd_worker_number() == 0 ? hangs() : steadily(); }

// Takes no notice of SIGABRT, and hangs.
WORKER ignores_abort() {
  signal(SIGABRT, SIG_IGN);
  return hangs();
}

static void take_no_notice(int) {}

// Does one long task, which SIGABRT does not end, until the file that is its argument exists, and
// yields steadily after that.
WORKER survives_abort(int, char** argv) {
  signal(SIGABRT, take_no_notice);
  while (access(argv[1], F_OK) != 0) pause_ms(10);
  say("survived\n");
  return steadily();
}

// Waits for the request by the stop descriptor alone, and says how it found out.
WORKER polls() {
  pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  say("polling\n");
  forkd_yield();
  int events;
  while ((events = poll(&stop, 1, -1)) < 0 && errno == EINTR) {
  }
  // Readable, and still so at a second look; and the yield agrees.
  const int again = poll(&stop, 1, 0);
  say("stop %d %d %d\n", events, again, forkd_yield());
  return 0;
}

// Worker 1 waits until the file that is its argument exists, and does that; any other one is steady.
WORKER second_asks_at(int, char** argv) {
  if (forkd_worker_number() != 1) return steadily();
  while (access(argv[1], F_OK) != 0) pause_ms(5);
  return polls();
}

static int open_count() {
  int count = 0;
  for (int fd = 0; fd < 64; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static bool is_readable(int fd) {
  pollfd stop = {fd, POLLIN, 0};
  return poll(&stop, 1, 0) == 1;
}

// Asks for the stop descriptor when it can have no descriptor, and again when it can; then it is sent
// a request.
WORKER asks_without_descriptors() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit standard = {3, limit.rlim_max};
  setrlimit(RLIMIT_NOFILE, &standard);
  const int before = open_count();
  errno = 0;
  const int none = forkd_stop_fd();
  say("without %d %s\n", none, errno == EMFILE ? "EMFILE" : strerror(errno));
  setrlimit(RLIMIT_NOFILE, &limit);
  const int fd = forkd_stop_fd();
  int flagged = 0;
  for (int i = 3; i < 64; i++) flagged += fcntl(i, F_GETFD) == FD_CLOEXEC;
  say("with %d again %d more %d closed on exec %d blocks %d\n", fd >= 3, fd == forkd_stop_fd(),
      open_count() - before, flagged, !(fcntl(fd, F_GETFL) & O_NONBLOCK));
  raise(SIGHUP);
  say("readable %d\n", is_readable(fd));
  return forkd_yield();
}

// Gets a request, and asks for the stop descriptor only then.
WORKER asks_too_late() {
  raise(SIGHUP);
  say("readable %d\n", is_readable(forkd_stop_fd()));
  return forkd_yield();
}

// Says what a request does to errno, when the stop descriptor has been closed.
WORKER keeps_errno() {
  forkd_stop_fd();
  for (int fd = 3; fd < 64; fd++) close(fd);
  errno = 0;
  raise(SIGHUP);
  say("errno %d\n", errno);
  return forkd_yield();
}

static void on_hup(int) { say("hup\n"); }

// Worker 1 asks for the stop descriptor and makes the file that is its argument; when that is there,
// it does not ask, and says when it gets HUP.
WORKER only_first_asks(int, char** argv) {
  if (forkd_worker_number() != 1) return steadily();
  if (access(argv[1], F_OK) != 0) {
    forkd_stop_fd();
    close(open(argv[1], O_WRONLY | O_CREAT, 0666));
    return steadily();
  }
  signal(SIGHUP, on_hup);
  say("next\n");
  return blocked();
}

// Blocks the signal that goes with a request, learns of it by a yield, and says what the stop
// descriptor says then.
WORKER blocks_hup() {
  sigset_t hup;
  sigemptyset(&hup);
  sigaddset(&hup, SIGHUP);
  sigprocmask(SIG_BLOCK, &hup, nullptr);
  pollfd stop = {forkd_stop_fd(), POLLIN, 0};
  say("polling\n");
  steadily();
  say("stop %d\n", poll(&stop, 1, 0));
  return 0;
}

// Reads lines from the FIFO that is its argument, a task each; says so when a read fails.
WORKER reads(int, char** argv) {
  const int fd = open(argv[1], O_RDWR);
  say("reading\n");
  char byte;
  do {
    if (read(fd, &byte, 1) == 1) say("task %c\n", byte);
    else say("read failed: %s\n", strerror(errno));
  } while (forkd_yield());
  return 0;
}

// Does tasks of 50 ms that write "begin" and "end" to the file that is its argument.
WORKER tasks(int, char** argv) {
  const int fd = open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0666);
  do {
    dprintf(fd, "begin %d\n", static_cast<int>(getpid()));
    pause_ms(50);
    dprintf(fd, "end %d\n", static_cast<int>(getpid()));
  } while (forkd_yield());
  return 0;
}

// Prints which signals are blocked, ignored and caught, as the kernel sees it.
WORKER dispositions() {
  char line[256];
  FILE* status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status))
    if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0 ||
        strncmp(line, "SigCgt", 6) == 0)
      say("%s", line);
  return steadily();
}

// Prints the descriptors from 0 to 63 that are open.
WORKER descriptors() {
  char line[512] = "open:";
  for (int fd = 0; fd < 64; fd++)
    if (fcntl(fd, F_GETFD) >= 0)
      snprintf(line + strlen(line), sizeof line - strlen(line), " %d", fd);
  say("%s\n", line);
  return steadily();
}

// Prints the path or the port of each socket that it was given, in their order.
WORKER sockets() {
  union {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_un path;
  } name;
  char line[4096] = "sockets:";
  const char* count = getenv("LISTEN_FDS");
  for (int fd = 3; fd < 3 + atoi(count ? count : "0"); fd++) {
    socklen_t size = sizeof name;
    char* end = line + strlen(line);
    if (getsockname(fd, &name.any, &size) != 0) snprintf(end, 8, " none");
    else if (name.any.sa_family == AF_UNIX) snprintf(end, 128, " %.120s", name.path.sun_path);
    else snprintf(end, 8, " %d", ntohs(name.v4.sin_port));  // of IPv6 it is in the same place
  }
  say("%s\n", line);
  return steadily();
}

// Shuts its sockets down, and waits in a task until the file that is its argument is there; steady if it
// has been there before.
WORKER shuts_down_sockets(int, char** argv) {
  if (access(argv[1], F_OK) == 0) return steadily();
  for (int fd = 3; fd < 3 + atoi(getenv("LISTEN_FDS")); fd++) shutdown(fd, SHUT_RDWR);
  say("shut down\n");
  while (access(argv[1], F_OK) != 0) pause_ms(5);
  return 0;
}

// Steady; but when the file that is its argument holds its number and a count, it sets O_NONBLOCK of its
// first socket, clears that of the next one, and fails: so often.
WORKER turns_nonblocking(int, char** argv) {
  char text[16] = "";
  int number = -1, count = 0;
  const int file = open(argv[1], O_RDWR);
  if (file >= 0 && read(file, text, sizeof text - 1) > 0) sscanf(text, "%d %d", &number, &count);
  if (number != forkd_worker_number() || count == 0) return steadily();
  ftruncate(file, 0);
  lseek(file, 0, SEEK_SET);
  dprintf(file, "%d %d\n", number, count - 1);
  fcntl(3, F_SETFL, O_NONBLOCK);
  fcntl(4, F_SETFL, 0);
  return 3;
}

// Sets O_NONBLOCK of its last socket, and is steady.
WORKER last_nonblocking(int argc, char** argv) {
  const int last = 2 + atoi(getenv("LISTEN_FDS"));
  if (forkd_worker_number() == 0 && argv[1][0] == '@') fcntl(last, F_SETFL, O_NONBLOCK);
  return turns_nonblocking(argc, argv);
}

// Does twelve tasks of a tenth of a second, and returns 0.
WORKER recycles() {
  for (int i = 0; i < 12 && forkd_yield(); i++) usleep(100000);
  return 0;
}

// Hangs, and ends with 0 when it is aborted.
WORKER ends_when_aborted() {
  signal(SIGABRT, [](int) { _exit(0); });
  for (;;) pause();
}

// If its argument is a file, it sets O_NONBLOCK of its socket, and then waits for ever.
WORKER waits_nonblocking(int, char** argv) {
  if (access(argv[1], F_OK) != 0) return steadily();
  fcntl(3, F_SETFL, O_NONBLOCK);
  for (;;) pause();
}

// Leaves a program behind, whose pid it writes to the file that is its argument.
WORKER leaves_program(int, char** argv) {
  char command[512];
  snprintf(command, sizeof command, "sleep 1000 & echo $! >%.400s", argv[1]);
  if (access(argv[1], F_OK) != 0 && system(command) != 0) return 1;
  return steadily();
}

// Listens on the path that is its argument with a queue of the shortest length, and fills that.
WORKER fills_queue(int, char** argv) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  snprintf(name.sun_path, sizeof name.sun_path, "%s", argv[1]);
  const auto* any = reinterpret_cast<const sockaddr*>(&name);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(fd, any, sizeof name) != 0 || listen(fd, 0) != 0) return 1;
  for (;;) {
    const int client = socket(AF_UNIX, SOCK_STREAM, 0);
    fcntl(client, F_SETFL, O_NONBLOCK);
    if (connect(client, any, sizeof name) != 0) break;
  }
  say("full\n");
  return steadily();
}

static void wait_for_signal(const char* name) {
  say("%s %d yields %d number %d\n", name, static_cast<int>(getpid()), forkd_yield(),
      forkd_worker_number());
  for (;;) pause();
}

// Forks a child that waits for a signal and says what it died of; the worker goes on.
WORKER forks() {
  const pid_t child = fork();
  if (child == 0) wait_for_signal("child");
  for (int status; forkd_yield(); pause_ms(10))
    if (waitpid(child, &status, WNOHANG) == child)
      say("child %d ended by %d\n", static_cast<int>(child), WTERMSIG(status));
  kill(child, SIGKILL);
  return 0;
}

static int stops_master() {
  kill(getppid(), SIGTERM);
  return steadily();
}

// Forks a child that says what it has of its parent: signals (d for default, i for ignored, h for a
// handler), descriptors, a stop descriptor, and a pool of its own.
WORKER forks_and_asks() {
  const int stop = forkd_stop_fd();
  signal(SIGUSR2, take_no_notice);
  const int before = open_count();
  if (fork() == 0) {
    char line[64] = "";
    const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    for (const int number : numbers) {
      struct sigaction is;
      sigaction(number, nullptr, &is);
      strcat(line, is.sa_handler == SIG_DFL ? " d" : is.sa_handler == SIG_IGN ? " i" : " h");
    }
    say("child has%s and %d descriptors less\n", line, before - open_count());
    const int own = forkd_stop_fd();
    forkd_options silent{};
    silent.log_level = LOG_CRIT;
    const int status = forkd_run(reinterpret_cast<forkd_worker*>(stops_master), 0, nullptr, &silent);
    say("child's own pool %d\n", status);
    while (getppid() != 1 && !is_readable(stop)) pause_ms(5);
    say("child's stop descriptor is %s and readable %d\n", own == stop ? "old" : "new", is_readable(own));
    _exit(0);
  }
  return steadily();
}

// Says that it runs, and calls what the shared object that is its argument has as plugin(); that needs
// a function of this one.
extern "C" int called_by_plugin() { return 42; }
WORKER loads_plugin(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  void* function = library ? dlsym(library, "plugin") : nullptr;
  if (!function) say("%s\n", dlerror());
  else say("plugin %d\n", reinterpret_cast<int (*)()>(function)());
  return steadily();
}

// Leaves three orphans behind that end later than the worker itself.
WORKER leaves_orphans() {
  for (int i = 0; i < 3; i++)
    if (const pid_t worker = getpid(); fork() == 0) {
      while (getppid() == worker) pause_ms(5);
      say("orphan of %d\n", static_cast<int>(getppid()));
      _exit(0);
    }
  return steadily();
}

// Leaves a process behind that ends only by SIGKILL.
WORKER leaves_stubborn_orphan() {
  if (fork() == 0) {
    signal(SIGTERM, SIG_IGN);
    say("stubborn %d\n", static_cast<int>(getpid()));
    for (;;) pause();
  }
  return steadily();
}

static void on_term(int) { say("asked to end\n"); }

// Leaves a process behind that says when it gets TERM, but ends only by SIGKILL, and fails.
WORKER fails_with_stubborn_orphan() {
  if (fork() == 0) {
    signal(SIGTERM, on_term);
    for (;;) pause();
  }
  return 1;
}

// Makes a process without any fork handler, as by clone(2), which waits for a signal, and says what it
// died of.
WORKER clones() {
#ifdef __linux__
#ifdef __s390x__
  const long child = syscall(SYS_clone, 0, SIGCHLD, 0, 0, 0);  // the stack comes first there
#else
  const long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
  if (child == 0) {
    say("clone %d\n", static_cast<int>(getpid()));
    for (;;) pause();
  }
  for (int status; forkd_yield(); pause_ms(10))
    if (waitpid(static_cast<pid_t>(child), &status, WNOHANG) == child)
      say("clone ended by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
#endif
  return 0;
}

// Leaves a process behind that is stopped, and cannot even end.
WORKER leaves_stopped_orphan() {
  if (fork() == 0) {
    say("stopped\n");
    raise(SIGSTOP);
    for (;;) pause();
  }
  return steadily();
}

// Leaves a process behind that takes its time when it gets TERM; it asks forkd to end, too.
WORKER leaves_asking_orphan() {
  if (fork() == 0) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    say("asking\n");
    int number;
    sigwait(&set, &number);
    kill(1, SIGINT);
    pause_ms(300);
    say("orderly end\n");
    _exit(0);
  }
  return steadily();
}

// Takes no notice of a request, and leaves a process behind that ends only by SIGKILL.
WORKER hangs_with_stubborn_orphan() {
  if (fork() == 0) {
    signal(SIGTERM, SIG_IGN);
    for (;;) pause();
  }
  return hangs();
}

// Leaves a process behind that takes TERM as a reason to end in an orderly way, a moment later.
WORKER leaves_orderly_orphan() {
  if (fork() == 0) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    say("orderly %d\n", static_cast<int>(getpid()));
    int number;
    sigwait(&set, &number);
    pause_ms(200);
    say("orderly end\n");
    _exit(0);
  }
  return steadily();
}

static void* yield_a_lot(void*) {
  while (forkd_yield()) {
  }
  return nullptr;
}

// Yields from two threads at full speed until asked to end.
WORKER threads() {
  pthread_t other;
  pthread_create(&other, nullptr, yield_a_lot, nullptr);
  say("threads yield\n");
  yield_a_lot(nullptr);
  pthread_join(other, nullptr);
  say("threads done\n");
  return 0;
}

static void* ends_on_small_stack(void* low) {
  static char alternate[1 << 16];
  stack_t other = {};
  other.ss_sp = alternate;
  other.ss_size = sizeof alternate;
  sigaltstack(&other, nullptr);
  // Leaves less of the stack than the kernel needs for a handler.
  const auto here = reinterpret_cast<size_t>(__builtin_frame_address(0));
  memset(__builtin_alloca(here - reinterpret_cast<size_t>(low) - 1400), 0, 1);
  pthread_kill(pthread_self(), SIGTERM);
  return nullptr;
}

// Gets TERM in a thread whose stack is used up, but which has an alternate one.
WORKER small_stack() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), size = 1 << 17;
  char* memory = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(memory, page, PROT_NONE);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, memory + page, size - page);
  pthread_t thread;
  pthread_create(&thread, &attributes, ends_on_small_stack, memory + page);
  pthread_join(thread, nullptr);
  say("yields %d\n", forkd_yield());
  return steadily();
}

// Fills standard error once, until it takes no more.
WORKER shouts() {
  char line[200];
  memset(line, 'x', sizeof line);
  line[sizeof line - 1] = '\n';
  const int fd = open("/dev/stderr", O_WRONLY | O_NONBLOCK);
  while (write(fd, line, sizeof line) > 0 && forkd_yield()) {
  }
  return steadily();
}

// Says what getopt finds, in options between operands.
WORKER options(int argc, char** argv) {
  static const option names[] = {{"long", required_argument, nullptr, 'l'}, {nullptr, 0, nullptr, 0}};
  char line[256];
  int end = snprintf(line, sizeof line, "opterr %d", opterr);
  for (int c; (c = getopt_long(argc, argv, "xyl:", names, nullptr)) != -1;)
    end += c == 'l' ? snprintf(line + end, 64, " long=%s", optarg) : snprintf(line + end, 8, " %c", c);
  end += snprintf(line + end, 16, " operands");
  for (; optind < argc; optind++)
    end += snprintf(line + end, 16, " %s", argv[optind]);
  say("%s\n", line);
  return steadily();
}

// Closes all descriptors after it has asked for the stop descriptor, and opens the file that is its
// argument under their numbers.
WORKER closes_all(int, char** argv) {
  forkd_stop_fd();
  for (int fd = 3; fd < 64; fd++) close(fd);
  for (int i = 0; i < 20; i++) open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0666);
  say("opened\n");
  return steadily();
}

// That, and says how many of the files a child of it has.
WORKER closes_all_and_forks(int, char** argv) {
  int files[20], open_count = 0;
  forkd_stop_fd();
  for (int fd = 3; fd < 64; fd++) close(fd);
  for (int& fd : files) fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (fork() == 0) {
    for (const int fd : files) open_count += fcntl(fd, F_GETFD) >= 0;
    say("in the child %d of 20\n", open_count);
    _exit(0);
  }
  return steadily();
}

// Calls the master's entry from within a worker, which must be refused.
WORKER nested(int argc, char** argv) {
  const int result = forkd_run(nested, argc, argv, nullptr);
  say("nested %d %s\n", result, errno == EINVAL ? "EINVAL" : strerror(errno));
  return steadily();
}
