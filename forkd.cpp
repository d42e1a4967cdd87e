// forkd - a pre-forking process manager for native workers
//
// One process, the master, keeps a table of slots, one for each worker number. A slot holds at most
// one process. The master alone changes slots, and only in its loop: wait, take the signals, reap,
// tend every slot, count, tell. tend() starts, watches and kills workers.
//
// The signal handler only counts a signal and writes a byte into a pipe that ends the wait: no
// signal is lost, and none interrupts other work. Nothing else waits. Whatever must happen later is
// a deadline in a slot or in the pool; each function that does what is due returns the next one.
//
// The master signals only pids that a slot holds, which it does until it has reaped the process (a
// command's group: until that is empty). So it never signals a reused pid. A worker is forked with
// all signals blocked, so none reaches it before it has handlers of its own. It loads the user's
// code itself; the master never runs any. Both share a cache line for each worker, and no lock: the
// master writes the request to end there, the worker counts its yields.
//
// The pool runs one file, which the master keeps open: its code. A reload tries the file now at the
// path with one extra worker, in a slot behind all numbers. If that fails, nothing changes. If it
// passes, its code becomes the pool's, and workers on any other code are old. The roll lets them
// go, a few at a time, while the extra worker helps. The previous code stays open until the roll
// is over: when the new code fails under a number, the pool goes back to it in the same way.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE  // g++ predefines it; clang on musl and some others do not
#endif
// On 32-bit systems: for large inode numbers, where fstat(2) would fail, and times after 2038.
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

// Two kinds of system: Linux and POSIX. With FORKD_PORTABLE the tests run on Linux what others get.
#if defined __linux__ && !defined FORKD_PORTABLE
#define FORKD_LINUX
#include <sys/prctl.h>
#endif

extern "C" char** environ;  // not every system declares it

// ---- Public API: the part between the two marks is forkd.h --------------------------------------

#pragma GCC visibility push(default)
/* forkd.h - yield to forkd(1), a pre-forking process manager; see forkd(3) */
#ifndef FORKD_H
#define FORKD_H
#ifdef __cplusplus
extern "C" {
#endif

/* The task boundary. Returns 1 to go on with the next task, or 0 to end now: clean up and return.
   Costs a few nanoseconds and, on Linux, no system call until the worker is let go. Outside a
   worker: always 1. Any thread. */
int forkd_yield(void);

/* A descriptor for poll(2) that becomes readable, and stays so, when the worker is asked to end:
   then call forkd_yield(). Do not read or close it. Outside a worker: one that never becomes
   readable. Returns -1 with errno set (EMFILE, ENFILE) if it cannot be made. Any thread. */
int forkd_stop_fd(void);

/* This worker's number, 0 or more; the process that replaces it gets the same one. -1 outside a
   worker. Any thread. */
int forkd_worker_number(void);

/* The function a worker runs. It is like main: its return ends the worker as exit(3) does. */
typedef int forkd_worker(int argc, char** argv);

/* All members zero: all defaults. */
struct forkd_options {
  int num_workers; /* initial number of workers, 1 to 1024; 0: 1 */
  double grace;    /* seconds a shutdown may take before SIGKILL; 0: 8; negative: for ever */
  double timeout;  /* replace a worker that has not yielded for this many seconds; 0: never */
  double warm_up;  /* seconds a worker may take to set itself up; 0: 8; negative: EINVAL */
  double canary;   /* seconds that a reload's trial lasts longer; 0: none; negative: EINVAL */
  int log_level;   /* LOG_CRIT, _ERR, _WARNING, _INFO or _DEBUG of <syslog.h>; 0: LOG_INFO */
};

/* Makes the caller the master: runs a pool of workers until it has ended, and returns the exit
   status of forkd(1). Null options: the defaults. Call it before the first thread is started: the
   child of a process with threads may not run arbitrary code (POSIX, fork). Returns -1 with errno
   set, and nothing started: EINVAL for a bad option or argument, a null function, or a call within
   a worker or within forkd_run(); or the errno of pthread_atfork(3) or sigaction(2). */
int forkd_run(forkd_worker* function, int argc, char** argv, const struct forkd_options* options);

#ifdef __cplusplus
}
#endif
#endif
/* end of forkd.h */
#pragma GCC visibility pop
namespace {

constexpr const char* version = "1.0";

constexpr int max_workers = 1024;
constexpr int max_addresses = 64;  // of -b
constexpr int first_socket = 3;    // where a worker finds the sockets (sd_listen_fds(3))

using Ms = long long;  // milliseconds of the master's clock, or a difference of two such times
constexpr Ms never = LLONG_MAX;
constexpr Ms second = 1000;  // from the first yield to health; between looks in a roll or shutdown
constexpr Ms start_interval = 100;  // between two starts of one worker number
constexpr Ms first_backoff = 100;   // after a failure
constexpr Ms longest_backoff = 10000;
constexpr Ms shortest_watch = 10;  // between two looks at a worker that is not healthy yet
constexpr Ms longest_watch = 200;
constexpr Ms exec_time = 100;         // if execve(2) fails, it fails within this time
constexpr Ms pause_slack = 10;        // a wakeup this late is no pause
constexpr Ms longest_turn = 20;       // of the loop, while there are more workers to start
constexpr Ms echo_time = 100;         // a second stop signal this soon is an echo of the first
constexpr Ms leftover_interval = 50;  // between two looks whether a group or namespace is empty
constexpr Ms retry_interval = 100;    // between two tries to send, or two looks at a reload
constexpr int go_back_after = 2;      // failures in a row under a number of a roll
constexpr int give_up_after = 5;  // failures in a row of every worker, when none was ever healthy
constexpr int exit_failed = 1;    // the worker could not be loaded, or the pool never came up
constexpr int exit_usage = 2;
constexpr int exit_killed = 3;  // shut down, but a worker had to be killed

// For memory that another process, thread or signal handler may use at the same time. Sequentially
// consistent: each side writes its flag, then reads the other's, and one of them must see both set.
template <typename T>
T atomic_load(const T& from) {
  T value;
  __atomic_load(&from, &value, __ATOMIC_SEQ_CST);
  return value;
}
template <typename T>
T relaxed_load(const T& from) {
  T value;
  __atomic_load(&from, &value, __ATOMIC_RELAXED);
  return value;
}
void atomic_store(auto& to, auto value) { __atomic_store(&to, &value, __ATOMIC_SEQ_CST); }
// Compare and swap. True if the old value was the expected one.
bool atomic_replace(auto& at, auto expected, auto desired) {
  return __atomic_compare_exchange(&at, &expected, &desired, false, __ATOMIC_SEQ_CST,
                                   __ATOMIC_SEQ_CST);
}

Ms monotonic_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * Ms{1000} + t.tv_nsec / 1000000;
}

// The master's clock. It stands still while nothing can run, see wait_until().
Ms paused;  // for how long it has stood still
Ms clock_ms() { return monotonic_ms() - paused; }
auto max(auto a, auto b) { return a > b ? a : b; }
auto min(auto a, auto b) { return a < b ? a : b; }
double seconds(Ms ms) { return static_cast<double>(ms) / 1000; }
struct KeepErrno {  // until the end of the scope
  const int value = errno;
  ~KeepErrno() { errno = value; }
};

// ---- Options ------------------------------------------------------------------------------------

struct Address {
  const char* text;  // as typed
  union Name {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
    sockaddr_un path;
  } name;
  socklen_t size;       // of the name
  bool all;             // one socket for IPv6 and IPv4
  struct stat file {};  // identity of the socket file we made; only that one is removed
};
Address addresses[max_addresses];  // of -b, in the order of the command line
int address_count;

struct Options {
  int workers = 1;               // the initial target
  Ms grace = 8000;               // how long a shutdown may take before SIGKILL; 0: for ever
  Ms timeout = 0;                // how long a worker may go without a yield; 0: for ever
  Ms warm_up = 8000;             // how long a worker may take to set itself up
  Ms canary = 0;                 // how long new code has to stay healthy in its trial
  int log_level = LOG_INFO;      // the least important level that is logged, as in syslog(3)
  const char* state = nullptr;   // the file for the state of the pool
  const char* reload = nullptr;  // the file of another forkd, which shall reload
};

// What the workers run: a function of the caller, one in a shared object, or else a command.
struct Job {
  const char* spec;                  // as typed; for the log
  forkd_worker* function = nullptr;  // given to forkd_run
  const char* path = nullptr;        // the shared object
  const char* symbol = nullptr;      // the function in it
  int argc;
  char** argv;  // what the function or the command gets; a null pointer ends it
  bool is_command() const { return !function && !path; }
};

constexpr const char* level_names[] = {nullptr,   nullptr, "critical", "error",
                                       "warning", nullptr, "info",     "debug"};
static_assert(LOG_CRIT == 2 && LOG_ERR == 3 && LOG_WARNING == 4 && LOG_INFO == 6 && LOG_DEBUG == 7);

// Replaces control characters, which would break a line. Returns the end of the text.
char* make_printable(char* text) {
  for (; *text; text++)
    if (static_cast<unsigned char>(*text) < ' ' || *text == 127) *text = '?';
  return text;
}

// Says in one line why forkd, which has not started anything, ends with that status.
[[noreturn, gnu::format(printf, 2, 3)]] void fail(int status, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  make_printable(text);
  fprintf(stderr, "forkd: %s%s\n", text, status == exit_usage ? " (see 'forkd --help')" : "");
  exit(status);
}

// A decimal number from 1 to `highest`, or -1. strtol(3) alone would accept blanks and signs.
int parse_number(const char* text, int highest) {
  char* end;
  const long number = strtol(text, &end, 10);
  const bool good = *text >= '0' && *text <= '9' && !*end && number >= 1 && number <= highest;
  return good ? static_cast<int>(number) : -1;
}

constexpr double longest_seconds = 1e9;
// Seconds to milliseconds. A positive time stays positive, since 0 means never or for ever.
Ms to_ms(double seconds) { return seconds > 0 ? max(1, static_cast<Ms>(seconds * 1000)) : 0; }

// The functions that take an option's argument return null, or what would be right.
template <Ms Options::*member>
const char* take(Options& options, const char* text) {
  char* end;
  const double seconds = strtod(text, &end);
  // strtod(3) alone would accept blanks, signs, exponents, hexadecimal digits and infinity.
  if (end == text || *end || text[strspn(text, "0123456789.")] || seconds > longest_seconds)
    return "must be seconds from 0 to 1000000000, such as 8 or 0.5";
  options.*member = to_ms(seconds);
  return nullptr;
}
template <const char* Options::*member>
const char* take(Options& options, const char* text) {
  options.*member = text;
  return nullptr;
}
const char* take_workers(Options& options, const char* text) {
  options.workers = parse_number(text, max_workers);
  return options.workers > 0 ? nullptr : "must be a whole number from 1 to 1024";
}
const char* take_level(Options& options, const char* text) {
  int& level = options.log_level;
  for (level = LOG_DEBUG; level >= LOG_CRIT; level--)
    if (level_names[level] && strcmp(text, level_names[level]) == 0) return nullptr;
  return "must be debug, info, warning, error or critical";
}

// Numbers only: the master must not wait for a resolver.
const char* take_address(Options&, const char* text) {
  if (address_count == max_addresses) fail(exit_usage, "more than %d addresses", max_addresses);
  Address& address = addresses[address_count++];
  address.text = text;
  if (strchr(text, '/')) {
    sockaddr_un& name = address.name.path;
    if (strlen(text) >= sizeof name.sun_path)
      fail(exit_usage, "wrong --bind '%s': the path of a socket has at most %zu bytes", text,
           sizeof name.sun_path - 1);
    address.size = sizeof name;
    name.sun_family = AF_UNIX;
    strcpy(name.sun_path, text);
    return nullptr;
  }
  const char* colon = strrchr(text, ':');
  const size_t length = colon ? static_cast<size_t>(colon - text) : 0;
  char host[INET6_ADDRSTRLEN + 2] = "";
  bool good = colon && length < sizeof host;
  if (good) memcpy(host, text, length);
  const int port = good ? parse_number(colon + 1, 65535) : -1;
  address.all = length == 0;
  if (address.all || (host[0] == '[' && host[length - 1] == ']')) {
    sockaddr_in6& name = address.name.v6;
    address.size = sizeof name;
    name.sin6_family = AF_INET6;
    name.sin6_port = htons(static_cast<in_port_t>(port));
    if (!address.all) host[length - 1] = '\0';
    good = good && (address.all || inet_pton(AF_INET6, host + 1, &name.sin6_addr) == 1);
  } else {
    sockaddr_in& name = address.name.v4;
    address.size = sizeof name;
    name.sin_family = AF_INET;
    name.sin_port = htons(static_cast<in_port_t>(port));
    good = good && inet_pton(AF_INET, host, &name.sin_addr) == 1;
  }
  if (!good) return "must be V4:PORT, [V6]:PORT, :PORT (numbers, not names) or a path with a slash";
  return port > 0 ? nullptr : "the port must be a number from 1 to 65535";
}

// Ends after output. A full disk or a closed pipe is a failure, so that a script notices.
[[noreturn]] void exit_after_output() {
  exit(fflush(stdout) != 0 || ferror(stdout) ? exit_failed : 0);
}

[[noreturn]] const char* print_help(Options&, const char*);
[[noreturn]] const char* print_version(Options&, const char*) {
  printf("forkd %s\n", version);
  exit_after_output();
}

// The only list of options.
constexpr struct Choice {
  char letter;  // 0: none
  const char* name;
  const char* argument;  // its name; null: the option takes none
  const char* (*take)(Options&, const char* argument);
  const char* help;
} choices[] = {
    {'b', "bind", "ADDRESS", take_address, "listen there, and hand the socket to every worker"},
    {'c', "canary", "SECONDS", take<&Options::canary>, "how much longer new code is tried (0)"},
    {'g', "grace", "SECONDS", take<&Options::grace>, "until a shutdown kills; 0: for ever (8)"},
    {'h', "help", nullptr, print_help, "show this"},
    {'l', "log-level", "LEVEL", take_level, "debug, info, warning, error or critical (info)"},
    {'n', "num-workers", "N", take_workers, "initial number of workers, 1 to 1024 (1)"},
    {'s', "state", "FILE", take<&Options::state>, "keep the state of the pool in FILE"},
    {'t', "timeout", "SECONDS", take<&Options::timeout>, "replace a hung worker; 0: never (0)"},
    {'V', "version", nullptr, print_version, "show the version"},
    {'w', "warm-up", "SECONDS", take<&Options::warm_up>, "time for a worker to set itself up (8)"},
    {0, "reload", "FILE", take<&Options::reload>, "make the forkd with -s FILE reload, and wait"},
};

[[noreturn]] const char* print_help(Options&, const char*) {
  printf("usage: forkd [option ...] worker [argument ...]\n"
         "       forkd --reload file\n\n"
         "Keep a pool of worker processes alive. A worker is PATH:SYMBOL, a function in a\n"
         "shared object, or a command. In parentheses: the defaults.\n\n");
  for (const Choice& choice : choices) {
    const char letter[] = {'-', choice.letter, ',', '\0'};
    char form[32];
    snprintf(form, sizeof form, "--%s %s", choice.name, choice.argument ? choice.argument : "");
    printf("  %3s %-21s %s\n", choice.letter ? letter : "", form, choice.help);
  }
  printf("\nUSR1 adds a worker, USR2 removes one, HUP tries new code and then replaces the\n"
         "workers; INT, QUIT and TERM shut down, a second one kills. See forkd(1).\n");
  exit_after_output();
}

Options parse_options(int argc, char** argv) {
  constexpr int long_values = 0x110000;  // added to the index: above all characters
  constexpr int count = sizeof choices / sizeof *choices;
  // '+': options end at the first operand. ':': a missing argument is reported as ':', not as '?'.
  char letters[2 * count + 3] = "+:", *end = letters + 2;
  option long_options[count + 1] = {};
  for (int i = 0; i < count; i++) {
    const Choice& choice = choices[i];
    if (choice.letter) *end++ = choice.letter;
    if (choice.letter && choice.argument) *end++ = ':';
    long_options[i] = {choice.name, choice.argument ? required_argument : no_argument, nullptr,
                       long_values + i};
  }
  Options options;
  opterr = 0;
  for (int c; (c = getopt_long(argc, argv, letters, long_options, nullptr)) != -1;) {
    if (c == ':') fail(exit_usage, "option '%s' needs an argument", argv[argc - 1]);
    // A short option may be part of a group (-xh), so name only its letter.
    if (c == '?' && optopt != 0 && optopt < long_values)
      fail(exit_usage, "unknown option '-%c'", optopt);
    const char* form = optopt ? "option '%.*s' takes no value" : "unknown option '%.*s'";
    const char* word = argv[optind - 1];
    if (c == '?') fail(exit_usage, form, static_cast<int>(strcspn(word, "=")), word);
    for (const Choice& choice : choices) {
      if (c != choice.letter && c != long_values + (&choice - choices)) continue;
      const char* wrong = choice.take(options, optarg);
      if (wrong) fail(exit_usage, "wrong --%s '%s': %s", choice.name, optarg, wrong);
    }
  }
  return options;
}

// Converts the options of forkd_run. False: one is out of range.
bool convert(const forkd_options& given, Options& options) {
  const auto good = [](double seconds) { return seconds >= 0 && seconds <= longest_seconds; };
  if (!good(given.grace) && !(given.grace < 0)) return false;
  if (!good(given.timeout) || !good(given.warm_up) || !good(given.canary)) return false;
  options.timeout = to_ms(given.timeout);
  options.canary = to_ms(given.canary);
  if (given.grace != 0) options.grace = to_ms(given.grace);
  if (given.warm_up != 0) options.warm_up = to_ms(given.warm_up);
  if (given.num_workers != 0) options.workers = given.num_workers;
  if (given.log_level != 0) options.log_level = given.log_level;
  return options.workers >= 1 && options.workers <= max_workers && options.log_level >= LOG_CRIT &&
         options.log_level <= LOG_DEBUG && level_names[options.log_level];
}

Job parse_job(int argc, char** argv) {
  if (argc == 0 || !*argv[0]) fail(exit_usage, "no worker: give PATH:SYMBOL, or a command");
  Job job{.spec = argv[0], .argc = argc, .argv = argv};
  const size_t size = strlen(job.spec);
  const char* colon = strrchr(job.spec, ':');
  if (!colon && size >= 3 && strcmp(job.spec + size - 3, ".so") == 0)
    fail(exit_usage, "worker '%s' names no function: give %s:SYMBOL", job.spec, job.spec);
  if (!colon) return job;
  if (colon == job.spec || !colon[1])
    fail(exit_usage, "worker '%s' has an empty %s: give PATH:SYMBOL", job.spec,
         colon[1] ? "path" : "symbol");
  // dlopen(3) searches the library path for a name without a slash.
  static char path[PATH_MAX];
  const int length = static_cast<int>(colon - job.spec);
  const bool bare = memchr(job.spec, '/', static_cast<size_t>(length)) == nullptr;
  if (snprintf(path, sizeof path, "%s%.*s", bare ? "./" : "", length, job.spec) >= PATH_MAX)
    fail(exit_usage, "the path of a worker has at most %d bytes: '%s'", PATH_MAX - 1, job.spec);
  job.path = path;
  job.symbol = colon + 1;
  return job;
}

// ---- Descriptors --------------------------------------------------------------------------------

// The shared object that workers load: the file, which the master keeps open.
struct Code {
  int number = 0;  // each pin() gives a new one
  int fd = -1;
  unsigned long long nonblocking = 0;  // see nonblocking_sockets()
  struct stat file {};
};

Code pool_code;   // what the pool runs
Code trial_code;  // what a reload tries
Code other_code;  // during a roll: the code that it leads away from
// The descriptors that the master needs for itself; -1: not open. Workers close them all.
int wake_read = -1, wake_write = -1;  // the self-pipe
int log_again = -1;                   // a non-blocking description of standard error
int notify_fd = -1;                   // the socket for messages to the service manager
int state_fd = -1;                    // the file of -s, locked
int* const own[] = {&wake_read, &wake_write,   &log_again,     &notify_fd,
                    &state_fd,  &pool_code.fd, &trial_code.fd, &other_code.fd};

int socket_count;   // the workers' sockets, from first_socket on
int given_sockets;  // the first of them, which are the service manager's

void close_own(int& fd) {
  if (fd >= 0) close(fd);
  atomic_store(fd, -1);
}
void close_all_own() {
  for (int* fd : own) close_own(*fd);
}

// Moves a descriptor above those that workers expect, with close-on-exec. False, with errno.
bool keep_own(int& kept, int fd) {
  if (fd < 0) return false;
  close_own(kept);
  atomic_store(kept, fcntl(fd, F_DUPFD_CLOEXEC, first_socket + socket_count));
  const KeepErrno keep;
  close(fd);
  return kept >= 0;
}

// Opens those of 0, 1 and 2 that are closed. Otherwise the next file that a worker opens would get
// the number, and the worker's output. Where there is no /dev/null, / stands in for it.
void keep_standard_descriptors() {
  for (int fd = 0; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) open("/", O_RDONLY);
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
bool leads_to(const char* path, const struct stat& file) {
  struct stat is;
  return stat(path, &is) == 0 && same_file(is, file);
}

// Writes a byte into a non-blocking pipe. If it is full, it is readable already.
void write_byte(int pipe) { (void)!write(pipe, "", 1); }

// ---- Differences between systems ----------------------------------------------------------------

// Resets getopt(3) for the workers, which find it as in a fresh main.
void reset_getopt() {
  opterr = 1;
#ifdef __linux__
  optind = 0;  // not 1: glibc and musl reset the position within an argument and the order, too
#else
  optind = 1;
  optreset = 1;
#endif
}

#ifdef FORKD_LINUX
// A pipe that never blocks and that no program executed later inherits. False, with errno.
bool open_pipe(int ends[2]) { return pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0; }

// Opens the file behind standard error again, with flags of its own. -1: impossible.
int reopen_standard_error() {
  return open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

// The name of a worker's process in ps(1), the kernel's log and core files.
void format_process_name(char (&name)[32], const char* program, int number) {
  char suffix[16];
  const int length = snprintf(suffix, sizeof suffix, "-%d", number);
  snprintf(name, sizeof name, "%.*s%s", 15 - length,  // prctl(2) keeps 15 bytes
           program ? program : program_invocation_short_name, suffix);
}
void name_process(const char* name) { prctl(PR_SET_NAME, name); }

constexpr bool is_linux = true;
// Has the kernel send TERM to this process when its parent dies. False, with errno.
bool watch_parent() { return prctl(PR_SET_PDEATHSIG, SIGTERM) == 0; }

// A worker loads code by the path while that leads to the file; else by the name that the file has
// now, so that $ORIGIN works; else by the descriptor, which then stays open. (Not /proc/self/fd/N:
// a debugger would get its own descriptor N. The pid comes from /proc, not getpid(2), because /proc
// may show another PID namespace.) Without /proc: by the path.
const char* find_name(const char* path, Code& code, char (&buffer)[PATH_MAX]) {
  if (!leads_to(path, code.file)) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", code.fd);
    const bool has_proc = leads_to(link, code.file);
    if (has_proc && realpath(link, buffer) && leads_to(buffer, code.file))
      path = buffer;
    else if (has_proc && realpath("/proc/self", buffer))
      return strcat(buffer, link + strlen("/proc/self"));
  }
  close_own(code.fd);
  return path;
}
#else
bool open_pipe(int ends[2]) {
  if (pipe(ends) != 0) return false;
  for (int i = 0; i < 2; i++)
    if (fcntl(ends[i], F_SETFL, O_NONBLOCK) != 0 || fcntl(ends[i], F_SETFD, FD_CLOEXEC) != 0)
      return false;
  return true;
}
int reopen_standard_error() { return -1; }  // a descriptor from /dev/fd/2 shares the flags
void format_process_name(char (&)[32], const char*, int) {}
void name_process(const char*) {}
constexpr bool is_linux = false;  // so forkd_yield() looks at the parent's pid
bool watch_parent() { return true; }
const char* find_name(const char* path, Code& code, char (&)[PATH_MAX]) {
  close_own(code.fd);
  return path;
}
#endif

// ---- Log ----------------------------------------------------------------------------------------

pid_t master_pid;
// Workers and the caller share standard error, so forkd must not make it non-blocking. It writes to
// `log_again`; to a socket by send(2), which can be told not to block; and to a pipe or terminal
// that cannot be opened again after poll(2). A file never blocks.
bool log_is_socket, log_needs_poll;
bool log_is_journal;         // systemd.exec(5)
int log_level = LOG_INFO;    // the least important level that is written
unsigned dropped_lines = 0;  // lost, and not yet reported
bool line_is_open = false;   // only part of the last line was written

void open_log() {
  struct stat is {};
  fstat(STDERR_FILENO, &is);
  log_is_socket = S_ISSOCK(is.st_mode);
  log_needs_poll = (S_ISFIFO(is.st_mode) || S_ISCHR(is.st_mode)) &&
                   !keep_own(log_again, reopen_standard_error());
  const char* stream = getenv("JOURNAL_STREAM");
  char named[64];
  snprintf(named, sizeof named, "%llu:%llu", static_cast<unsigned long long>(is.st_dev),
           static_cast<unsigned long long>(is.st_ino));
  log_is_journal = stream && strcmp(stream, named) == 0;
}

// Begins a line: process and level. The journal knows the process, and takes the level as a number.
int print_prefix(char* text, size_t size, int level) {
  return log_is_journal ? snprintf(text, size, "<%d>", level)
                        : snprintf(text, size, "forkd[%d]: %s: ", master_pid, level_names[level]);
}
ssize_t write_line(const char* text, size_t length) {
  pollfd out{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (log_is_socket) return send(out.fd, text, length, MSG_DONTWAIT);
  // macOS cannot poll terminals and /dev/null, and calls them invalid.
  if (log_needs_poll && (poll(&out, 1, 0) != 1 || !(out.revents & (POLLOUT | POLLNVAL)))) return -1;
  return write(log_again >= 0 ? log_again : out.fd, text, length);
}

// Never fails: a line that standard error does not take at once is dropped and counted, and the
// next one begins with the count. A pipe takes PIPE_BUF bytes whole or not at all (POSIX, write). A
// terminal, a socket or a full disk may take part of a line: the next one then ends it.
[[gnu::format(printf, 2, 3)]] void log_event(int level, const char* format, ...) {
  if (level > log_level) return;
  char text[PIPE_BUF < 1280 ? PIPE_BUF : 1280];
  char* end = text;
  if (line_is_open) *end++ = '\n';
  if (dropped_lines > 0) {
    end += print_prefix(end, 64, LOG_WARNING);
    end += snprintf(end, 64, "%u log lines were dropped\n", dropped_lines);
  }
  end += print_prefix(end, 64, level);
  va_list args;
  va_start(args, format);
  vsnprintf(end, static_cast<size_t>(text + sizeof text - end), format, args);
  va_end(args);
  end = make_printable(end);
  *end++ = '\n';  // replaces the null byte
  const auto length = static_cast<size_t>(end - text);
  const ssize_t written = write_line(text, length);
  dropped_lines = written > 0 ? 0 : dropped_lines + 1;
  if (written > 0) line_is_open = static_cast<size_t>(written) < length;
}

// ---- Sockets ------------------------------------------------------------------------------------

// The sockets live as long as the master, so no connection is refused while workers come and go.
// Only execute() passes them on: what a worker leaves behind does not hold the port.

// Counts the sockets, before the master opens any descriptor of its own: those lie above them.
void count_sockets() {
  const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
  if (pid && count && strtol(pid, nullptr, 10) == getpid())
    given_sockets = static_cast<int>(max(0, min(strtol(count, nullptr, 10), INT_MAX / 2)));
  socket_count = given_sockets + address_count;
}

// Binds and listens. -1 with errno.
int listen_on(const Address& address) {
  const int family = address.name.any.sa_family;
  const int fd = socket(family, SOCK_STREAM, 0);
  const int on = 1, only = !address.all;
  if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
      (family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) == 0) &&
      bind(fd, &address.name.any, address.size) == 0 && listen(fd, SOMAXCONN) == 0)
    return fd;
  const int reason = errno;
  if (fd >= 0) close(fd);
  errno = reason;
  // No IPv6 in the kernel or in this namespace, or no socket for both (EINVAL, OpenBSD): IPv4 only.
  const bool no_v6 = reason == EAFNOSUPPORT || reason == EADDRNOTAVAIL || reason == EINVAL;
  if (!address.all || !no_v6) return -1;
  Address v4{.text = address.text, .name = {}, .size = sizeof(sockaddr_in), .all = false};
  v4.name.v4 = {};
  v4.name.v4.sin_family = AF_INET;
  v4.name.v4.sin_port = address.name.v6.sin6_port;
  return listen_on(v4);
}

// Whether this is a socket file that a dead process has left: nothing listens there, so it refuses.
bool is_stale(const Address& address) {
  const KeepErrno keep;
  struct stat is;
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return false;
  fcntl(fd, F_SETFL, O_NONBLOCK);  // a full queue must not hold forkd up
  const bool refused = connect(fd, &address.name.any, address.size) != 0 && errno == ECONNREFUSED;
  close(fd);
  return refused && lstat(address.text, &is) == 0 && S_ISSOCK(is.st_mode);
}

int listen_on_path(Address& address) {
  int fd = listen_on(address);
  if (fd < 0 && errno == EADDRINUSE && is_stale(address) && unlink(address.text) == 0)
    fd = listen_on(address);
  if (fd >= 0) lstat(address.text, &address.file);
  return fd;
}

void remove_socket_files() {
  struct stat is;
  for (const Address& made : addresses)
    if (made.file.st_ino && lstat(made.text, &is) == 0 && same_file(is, made.file))
      unlink(made.text);
}

// Why an address could not be opened, with a hint where errno alone would mislead.
const char* listen_error(const Address& address, int reason) {
  const bool is_path = address.name.any.sa_family == AF_UNIX;
  struct stat is;
  if (is_path && reason == EADDRINUSE && lstat(address.text, &is) == 0 && !S_ISSOCK(is.st_mode))
    return "the file exists and is not a socket";
  const int port = is_path ? 0 : atoi(strrchr(address.text, ':') + 1);
  if (!is_path && reason == EACCES && port < IPPORT_RESERVED)
    return "a port below 1024 needs CAP_NET_BIND_SERVICE";
  return strerror(reason);
}

// Opens the sockets and sets the variables that describe them. False on failure, already reported.
bool open_sockets() {
  for (int i = 0; i < socket_count; i++) {
    const int place = first_socket + i;
    Address* address = i < given_sockets ? nullptr : &addresses[i - given_sockets];
    const bool is_path = address && address->name.any.sa_family == AF_UNIX;
    const int fd = !address ? place : is_path ? listen_on_path(*address) : listen_on(*address);
    // What is open in its place is closed: sd_listen_fds(3) fixes the numbers.
    if (fd < 0 || (fd != place && dup2(fd, place) < 0)) {
      log_event(LOG_CRIT, "cannot listen on %s: %s", address->text, listen_error(*address, errno));
      return false;
    }
    if (fd != place) close(fd);
    if (fcntl(place, F_SETFD, FD_CLOEXEC) != 0) {
      log_event(LOG_CRIT, "LISTEN_FDS is %d, but descriptor %d is not open", given_sockets, place);
      return false;
    }
  }
  // The inherited values are for another process, but a worker might happen to get that pid.
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_PIDFDID");
  if (address_count > 0 || socket_count == 0) unsetenv("LISTEN_FDNAMES");  // it names too few
  char text[16];
  snprintf(text, sizeof text, "%d", socket_count);
  return (socket_count > 0 ? setenv("LISTEN_FDS", text, 1) : unsetenv("LISTEN_FDS")) == 0;
}

// Revives TCP sockets: a worker's shutdown(2) ends one for all.
void listen_again() {
  for (int i = given_sockets; i < socket_count; i++) listen(first_socket + i, SOMAXCONN);
}

// O_NONBLOCK belongs to all that share a socket. Before the master tries new code it notes which
// have it, a bit for each of the first 64, and restores that when the code has failed.
unsigned long long nonblocking_sockets() {
  unsigned long long bits = 0;
  for (int i = 0; i < min(socket_count, 64); i++)
    if (fcntl(first_socket + i, F_GETFL) & O_NONBLOCK) bits |= 1ULL << i;
  return bits;
}
void restore_sockets(unsigned long long bits) {
  for (int i = 0; i < min(socket_count, 64); i++) {
    const int flags = fcntl(first_socket + i, F_GETFL) & ~O_NONBLOCK;
    fcntl(first_socket + i, F_SETFL, bits >> i & 1 ? flags | O_NONBLOCK : flags);
  }
}

// ---- Signals and the self-pipe ------------------------------------------------------------------

enum Event { OnChild, OnStop, OnGrow, OnShrink, OnReload, Nothing, event_count };
void on_request(int number);  // a function worker's handler: it ends at its next yield
void leave_pool_on_fork();    // the fork handler

// clang-format off
const struct {
  int number;
  Event event;             // Nothing: the master ignores it
  void (*in_worker)(int);  // in a function worker; null: the caller's action
  int flags;               // sa_flags of in_worker
} signal_table[] = {
    {SIGCHLD, OnChild, nullptr, 0},  // must be first: see begin_pool()
    {SIGINT, OnStop, on_request, SA_RESTART},
    {SIGQUIT, OnStop, on_request, SA_RESTART},
    {SIGTERM, OnStop, on_request, 0},
    {SIGUSR1, OnGrow, SIG_IGN, 0},
    {SIGUSR2, OnShrink, SIG_IGN, 0},
    {SIGHUP, OnReload, on_request, SA_RESTART},
    {SIGPIPE, Nothing, nullptr, 0},
    {SIGTTOU, Nothing, nullptr, 0},
    {SIGXFSZ, Nothing, nullptr, 0},  // if the log is a file at its limit (setrlimit(2))
};
// clang-format on
constexpr int signal_count = sizeof signal_table / sizeof *signal_table;
struct sigaction caller_action[signal_count];  // as before forkd, in the order of the table
sigset_t caller_mask;
int arrived[event_count];  // how often each arrived since the master last consumed it
int woken;                 // 1: a byte is in the self-pipe, or about to be
unsigned first_stop_at;    // monotonic_ms() of the first INT, QUIT or TERM, cut to 32 bits
int stop_requests;         // 1 from then on; 2 when another came too late to be an echo of it

// Called by the handler: the time of arrival counts, and the loop may be late.
void note_stop_signal() {
  const unsigned at = static_cast<unsigned>(monotonic_ms());
  if (stop_requests > 0 && at - first_stop_at < echo_time) return;
  if (stop_requests == 0) first_stop_at = at;
  atomic_store(stop_requests, stop_requests == 0 ? 1 : 2);
}

// The counters record the signals and the byte only ends the wait, so a full pipe loses nothing.
void count_signal(int number) {
  const KeepErrno keep;
  for (const auto& entry : signal_table) {
    if (entry.number != number) continue;
    if (entry.event == OnStop) note_stop_signal();
    __atomic_fetch_add(&arrived[entry.event], 1, __ATOMIC_RELAXED);
  }
  // Without a pipe yet: wait_until() checks `woken` before it waits.
  if (!__atomic_exchange_n(&woken, 1, __ATOMIC_SEQ_CST) && wake_write >= 0) write_byte(wake_write);
}

int consume(Event event) { return __atomic_exchange_n(&arrived[event], 0, __ATOMIC_SEQ_CST); }
bool set_action(int number, void (*handler)(int), int flags, struct sigaction* before = nullptr) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags | SA_ONSTACK;  // the code may run on a small stack (a coroutine)
  sigfillset(&action.sa_mask);
  return sigaction(number, &action, before) == 0;
}

// Installs the handlers, even where the caller ignored or blocked a signal. False, with errno.
bool become_master() {
  master_pid = getpid();
  // Once for the process: in each worker the call would cost page faults.
  static bool registered;
  errno = registered ? 0 : pthread_atfork(nullptr, nullptr, leave_pool_on_fork);
  if (errno) return false;
  registered = true;
  arrived[OnChild] = 1;  // a child may have ended before
  pthread_sigmask(SIG_SETMASK, nullptr, &caller_mask);
  sigset_t handled;
  sigemptyset(&handled);
  for (int i = 0; i < signal_count; i++) {
    const auto& entry = signal_table[i];
    const auto handler = entry.event == Nothing ? SIG_IGN : count_signal;
    sigaddset(&handled, entry.number);
    if (set_action(entry.number, handler, SA_RESTART | SA_NOCLDSTOP, &caller_action[i])) continue;
    const KeepErrno keep;
    while (i-- > 0) sigaction(signal_table[i].number, &caller_action[i], nullptr);
    return false;
  }
  return pthread_sigmask(SIG_UNBLOCK, &handled, nullptr) == 0;
}
void restore_handlers() {
  for (int i = 0; i < signal_count; i++)
    sigaction(signal_table[i].number, &caller_action[i], nullptr);
  pthread_sigmask(SIG_SETMASK, &caller_mask, nullptr);
}

// ---- The process table --------------------------------------------------------------------------

enum class Phase : int {
  Starting,  // forked, its code not loaded yet
  Loaded,    // about to enter the function, or to execute the command
  Failed,    // could not get that far; the reason is in `start_error`
};

// What a worker is asked to do. End is final.
enum class Request : int {
  None,
  WhenRoom,    // it is old: end at a yield that finds room
  TakingRoom,  // it is old, and looking for room in a yield right now
  End,         // end at the next yield, or it has taken room and is ending
};

// Each worker has a cache line of its own: one that yields all the time does not slow the others.
struct alignas(64) Line {
  Request request;       // written by the master, the worker and the worker's signal handler
  int has_stop_fd;       // 1: it may wait in poll(2), so a request is also sent as HUP
  Phase phase;           // written by the worker
  unsigned long yields;  // written by the worker
};

constexpr int extra_count = 8;  // for the extra workers of reloads, behind all numbers
constexpr int slot_count = max_workers + extra_count;
constexpr size_t start_error_size = 1024;

struct Shared {
  alignas(64) int room;   // how many old workers may end: the master sets it, each takes one
  Line line[slot_count];  // by worker number
  char start_error[slot_count][start_error_size];  // untouched pages cost nothing
};
Shared* shared;  // mapped by the master, inherited by the workers

// See tend() for what leads from one to the next.
enum class State : unsigned char {
  Empty,     // no process, and none wanted
  Waiting,   // no process; one is to be started when it is due
  Running,   // a process; its line says what it has been asked to do
  Aborted,   // a process that was sent SIGABRT because it did not yield; SIGKILL follows
  Killed,    // a process that was sent SIGKILL
  Immune,    // a process that SIGKILL could not be sent to: a shutdown does not wait for it
  Leftover,  // no process, but some of the group that a command has led
};

// What the process before has shown of the code that the next one runs: Worked, when it returned 0
// without a request; Briefly, when it did so in its first second, or before it was found healthy.
enum class Past : unsigned char { Nothing, Worked, Briefly };

// A worker number. Times are 0 until they are known. A start keeps failures, past and start_at.
struct Slot {
  State state = State::Empty;
  bool healthy = false;  // the process has been found healthy, by tend()
  Past past = Past::Nothing;
  int failures = 0;          // in a row
  int code = 0;              // the number of the code that the process runs, or ran
  pid_t pid = 0;             // of the process; 0: none
  pid_t group = 0;           // Leftover: the group
  Ms started = 0;            // when the last fork was tried
  Ms loaded_at = 0;          // when tend() first saw that the code was loaded
  Ms yielded_at = 0;         // when it first saw a yield
  Ms asked_at = 0;           // when it first saw that the process had been asked to end
  Ms progress_at = 0;        // with a timeout: when it last saw `yields` change
  unsigned long yields = 0;  // with a timeout: the count of yields at that time
  Ms start_at = 0;           // Waiting, Leftover: when to fork
  Ms kill_at = 0;            // Aborted, Leftover: when to kill
};
Slot slots[slot_count];
int number_of(const Slot& slot) { return static_cast<int>(&slot - slots); }
Line& line_of(const Slot& slot) { return shared->line[number_of(slot)]; }
Request request_to(const Slot& slot) { return atomic_load(line_of(slot).request); }

// How the pool changes its code, when that has passed a trial.
enum class Roll {
  None,       // not at all: all numbers run the pool's code
  Forward,    // old workers are replaced, a few at a time
  TryingOld,  // the previous code is the pool's again: nobody is let go until it passes a trial
  Back,       // it has passed: workers on the failed code are replaced, a few at a time
  Stuck,      // no way back, or it has failed: nobody is let go until the next reload
};

// How the last reload that HUP asked for is going.
enum class Stage { None, Trial, Rolling, Complete, Failed };

struct Reload {
  int count = 0;              // HUPs acted on
  Stage stage = Stage::None;  // of the last of these
  char reason[256] = "";      // Failed: why
  Slot* trial = nullptr;      // the slot of the worker on trial; null: no trial
  bool tries_old = false;     // it tries the pool's code, to which the pool goes back
  Ms trial_since = 0;         // when the trial was asked for
  Ms passes_at = never;       // when it will have passed; never: its worker is not healthy yet
  Roll roll = Roll::None;
  Slot* helper = nullptr;  // the slot of the worker that helps in the roll; null: no roll
  Ms roll_since = 0;       // when the roll was asked for
  int renewed = 0;         // Census::renewed when the roll made its last step
  Ms tell_at = never;      // when to say for which numbers it waits, unless that changes
};

struct Shutdown {
  bool begun = false;
  Ms since = 0;         // when it began
  Ms nudge_at = never;  // when to signal the workers that are still there
  Ms kill_at = never;   // when to kill them
  int status = 0;       // the exit status
};

struct Pool {
  Job job;
  Options options{};
  bool reaps_all = true;      // also children that are not workers
  int target = 0;             // worker numbers below it are wanted
  bool ever_healthy = false;  // a worker has been healthy: the master never gives up
  int fork_failures = 0;      // in a row
  Ms fork_at = 0;             // after fork failed: no new try before this
  Ms look_at = 0;             // when the next turn of the loop is due
  Reload reload{};
  Shutdown shutdown{};
} pool;

bool goes_back() { return pool.reload.roll == Roll::TryingOld || pool.reload.roll == Roll::Back; }
const char* stage_name() {
  constexpr const char* names[] = {"none", "trial", "roll", "complete", "failed"};
  const Stage stage = pool.reload.stage;
  return stage == Stage::Failed && goes_back() ? "back" : names[static_cast<int>(stage)];
}

void look_again(Ms at) { pool.look_at = min(pool.look_at, at); }
bool is_below_target(const Slot& slot) { return number_of(slot) < pool.target; }
bool is_wanted(const Slot& slot) {
  return !pool.shutdown.begun &&
         (is_below_target(slot) || &slot == pool.reload.trial || &slot == pool.reload.helper);
}

// The code that a slot's next process loads.
Code& code_for(const Slot& slot) {
  return &slot == pool.reload.trial && !pool.reload.tries_old ? trial_code : pool_code;
}
bool runs_pools_code(const Slot& slot) { return slot.code == pool_code.number; }
// Whether somebody healthy works under a number. Code that does one task and returns 0 shows its
// health only when it ends: believe it from then on, as long as processes can be started.
bool is_at_work(const Slot& slot) {
  return slot.healthy || (slot.past == Past::Briefly && pool.fork_failures == 0);
}
// Whether the pool's code has proved itself there. Those that return 0 are never healthy together.
bool is_renewed(const Slot& slot) {
  return runs_pools_code(slot) && (slot.healthy || slot.past != Past::Nothing);
}

// How long a worker has to run before it is healthy without a yield. execve(2) may fail late.
Ms warm_up() {
  return pool.job.is_command() ? max(pool.options.warm_up, exec_time) : pool.options.warm_up;
}
// The grace period, or its default if it is for ever.
Ms finite_grace() { return pool.options.grace ? pool.options.grace : Options{}.grace; }

// ---- Room: how a roll lets old workers go -------------------------------------------------------

// In each turn the master closes the room, counts the numbers without a working process, and opens
// as much room as is left, see advance_roll(). A worker first marks itself as TakingRoom, then
// takes room. This needs no lock: a worker that took room before the master closed it is marked,
// and so counted; one that marks itself later can only take room that is opened after the count.
// If a worker dies after it took room, its number counts as vacant.

// The worker's half, called by forkd_yield().
bool take_room(Request& request) {
  int& room = shared->room;
  if (atomic_load(room) <= 0 || !atomic_replace(request, Request::WhenRoom, Request::TakingRoom))
    return false;
  for (int places; (places = atomic_load(room)) > 0;)
    if (atomic_replace(room, places, places - 1)) return true;
  // No room was left. Falls back, unless it has been asked to end meanwhile.
  atomic_replace(request, Request::TakingRoom, Request::WhenRoom);
  return false;
}

// ---- The worker ---------------------------------------------------------------------------------

bool running;  // this process is a master, until release_pool(), or a worker
// What this process is. All in one place, since a worker copies each page that it writes to.
struct Self {
  Line* line = nullptr;  // null: not a worker
  int number = -1;       // of the worker
  pid_t pid = 0;
  int stop_pipe[2] = {-1, -1};  // for forkd_stop_fd: the read end, and the write end
  struct stat stop_file {};     // of the pipe
  pthread_mutex_t stop_mutex = PTHREAD_MUTEX_INITIALIZER;  // held while stop_pipe is made
} self;

// False also when the worker has closed the stop descriptor and reused its number.
bool is_own_stop_pipe() {
  const int end = atomic_load(self.stop_pipe[1]);
  struct stat is;
  return end >= 0 && fstat(end, &is) == 0 && same_file(is, self.stop_file);
}
void write_stop_byte() {
  if (is_own_stop_pipe()) write_byte(self.stop_pipe[1]);
}

// The slow path of forkd_yield(). noinline keeps that short.
[[gnu::noinline]] int answer_request() {
  Request& request = self.line->request;
  if (take_room(request)) atomic_store(request, Request::End);
  if (atomic_load(request) != Request::End) return 1;
  write_stop_byte();  // the handler does it, too, but its signal may be late or blocked
  return 0;
}

// The worker's handler for HUP, INT, QUIT and TERM.
void on_request(int number) {
  const KeepErrno keep;
  if (getpid() == self.pid) {
    atomic_store(self.line->request, Request::End);
    return write_stop_byte();
  }
  // A child of the worker, made by vfork or clone without handlers.
  set_action(number, SIG_DFL, 0);
  kill(getpid(), number);  // not raise(3), which may signal the parent's thread
}

// Runs in the child after every fork. A worker's child is not a worker: each signal gets its
// default action back, unless the user's code has set its own handler.
void leave_pool_on_fork() {
  if (!self.line) return;
  for (const auto& entry : signal_table) {
    struct sigaction now;
    if (entry.in_worker && sigaction(entry.number, nullptr, &now) == 0 &&
        now.sa_handler == entry.in_worker)
      set_action(entry.number, SIG_DFL, 0);
  }
  if (is_own_stop_pipe()) close(self.stop_pipe[1]);
  self = {};  // the mutex, too: another thread of the parent may have held it
  socket_count = given_sockets = 0;
  running = false;
}

// Ends a process that could not become a worker, and tells the master why.
[[noreturn, gnu::format(printf, 1, 2)]] void fail_to_start(const char* format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(shared->start_error[self.number], start_error_size, format, args);
  va_end(args);
  atomic_store(self.line->phase, Phase::Failed);
  _exit(127);
}

// ---- The worker: from fork to its first task ----------------------------------------------------

// What differs between workers, on one page. The master formats all but the pid before each fork:
// in the worker that would cost page faults, of about 2 us each in a start that takes 90.
struct {
  char process_name[32];
  char number[sizeof "FORKD_WORKER=" + 10];
  char pid[sizeof "LISTEN_PID=" + 10];
} texts;
char** caller_environment;  // the list, as before the pool
char** worker_environment;  // the list that master and workers use

// The workers' environment is the caller's with the variables above, and without NOTIFY_SOCKET,
// since workers must not speak for the master. False, with errno: no memory.
bool make_environment() {
  size_t count = 0;
  while (environ && environ[count]) count++;
  char** end = worker_environment = static_cast<char**>(calloc(count + 3, sizeof *environ));
  if (!end) return false;
  for (size_t i = 0; i < count; i++)
    if (strncmp(environ[i], "NOTIFY_SOCKET=", 14) != 0 &&
        strncmp(environ[i], "FORKD_WORKER=", 13) != 0)
      *end++ = environ[i];
  *end++ = texts.number;
  if (socket_count > 0) *end = texts.pid;
  caller_environment = environ;
  environ = worker_environment;
  return true;
}

forkd_worker* load_function(const Job& job) {
  Code& chosen = code_for(slots[self.number]);
  Code code = chosen;
  chosen.fd = -1;
  close_all_own();  // all others; before dlopen, since a constructor may reuse the numbers
  char buffer[PATH_MAX];
  const char* name = find_name(job.path, code, buffer);
  struct stat root = {}, folder = {};
  const bool is_known =
      code.fd < 0 && leads_to(name, code.file) && stat("/", &root) == 0 && stat(".", &folder) == 0;
  const uid_t user = geteuid();
  // RTLD_GLOBAL: the code is the program here, and what it loads in turn may need its symbols.
  void* library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  // If the file was replaced meanwhile, either may have been loaded: leave it to a new process. If
  // a constructor has changed root, folder or user, names may lead elsewhere: this proves nothing.
  if (is_known && !leads_to(name, code.file) && leads_to("/", root) && leads_to(".", folder) &&
      geteuid() == user) {
    atomic_store(self.line->request, Request::End);
    _exit(0);
  }
  if (!library) fail_to_start("cannot load %s: %s", job.spec, dlerror());
  void* function = dlsym(library, job.symbol);
  if (!function)
    fail_to_start("cannot load %s: no function '%s' is exported (in C++ it needs extern \"C\")",
                  job.spec, job.symbol);
  return reinterpret_cast<forkd_worker*>(function);
}

[[noreturn]] void execute(char** argv) {
  for (int i = 0; i < socket_count; i++) fcntl(first_socket + i, F_SETFD, 0);
  execvp(argv[0], argv);
  const char* hint = errno != ENOENT         ? ""
                     : strchr(argv[0], '/')  ? ", or its interpreter is missing"
                     : access(argv[0], F_OK) ? " in PATH"
                                             : " in PATH; for the file here put ./ before it";
  fail_to_start("cannot execute '%s': %s%s", argv[0], strerror(errno), hint);
}

// Ignoring a signal discards a pending one: a USR1 or USR2 that came since the fork was meant for
// the master (pkill). A command then gets the original actions back.
void set_signals(bool is_command) {
  sigset_t mask = caller_mask;
  for (int i = 0; i < signal_count; i++) {
    const auto& entry = signal_table[i];
    if (entry.in_worker) set_action(entry.number, entry.in_worker, entry.flags);
    const bool is_ours = entry.in_worker && !is_command;
    if (is_ours) sigdelset(&mask, entry.number);
    if (!is_ours) sigaction(entry.number, &caller_action[i], nullptr);
  }
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

// The child's part of start(). All signals are blocked.
[[noreturn]] void become_worker(int number) {
  self = {.line = &shared->line[number], .number = number, .pid = getpid()};
  // Watch, then check: if the master died before watch_parent(), no signal will come. The check is
  // for its pid, since a parent of 1 proves nothing when the master is 1 (prctl(2), getppid(2)).
  if (!watch_parent()) fail_to_start("cannot set the parent-death signal: %s", strerror(errno));
  const pid_t parent = getppid();
  if (parent == 0)
    fail_to_start("the master is not in the PID namespace of its workers (unshare needs --fork)");
  if (parent != master_pid) _exit(0);
  if (socket_count > 0) snprintf(texts.pid, sizeof texts.pid, "LISTEN_PID=%d", self.pid);
  const Job& job = pool.job;
  if (job.is_command()) setpgid(0, 0);
  name_process(texts.process_name);
  if (job.function) reset_getopt();  // the application's; main() has reset the tool's
  set_signals(job.is_command());
  if (!job.path) close_all_own();
  forkd_worker* function = job.path ? load_function(job) : job.function;
  if (atomic_load(self.line->request) == Request::End) exit(0);  // begin no task
  atomic_store(self.line->phase, Phase::Loaded);
  if (function) exit(function(job.argc, job.argv));
  execute(job.argv);
}

// ---- The master: start, request and kill --------------------------------------------------------

Ms backoff(int failures) {
  return failures > 0 ? min(first_backoff << min(failures - 1, 10), longest_backoff) : 0;
}

// Schedules a start, at least start_interval after the last one.
void schedule_start(Slot& slot, Ms at) {
  slot.state = State::Waiting;
  slot.start_at = max(at, slot.started + start_interval);
  look_again(slot.start_at);
}

// Forks the worker. False, with errno: there is no process.
bool start(Slot& slot) {
  const int number = number_of(slot);
  line_of(slot) = {};  // before the fork: in the new process it could overwrite a request
  slot = {.state = State::Waiting,
          .past = slot.past,
          .failures = slot.failures,
          .code = code_for(slot).number,
          .started = clock_ms(),
          .start_at = slot.start_at};
  snprintf(texts.number, sizeof texts.number, "FORKD_WORKER=%d", number);
  format_process_name(texts.process_name, pool.job.function ? nullptr : "forkd", number);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) become_worker(number);
  const KeepErrno keep;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return false;
  if (pool.job.is_command()) setpgid(pid, pid);  // in both processes: either may run first
  slot.pid = pid;
  slot.state = State::Running;
  log_event(LOG_INFO, "worker %d (pid %d) started", number, pid);
  return true;
}

// Sends TERM, and CONT, since a stopped process would not act on TERM.
void terminate(pid_t pid) {
  kill(pid, SIGTERM);
  kill(pid, SIGCONT);
}

// Asks a worker, if there is one, to end at its next yield; its task goes on. An aborted worker may
// survive, so it is asked, too. At shutdown a command is asked even if it was asked before.
void request_end(Slot& slot) {
  if (slot.pid == 0 || slot.state == State::Killed) return;
  const bool is_command = pool.job.is_command();
  if (request_to(slot) == Request::End && !(is_command && pool.shutdown.begun)) return;
  log_event(LOG_DEBUG, "worker %d (pid %d) is asked to end", number_of(slot), slot.pid);
  // forkd_stop_fd() sets its flag and then looks at the request: one of the two sees the other.
  atomic_store(line_of(slot).request, Request::End);
  if (is_command) return terminate(slot.pid);
  if (atomic_load(line_of(slot).has_stop_fd)) kill(slot.pid, SIGHUP);
}

void retire(Slot& slot) {
  if (slot.state == State::Waiting) slot.state = State::Empty;
  request_end(slot);
}

// Kills a worker (a command: its process group). One that changed its user cannot be killed.
void kill_worker(Slot& slot, const char* why) {
  const bool sent = kill(slot.pid, SIGKILL) == 0;
  const int reason = errno;
  if (pool.job.is_command()) kill(-slot.pid, SIGKILL);  // the leader may have left its group
  // Ended but not reaped yet: kill(2) succeeds on Linux, and fails on macOS, NetBSD and OpenBSD.
  if (!sent && reason == ESRCH) return;
  log_event(sent ? LOG_WARNING : LOG_ERR, "worker %d (pid %d) %s and %s%s", number_of(slot),
            slot.pid, why, sent ? "is killed" : "cannot be killed: ", sent ? "" : strerror(reason));
  slot.state = sent ? State::Killed : State::Immune;
}

// ---- The master: shutdown -----------------------------------------------------------------------

void begin_shutdown(Ms now, int status) {
  pool.reload.trial = pool.reload.helper = nullptr;
  pool.reload.roll = Roll::None;
  pool.shutdown = {.begun = true,
                   .since = now,
                   .nudge_at = pool.job.is_command() ? never : now + finite_grace() / 2,
                   .kill_at = pool.options.grace ? now + pool.options.grace : never,
                   .status = status};
  for (Slot& slot : slots) retire(slot);
}

void kill_all() {
  pool.shutdown.kill_at = never;
  for (Slot& slot : slots) {
    if (slot.state == State::Running || slot.state == State::Aborted)
      kill_worker(slot, "has not ended");
    if (slot.state == State::Leftover) slot.kill_at = 0;
  }
}

// Looks again a second later at most: of a freeze, the clock counts what fits into one wait.
Ms tend_shutdown(Ms now) {
  Shutdown& shutdown = pool.shutdown;
  if (!shutdown.begun) return never;
  if (now >= shutdown.kill_at) kill_all();
  if (now >= shutdown.nudge_at) {
    // Wakes workers that are blocked in a system call and so cannot see the request.
    shutdown.nudge_at = now + second;
    for (const Slot& slot : slots)
      if (slot.pid > 0) terminate(slot.pid);
  }
  return min(now + second, min(shutdown.kill_at, shutdown.nudge_at));
}

// Whether a shutdown has something to wait for.
bool any_alive() {
  for (const Slot& slot : slots)
    if (slot.state == State::Leftover || (slot.pid > 0 && slot.state != State::Immune)) return true;
  return false;
}

// No worker was ever healthy: ends the pool if one cannot be loaded, or if all keep failing.
void give_up_if_hopeless(Phase phase, Ms now) {
  for (const Slot& slot : slots)
    if (phase != Phase::Failed && is_below_target(slot) && slot.failures < give_up_after) return;
  if (phase != Phase::Failed)
    log_event(LOG_CRIT, "no worker was ever healthy, and each failed %d times in a row: giving up",
              give_up_after);
  begin_shutdown(now, exit_failed);
}

// ---- The master: the trial of a reload ----------------------------------------------------------

// Opens the file now at the job's path. Null, or why that failed.
const char* pin(Code& code) {
  static int last_number;
  code.number = ++last_number;
  if (!pool.job.path) return nullptr;
  // O_NONBLOCK: a FIFO there must not hold the master up.
  if (!keep_own(code.fd, open(pool.job.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) ||
      fstat(code.fd, &code.file) != 0)
    return strerror(errno);
  return S_ISREG(code.file.st_mode) ? nullptr : "not a regular file";
}

// The pool's code has changed: workers on other code are old, those on it are not; no backoff
// lasts.
void mark_old_workers(Ms now) {
  for (Slot& slot : slots) {
    if (&slot == pool.reload.trial) continue;
    slot.failures = 0;  // of another code
    if (!runs_pools_code(slot)) slot.past = Past::Nothing;
    slot.start_at = now;  // for a Leftover, and one whose process is just ending
    if (slot.state == State::Waiting) schedule_start(slot, now);
    if (slot.pid == 0) continue;
    Request& request = line_of(slot).request;
    if (!runs_pools_code(slot))
      atomic_replace(request, Request::None, Request::WhenRoom);
    else if (!atomic_replace(request, Request::TakingRoom, Request::None))
      atomic_replace(request, Request::WhenRoom, Request::None);
  }
}

// Swaps the pool's code and the previous one: to go back, or on again.
void exchange_codes(Ms now) {
  pool_code.nonblocking = nonblocking_sockets();
  const Code code = pool_code;
  pool_code = other_code;
  other_code = code;
  restore_sockets(pool_code.nonblocking);
  mark_old_workers(now);
}

// Keeps the stage and the reason, cut between two UTF-8 characters.
void note_stage(Stage stage, const char* reason) {
  Reload& reload = pool.reload;
  size_t length = strlen(reason);
  if (length >= sizeof reload.reason)
    for (length = sizeof reload.reason - 1; (reason[length] & 0xc0) == 0x80;) length--;
  snprintf(reload.reason, sizeof reload.reason, "%.*s", static_cast<int>(length), reason);
  make_printable(reload.reason);
  reload.stage = stage;
}

void drop_trial() {
  if (pool.reload.trial) retire(*pool.reload.trial);
  pool.reload.trial = nullptr;
  close_own(trial_code.fd);
}

[[gnu::format(printf, 1, 2)]] void trial_failed(const char* format, ...) {
  char reason[start_error_size + 128];
  va_list args;
  va_start(args, format);
  vsnprintf(reason, sizeof reason, format, args);
  va_end(args);
  Reload& reload = pool.reload;
  drop_trial();
  if (!reload.tries_old) {
    restore_sockets(pool_code.nonblocking);
    note_stage(Stage::Failed, reason);
    return log_event(LOG_ERR, "reload failed: %s; the pool keeps its code", reason);
  }
  log_event(LOG_ERR, "reload stands still: cannot go back: %s; workers stay", reason);
  exchange_codes(clock_ms());
  close_own(other_code.fd);
  reload.roll = Roll::Stuck;
}

void start_trial(bool tries_old, Ms now) {
  Reload& reload = pool.reload;
  reload.tries_old = tries_old;
  Slot* slot = slots + max_workers;
  while (slot < slots + slot_count && slot->state != State::Empty) slot++;
  if (slot == slots + slot_count)  // the way back waits until one is free
    return tries_old ? void() : trial_failed("all extra numbers have workers of earlier reloads");
  log_event(LOG_INFO, "reload: trying the %s as worker %d",
            tries_old ? "previous code" : "new code", number_of(*slot));
  reload.trial = slot;
  reload.trial_since = now;
  reload.passes_at = never;
  slot->past = Past::Nothing;
  schedule_start(*slot, now);
}

// HUP: begins a trial of the code now at the path. One that is under way is dropped.
void on_reload_signal(Ms now) {
  Reload& reload = pool.reload;
  if (reload.trial)
    log_event(LOG_INFO, "reload: the trial of worker %d is dropped", number_of(*reload.trial));
  if (!reload.trial) pool_code.nonblocking = nonblocking_sockets();  // a trial may change them
  drop_trial();
  reload.count++;
  reload.tries_old = false;  // for trial_failed()
  note_stage(Stage::Trial, "");
  const char* reason = pin(trial_code);
  if (reason) return trial_failed("cannot load %s: %s", pool.job.spec, reason);
  if (pool.job.path && same_file(trial_code.file, pool_code.file))
    log_event(LOG_INFO, "reload: %s is the very file that the pool runs already", pool.job.path);
  start_trial(false, now);
}

// ---- The master: the roll -----------------------------------------------------------------------

// The trial has passed: its code is the pool's from now on, and workers on another one are old.
void begin_roll(Ms now) {
  Reload& reload = pool.reload;
  log_event(LOG_INFO, "reload: the %s has passed its trial; old workers are replaced as they yield",
            reload.tries_old ? "previous code" : "new code");
  if (reload.helper) retire(*reload.helper);  // the new one takes its place
  reload.helper = reload.trial;
  reload.trial = nullptr;
  reload.roll_since = reload.trial_since;
  reload.renewed = 0;
  reload.tell_at = now + finite_grace();
  if (reload.tries_old) {
    reload.roll = Roll::Back;
  } else {
    // The code to go back to: what ran before the roll, also before one that this one overtakes.
    const bool keeps_old = reload.roll == Roll::Forward;
    close_own(keeps_old ? pool_code.fd : other_code.fd);
    if (!keeps_old) other_code = pool_code;
    pool_code = trial_code;
    trial_code.fd = -1;
    reload.roll = Roll::Forward;
    reload.stage = Stage::Rolling;
    mark_old_workers(now);
  }
}

void end_roll(Ms now) {
  Reload& reload = pool.reload;
  const double took = seconds(now - reload.roll_since);
  if (reload.roll == Roll::Forward)
    log_event(LOG_INFO, "reload complete after %.3f s: every worker runs the new code", took);
  if (reload.roll == Roll::Back)
    log_event(LOG_INFO, "back on the previous code after %.3f s", took);
  if (reload.stage == Stage::Rolling) reload.stage = Stage::Complete;
  retire(*reload.helper);
  reload.helper = nullptr;
  reload.roll = Roll::None;
  close_own(other_code.fd);
}

// Whether workers can still load that code: by its path, or through /proc.
bool is_loadable(const Code& code) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", code.fd);
  return code.fd >= 0 &&
         (leads_to(pool.job.path, code.file) || (is_linux && leads_to(link, code.file)));
}

// The code that is rolled out has failed too often under a number.
void go_back(const char* how, Ms now) {
  Reload& reload = pool.reload;
  if (reload.roll != Roll::Forward && reload.roll != Roll::Back) return;
  const bool can = reload.roll == Roll::Forward && is_loadable(other_code);
  log_event(LOG_ERR, "reload %s: %s; %s", can ? "failed" : "stands still", how,
            can ? "going back to the previous code" : "the workers that are left stay");
  if (reload.stage == Stage::Rolling) note_stage(Stage::Failed, how);
  reload.roll = can ? Roll::TryingOld : Roll::Stuck;
  if (can) exchange_codes(now);
}

void tend_trial(Ms now) {
  Reload& reload = pool.reload;
  if (reload.roll == Roll::TryingOld && !reload.trial) start_trial(true, now);
  if (!reload.trial) return;
  // The time of -c is for new code.
  if (is_at_work(*reload.trial) && reload.passes_at == never)
    reload.passes_at = now + (reload.tries_old ? 0 : pool.options.canary);
  if (now < reload.passes_at) return look_again(min(reload.passes_at, now + second));
  begin_roll(now);
}

struct Census {
  int healthy = 0;  // numbers below the target under which somebody healthy works
  int renewed = 0;  // and under which the pool's code has proved itself
  int vacant = 0;   // numbers, and the helper, under which nobody works
};

// Asked to end, and still within the grace period. After that it counts as at work again.
bool is_leaving(const Slot& slot, Ms now) {
  return slot.pid > 0 && request_to(slot) == Request::End &&
         (!slot.asked_at || now < slot.asked_at + finite_grace());
}

Census take_census(Ms now) {
  Census census;
  for (const Slot& slot : slots) {
    if (!is_below_target(slot) && &slot != pool.reload.helper) continue;
    const Request request = slot.pid > 0 ? request_to(slot) : Request::None;
    census.vacant += request == Request::End ? is_leaving(slot, now)
                                             : request == Request::TakingRoom || !is_at_work(slot);
    if (&slot == pool.reload.helper) continue;
    census.healthy += is_at_work(slot);
    census.renewed += is_renewed(slot);
  }
  return census;
}

// The oldest of the old workers that must be asked to end, since they may not reach a yield.
Slot* oldest_to_ask() {
  Slot* oldest = nullptr;
  for (Slot& slot : slots)
    if (slot.state == State::Running && request_to(slot) == Request::WhenRoom &&
        (pool.job.is_command() || atomic_load(line_of(slot).has_stop_fd)) &&
        (!oldest || slot.started < oldest->started))
      oldest = &slot;
  return oldest;
}

// Names, once, the numbers that a roll waits for, when it has made no step for the grace period.
void tell_waiting(const Census& census, Ms now) {
  Reload& reload = pool.reload;
  if (census.renewed != reload.renewed) reload.tell_at = now + finite_grace();
  reload.renewed = census.renewed;
  if (now < reload.tell_at) return;
  reload.tell_at = never;
  char list[200] = "";
  const char* more = "";
  for (const Slot& slot : slots) {
    const size_t length = strlen(list);
    if (!is_below_target(slot) || is_renewed(slot)) continue;
    if (length >= sizeof list - 5)
      more = " ...";
    else
      snprintf(list + length, sizeof list - length, " %d", number_of(slot));
  }
  log_event(LOG_INFO, "reload: waits for the workers with these numbers:%s%s", list, more);
}

// Lets old workers go while fewer than a quarter of the numbers (at least one) are vacant.
void advance_roll(const Census& census, Ms now) {
  const Reload& reload = pool.reload;
  if (reload.roll == Roll::None || reload.roll == Roll::TryingOld) return;
  if (census.renewed == pool.target) return end_roll(now);
  if (reload.roll == Roll::Stuck) return;
  int room = max(1, pool.target / 4) - census.vacant;
  for (Slot* slot; room > 0 && (slot = oldest_to_ask()); room--) request_end(*slot);
  if (room > 0) atomic_store(shared->room, room);
  tell_waiting(census, now);
  look_again(now + second);
}

// ---- The master: the end of a worker ------------------------------------------------------------

using EndText = char[start_error_size + 96];

void describe_end(const Slot& slot, int status, Phase phase, Ms lived, EndText& text) {
  char* const rest = text + snprintf(text, 64, "worker %d (pid %d) ", number_of(slot), slot.pid);
  const size_t size = sizeof text - 64;
  const char* error = shared->start_error[number_of(slot)];
  const char* core = WCOREDUMP(status) ? ", core dumped," : "";
  if (phase == Phase::Failed)
    snprintf(rest, size, "could not start: %.*s", static_cast<int>(start_error_size), error);
  else if (WIFSIGNALED(status))
    snprintf(rest, size, "was ended by signal %d (%s)%s after %.3f s", WTERMSIG(status),
             strsignal(WTERMSIG(status)), core, seconds(lived));
  else
    snprintf(rest, size, "exited with status %d after %.3f s", WEXITSTATUS(status), seconds(lived));
}

void free_number(Slot& slot) {
  slot.state = State::Empty;
  if (is_wanted(slot)) schedule_start(slot, slot.start_at);
}
// Whether something is left of the group that a command has led: its number is not free then.
bool is_group_left(const Slot& slot) { return kill(-slot.group, 0) == 0 || errno == EPERM; }

void worker_ended(Slot& slot, int status, Ms now) {
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const Ms lived = now - slot.started;
  const Phase phase = atomic_load(line_of(slot).phase);
  const bool asked = request_to(slot) == Request::End;  // also by itself, or a signal
  const bool was_killed = slot.state == State::Aborted || slot.state == State::Killed;
  const bool crashed = signal && signal != SIGHUP && signal != SIGINT && signal != SIGQUIT &&
                       signal != SIGTERM && !was_killed;
  const bool is_zero = WIFEXITED(status) && WEXITSTATUS(status) == 0 && !was_killed;
  const bool did_task = is_zero && phase == Phase::Loaded;
  const bool at_once = phase == Phase::Loaded && warm_up() == 0 && !pool.options.timeout;  // -w 0
  // With a warm-up below a second, code that crashes at once would start ten times a second.
  const bool proven = slot.healthy && lived >= second;
  const bool failed = runs_pools_code(slot) && !asked && !did_task && !proven;
  EndText text;
  describe_end(slot, status, phase, lived, text);
  pool.ever_healthy = pool.ever_healthy || slot.healthy || did_task || at_once;
  if (pool.shutdown.begun && pool.shutdown.status == 0 && was_killed && signal)
    pool.shutdown.status = exit_killed;
  // Before trial_failed() and go_back(), which change the code to run next.
  const bool tells = did_task && !asked && slot.code == code_for(slot).number;
  slot.past = !tells ? Past::Nothing : proven ? Past::Worked : Past::Briefly;
  slot.failures = failed ? slot.failures + 1 : 0;
  slot.start_at = now + backoff(slot.failures);
  slot.healthy = false;
  slot.group = slot.pid;
  slot.pid = 0;
  listen_again();
  const char* when = pool.reload.passes_at == never ? " before it was healthy" : " in its trial";
  const bool is_last_start = !pool.ever_healthy && is_wanted(slot);  // see give_up_if_hopeless()
  if (&slot == pool.reload.trial && !did_task && !(is_zero && asked))
    trial_failed("%s%s", text, phase == Phase::Failed ? "" : when);
  else if (phase == Phase::Failed)
    log_event(pool.shutdown.begun ? LOG_DEBUG : is_last_start ? LOG_CRIT : LOG_ERR, "%s", text);
  else
    log_event(is_zero || (asked && !crashed) ? LOG_INFO : LOG_WARNING, "%s", text);
  if (slot.failures >= go_back_after && is_wanted(slot)) go_back(text, now);
  if (pool.job.is_command() && !was_killed && is_group_left(slot)) {
    slot.state = State::Leftover;
    slot.kill_at = pool.shutdown.begun && !pool.options.grace ? never : now + finite_grace();
  } else {
    free_number(slot);
  }
  if (is_wanted(slot) && !pool.ever_healthy) give_up_if_hopeless(phase, now);
}

void reap_worker(Slot& slot, Ms now) {
  int status;
  pid_t pid;
  while ((pid = waitpid(slot.pid, &status, WNOHANG)) < 0 && errno == EINTR) continue;
  if (pid > 0) worker_ended(slot, status, now);
}

// Reaps all children that have ended: one SIGCHLD may stand for several deaths.
void reap(Ms now) {
  for (;;) {
    siginfo_t first{};
    if (waitid(P_ALL, 0, &first, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == EINTR) continue;
    const pid_t pid = first.si_pid;
    if (pid == 0) return;  // no other child has ended
    Slot* slot = nullptr;
    for (Slot& each : slots)
      if (each.pid == pid) slot = &each;
    // A child without a slot is an orphan that this process inherited, or the application's own.
    if (!slot && !pool.reaps_all) break;
    // Ends the rest of a command's group. The number is the group's until its leader is reaped.
    if (slot && pool.job.is_command()) terminate(-pid);
    if (slot) reap_worker(*slot, now);
    if (!slot) waitpid(pid, nullptr, WNOHANG);
  }
  // waitid() shows only the first dead child, and that is the application's: ask for each worker.
  for (Slot& slot : slots)
    if (slot.pid > 0) reap_worker(slot, now);
}

// ---- The master: what happens to a worker -------------------------------------------------------

// Each of the following does what is due in a slot, and returns when it must be called again.

// If fork(2) fails, that is not the worker's fault: the pool tries again later.
Ms tend_start(Slot& slot, Ms now) {
  const bool is_trial = &slot == pool.reload.trial && !pool.reload.tries_old;  // has no second try
  const Ms due = is_trial ? slot.start_at : max(slot.start_at, pool.fork_at);
  if (now < due) return due;
  if (clock_ms() > now + longest_turn) return now;  // again at once, after the signals
  if (start(slot)) {
    pool.fork_failures = 0;
    return now + shortest_watch;
  }
  const char* reason = strerror(errno);
  if (is_trial) return trial_failed("cannot fork: %s", reason), never;
  const Ms delay = backoff(++pool.fork_failures);
  log_event(LOG_ERR, "cannot fork: %s; next try in %.3f s", reason, seconds(delay));
  return pool.fork_at = slot.started + delay;
}

// Waits for what a command has left in its group, which was sent SIGTERM; kills it at last.
Ms tend_leftover(Slot& slot, Ms now) {
  const bool left = is_group_left(slot);
  if (left && now < slot.kill_at) return min(slot.kill_at, now + leftover_interval);
  if (left) {
    log_event(LOG_WARNING, "what worker %d (pid %d) has left has not ended and is killed",
              number_of(slot), slot.group);
    kill(-slot.group, SIGKILL);
    if (pool.shutdown.begun && pool.shutdown.status == 0) pool.shutdown.status = exit_killed;
  }
  free_number(slot);
  return never;
}

Ms load_limit() { return max(finite_grace(), warm_up()); }
// When it will be healthy: a while after its first yield, or the warm-up after it was loaded.
Ms healthy_at(const Slot& slot) {
  const Ms by_yield = slot.yielded_at + min(second, pool.options.warm_up);
  const Ms by_time = slot.loaded_at + warm_up();
  return min(slot.yielded_at ? by_yield : never,
             slot.loaded_at && !pool.options.timeout ? by_time : never);
}

// Notes that a process is healthy, or kills one that hangs while its code is loaded.
Ms tend_health(Slot& slot, unsigned long yields, Ms now) {
  const bool loaded = atomic_load(line_of(slot).phase) == Phase::Loaded;
  if (loaded && !slot.loaded_at) slot.loaded_at = now;
  if (yields > 0 && !slot.yielded_at) slot.yielded_at = now;
  if (now >= healthy_at(slot)) {
    slot.healthy = pool.ever_healthy = true;
    return never;
  }
  if (!loaded && slot.state == State::Running && now >= slot.started + load_limit() &&
      !pool.shutdown.begun) {
    char why[64];
    snprintf(why, sizeof why, "was not loaded within %.3f s", seconds(load_limit()));
    if (&slot == pool.reload.trial)
      trial_failed("worker %d (pid %d) %s", number_of(slot), slot.pid, why);
    kill_worker(slot, why);
  }
  const Ms delay = max(shortest_watch, min((now - slot.started) / 16, longest_watch));
  return min(healthy_at(slot), slot.yielded_at ? never : now + delay);
}

// With a timeout: aborts a worker that has not yielded for so long. A yield is noticed at most a
// fifth of the timeout late. One more fifth allows for a freeze that ended within a
// wait, which the clock counts. So a worker is found when it is late by one to two fifths.
Ms tend_progress(Slot& slot, unsigned long yields, Ms now) {
  const Ms timeout = pool.options.timeout, fifth = max(1, timeout / 5);
  if (yields != slot.yields || !slot.progress_at) slot.progress_at = now;
  slot.yields = yields;
  const Ms limit = yields > 0 ? timeout : max(timeout, pool.options.warm_up);
  const Ms late_at = slot.progress_at + limit + fifth;
  if (now < late_at) return min(now + fifth, late_at);
  if (&slot == pool.reload.trial)
    trial_failed("worker %d (pid %d) has not yielded for %.3f s", number_of(slot), slot.pid,
                 seconds(limit));
  log_event(LOG_ERR, "worker %d (pid %d) has not yielded for %.3f s and is aborted",
            number_of(slot), slot.pid, seconds(limit));
  kill(slot.pid, SIGABRT);
  slot.state = State::Aborted;
  slot.kill_at = now + finite_grace();
  return slot.kill_at;
}

// All that happens to a worker, apart from what it is asked for and from its end:
//
//            due: fork           no yield           still there
//   Waiting -----------> Running --------> Aborted -------------> Killed
//      ^                    |    SIGABRT      |       SIGKILL        |
//      |                    +----- it ended --+----------------------+
//      |                               |
//      +---- the number is wanted -----+----- or not -----> Empty
//
// A process may skip states on its way to the right, but never goes back. If SIGKILL cannot be sent
// to it, it becomes Immune instead of Killed. If a command leaves some of its group behind, its
// number is Leftover until that has gone. USR1 makes an Empty slot Waiting, USR2 the reverse.
Ms tend(Slot& slot, Ms now) {
  if (slot.state == State::Waiting) return tend_start(slot, now);
  if (slot.state == State::Leftover) return tend_leftover(slot, now);
  if (slot.pid == 0) return never;
  const unsigned long yields = relaxed_load(line_of(slot).yields);
  Ms next = never;
  if (request_to(slot) == Request::End && !slot.asked_at) slot.asked_at = now;
  if (!slot.healthy && slot.state != State::Killed)
    next = min(next, tend_health(slot, yields, now));
  if (slot.state == State::Running && pool.options.timeout)
    next = min(next, tend_progress(slot, yields, now));
  if (slot.state == State::Aborted && now >= slot.kill_at) kill_worker(slot, "has not ended");
  if (slot.state == State::Aborted) next = min(next, slot.kill_at);
  return next;
}

// ---- The master: signals ------------------------------------------------------------------------

void grow(Ms now) {
  if (pool.target == max_workers)
    return log_event(LOG_WARNING, "the target stays %d, the most there can be", pool.target);
  Slot& slot = slots[pool.target++];
  log_event(LOG_INFO, "the target is now %d", pool.target);
  slot.failures = 0;
  slot.past = Past::Nothing;
  slot.start_at = now;  // or later: as soon as its old process, if there is one, has ended
  if (slot.state == State::Empty) schedule_start(slot, now);
}
void shrink() {
  if (pool.target == 1) return log_event(LOG_WARNING, "the target stays 1, the least there can be");
  Slot& slot = slots[--pool.target];
  log_event(LOG_INFO, "the target is now %d", pool.target);
  retire(slot);
}

void act_on_signals(Ms now) {
  // Before reap(): a worker ended by the signal that also asks for the shutdown has not failed.
  if (consume(OnStop) > 0) {
    if (!pool.shutdown.begun) log_event(LOG_INFO, "shutting down");
    if (!pool.shutdown.begun) begin_shutdown(now, 0);
    if (atomic_load(stop_requests) > 1) kill_all();
  }
  if (consume(OnChild) > 0) reap(now);
  for (int count = consume(OnGrow); count > 0 && !pool.shutdown.begun; count--) grow(now);
  for (int count = consume(OnShrink); count > 0 && !pool.shutdown.begun; count--) shrink();
  if (consume(OnReload) > 0 && !pool.shutdown.begun) on_reload_signal(now);
}

// ---- The service manager ------------------------------------------------------------------------

// What the service manager is told: nothing until the pool is healthy; then 1 (READY=1); for the
// nth HUP 2n (RELOADING=1) and 2n + 1 (READY=1); and at last STOPPING=1.
constexpr int nothing = 0, stopping = INT_MAX;
struct Manager {
  sockaddr_un name{};
  socklen_t name_size = 0;   // how many bytes of it are used
  int told = nothing;        // last
  char status[512] = "";     // STATUS=
  Ms watchdog_interval = 0;  // between two WATCHDOG=1
  Ms watchdog_at = never;    // when the next one is due
} manager;

// Opens a socket for messages to NOTIFY_SOCKET: a path, or @ and a name in Linux' abstract
// namespace. A sign of life is due twice in WATCHDOG_USEC (sd_watchdog_enabled(3)).
void open_notify() {
  manager = {};
  const char* path = getenv("NOTIFY_SOCKET");
  if (!path) return;
  const size_t length = strlen(path);
  if ((path[0] != '/' && path[0] != '@') || length >= sizeof manager.name.sun_path)
    return log_event(LOG_WARNING, "NOTIFY_SOCKET is '%s': no path or abstract name", path);
  manager.name.sun_family = AF_UNIX;
  memcpy(manager.name.sun_path, path, length);
  if (path[0] == '@') manager.name.sun_path[0] = '\0';
  manager.name_size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (!keep_own(notify_fd, socket(AF_UNIX, SOCK_DGRAM, 0)))
    return log_event(LOG_WARNING, "cannot notify the service manager: %s", strerror(errno));
  const char* usec = getenv("WATCHDOG_USEC");
  const char* pid = getenv("WATCHDOG_PID");
  if (!usec || (pid && strtol(pid, nullptr, 10) != getpid())) return;
  manager.watchdog_interval = strtoll(usec, nullptr, 10) / 1000 / 2;
  if (manager.watchdog_interval > 0) manager.watchdog_at = 0;
}

// Sends a message (sd_notify(3)). Never waits. False: the queue is full.
bool send_to_manager(const char* text) {
  if (sendto(notify_fd, text, strlen(text), MSG_DONTWAIT,
             reinterpret_cast<const sockaddr*>(&manager.name), manager.name_size) >= 0)
    return true;
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return false;
  log_event(LOG_DEBUG, "cannot notify the service manager: %s", strerror(errno));
  return true;
}

// Tells that the master lives. Returns when to do so again.
Ms tend_watchdog(Ms now) {
  if (now < manager.watchdog_at) return manager.watchdog_at;
  const Ms interval = manager.watchdog_interval;
  const Ms delay = send_to_manager("WATCHDOG=1") ? interval : min(interval, retry_interval);
  return manager.watchdog_at = now + delay;
}

int news_for_manager(const Census& census) {
  const int reloading = 2 * pool.reload.count;
  if (pool.shutdown.begun) return stopping;
  if (manager.told == nothing) return census.healthy == pool.target ? reloading + 1 : nothing;
  if (manager.told < reloading) return reloading;  // for each HUP, also if its trial is over
  return manager.told == reloading && pool.reload.stage == Stage::Trial ? reloading : reloading + 1;
}

// Tells the service manager what is new. Returns when to try again, if its queue is full.
Ms notify(const Census& census, Ms now) {
  if (notify_fd < 0 || manager.told == stopping) return never;
  const Reload& reload = pool.reload;
  const int news = news_for_manager(census);
  char renewed[48] = "", status[sizeof manager.status], head[64], text[sizeof status + 80];
  if (reload.roll != Roll::None)
    snprintf(renewed, sizeof renewed, ", %d on the %s", census.renewed,
             goes_back() ? "previous code" : "new code");
  snprintf(status, sizeof status, "%d of %d workers healthy%s; last reload: %s%s%s", census.healthy,
           pool.target, renewed, stage_name(), reload.reason[0] ? ": " : "", reload.reason);
  const bool is_new = news != manager.told;
  if (!is_new && strcmp(status, manager.status) == 0) return never;
  // RELOADING=1 must carry the time, which tells reloads apart.
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  snprintf(head, sizeof head, "RELOADING=1\nMONOTONIC_USEC=%lld\n",
           t.tv_sec * 1000000LL + t.tv_nsec / 1000);
  const char* what = news == stopping ? "STOPPING=1\n" : news % 2 ? "READY=1\n" : head;
  snprintf(text, sizeof text, "%sSTATUS=%s", is_new ? what : "", status);
  if (!send_to_manager(text)) return now + retry_interval;
  manager.told = news;
  memcpy(manager.status, status, sizeof status);
  // A trial that could not even begin is over by now.
  return news_for_manager(census) == news ? never : now;
}

// ---- The state file -----------------------------------------------------------------------------

char state_text[PATH_MAX + 1024];  // what FILE of -s holds, or was to hold at the last try
bool state_failed;                 // that could not be written, and the log says so

// Puts a new file, locked, in the place of FILE: so a reader sees either whole. Null, or why not.
const char* replace_state(const char* path) {
  char next[PATH_MAX];
  if (snprintf(next, sizeof next, "%s.new", path) >= PATH_MAX) return strerror(ENAMETOOLONG);
  const int fd = open(next, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
  // While this is locked, no other forkd looks whether FILE is free, or takes it.
  const bool is_ours = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
  const int standing = is_ours && state_fd < 0 ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
  struct stat is {};
  const bool is_other = standing >= 0 && fstat(standing, &is) == 0 && !S_ISREG(is.st_mode);
  const bool is_free = is_ours && (standing < 0 || flock(standing, LOCK_SH | LOCK_NB) == 0);
  const bool is_held = !is_free && errno == EWOULDBLOCK;
  if (standing >= 0) close(standing);
  if (is_free) errno = ENOSPC;  // if write(2) takes only a part
  const size_t size = strlen(state_text);
  if (is_free && !is_other && ftruncate(fd, 0) == 0 &&
      write(fd, state_text, size) == static_cast<ssize_t>(size) && rename(next, path) == 0)
    return keep_own(state_fd, fd) ? nullptr : strerror(errno);
  const char* reason = strerror(errno);
  if (is_ours) unlink(next);
  if (fd >= 0) close(fd);
  return is_held ? "another forkd keeps its state there" : is_other ? "not a regular file" : reason;
}

// Writes the state if it has changed. False, already reported: that failed.
bool write_state(const Census& census, int level) {
  const Reload& reload = pool.reload;
  const char* path = pool.options.state;
  if (!path) return true;
  char worker[PATH_MAX], text[sizeof state_text];
  snprintf(worker, sizeof worker, "%s", pool.job.spec);
  make_printable(worker);
  snprintf(
      text, sizeof text,
      "pid=%d\nworker=%s\ntarget=%d\nhealthy=%d\nrenewed=%d\nreloads=%d\nreload=%s\nreason=%s\n",
      master_pid, worker, pool.target, census.healthy, census.renewed, reload.count, stage_name(),
      reload.reason);
  if (strcmp(text, state_text) == 0) return true;
  strcpy(state_text, text);
  const char* reason = replace_state(path);
  if (reason && !state_failed) log_event(level, "cannot write %s: %s", path, reason);
  state_failed = reason != nullptr;
  return !reason;
}

void remove_state() {
  struct stat is;
  if (state_fd >= 0 && fstat(state_fd, &is) == 0 && leads_to(pool.options.state, is))
    unlink(pool.options.state);
}

// For forkd --reload: reads the state that a forkd keeps in FILE. False: none that lives does.
bool read_state(const char* path) {
  for (;;) {
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    const bool is_held = flock(fd, LOCK_SH | LOCK_NB) != 0;
    state_text[max(1, read(fd, state_text, sizeof state_text)) - 1] = '\0';  // the last newline
    struct stat is;
    const bool is_newest = fstat(fd, &is) == 0 && leads_to(path, is);
    close(fd);
    if (is_newest) return is_held;
  }
}

// The text of the state behind a name, to its end.
const char* state_of(const char* name) {
  const char* found = strstr(state_text, name);
  return found ? found + strlen(name) : "";
}

// Asks the forkd that keeps its state in FILE to reload, waits, and tells how it went.
[[noreturn]] void ask_for_reload(const char* path) {
  const pid_t pid = read_state(path) ? atoi(state_of("pid=")) : 0;
  const int reloads = atoi(state_of("\nreloads="));
  if (pid <= 0) fail(exit_failed, "no forkd keeps its state in %s", path);
  if (kill(pid, SIGHUP) != 0)
    fail(exit_failed, "cannot signal forkd (pid %d): %s", pid, strerror(errno));
  for (;;) {
    poll(nullptr, 0, retry_interval);
    if (!read_state(path) || atoi(state_of("pid=")) != pid)
      fail(exit_failed, "forkd (pid %d) has ended", pid);
    if (atoi(state_of("\nreloads=")) == reloads) continue;
    const char* stage = state_of("\nreload=");
    if (strncmp(stage, "failed\n", 7) == 0) {
      fprintf(stderr, "reload failed: %s\n", state_of("\nreason="));
      exit(exit_failed);
    }
    if (strncmp(stage, "complete\n", 9) != 0) continue;
    puts("reload complete: every worker runs the new code");
    exit_after_output();
  }
}

// ---- The loop -----------------------------------------------------------------------------------

// Waits for the deadline or a signal, and empties the self-pipe.
void wait_until(Ms deadline) {
  const Ms now = clock_ms();
  pollfd wake{.fd = wake_read, .events = POLLIN, .revents = 0};
  int timeout = deadline == never ? -1 : static_cast<int>(max(0, min(deadline - now, INT_MAX)));
  if (atomic_load(woken)) timeout = 0;
  const int events = poll(&wake, 1, timeout);
  // If poll(2) overslept, nothing could run: the container was frozen, say.
  const Ms late = timeout < 0 ? 0 : clock_ms() - (now + timeout);
  if (late > pause_slack) paused += late;
  if (events < 0 && errno != EINTR) poll(nullptr, 0, 10);  // it failed: do not spin
  char bytes[16];
  // It may find no byte: the deadline came first, or the byte comes late and ends the next wait.
  (void)!read(wake_read, bytes, sizeof bytes);
  // Clear first, count later: a signal in between writes another byte.
  atomic_store(woken, 0);
}

// A turn of the loop: what has happened, what is due, what is to be told.
void take_turn(Ms now) {
  atomic_store(shared->room, 0);  // closed until advance_roll()
  act_on_signals(now);
  pool.look_at = min(tend_shutdown(now), tend_watchdog(now));
  for (Slot& slot : slots) look_again(tend(slot, now));
  tend_trial(now);
  const Census census = take_census(now);
  advance_roll(census, now);
  look_again(notify(census, now));
  write_state(census, LOG_WARNING);
}

void release_pool() {
  close_all_own();
  if (shared) munmap(shared, sizeof(Shared));
  shared = nullptr;
  if (worker_environment) environ = caller_environment;
  free(worker_environment);
  worker_environment = nullptr;
  running = false;
}

// False on failure, already logged.
bool begin_pool(const Job& job, const Options& options) {
  pool = {.job = job, .options = options, .target = options.workers};
  // A caller that ignores SIGCHLD expects no zombies (POSIX, _Exit).
  const struct sigaction& child = caller_action[0];  // SIGCHLD
  pool.reaps_all = !job.function || master_pid == 1 || child.sa_handler == SIG_IGN ||
                   (child.sa_flags & SA_NOCLDWAIT);
  for (Slot& slot : slots)
    if (slot.start_at) slot = {};  // the others are untouched: writing would map their pages
  log_level = options.log_level;
  if (!job.function) count_sockets();
  open_log();
  if (!write_state({}, LOG_CRIT) || (!job.function && !open_sockets())) return false;
  open_notify();
  int ends[2] = {-1, -1};
  const bool is_open = open_pipe(ends);
  const bool can_wait = keep_own(wake_read, ends[0]);
  const bool has_pipe = keep_own(wake_write, ends[1]) && can_wait && is_open;
  constexpr int rights = PROT_READ | PROT_WRITE, kind = MAP_SHARED | MAP_ANONYMOUS;
  void* memory = mmap(nullptr, sizeof(Shared), rights, kind, -1, 0);
  if (memory != MAP_FAILED) shared = static_cast<Shared*>(memory);
  if (!has_pipe || !shared || !make_environment()) {
    log_event(LOG_CRIT, "cannot make %s: %s", has_pipe ? "shared memory" : "a pipe",
              strerror(errno));
    return false;
  }
  log_event(LOG_INFO, "forkd %s runs %s, workers: %d", version, job.spec, pool.target);
  if (const char* reason = pin(pool_code)) {
    const bool is_bare = !strchr(job.spec, '/') && access(job.path, F_OK) != 0;
    const char* hint = is_bare ? " (a colon makes it PATH:SYMBOL; put 'env' before a command)" : "";
    log_event(LOG_CRIT, "cannot load %s: %s%s", job.spec, reason, hint);
    return false;
  }
  for (int i = 0; i < pool.target; i++) schedule_start(slots[i], 0);
  return true;
}

int run_pool(const Job& job, const Options& options) {
  if (!begin_pool(job, options)) return exit_failed;
  do {
    wait_until(pool.look_at);
    take_turn(clock_ms());
  } while (!pool.shutdown.begun || any_alive());
  for (const Slot& slot : slots)
    if (slot.state == State::Immune && pool.shutdown.status == 0) return exit_killed;
  return pool.shutdown.status;
}

// As PID 1: ends what the workers have left in the namespace, before the kernel kills it. Takes at
// most the rest of the grace period; a signal after the one that ended the pool cuts it short.
void end_leftovers(Ms grace) {
  const int used = pool.shutdown.begun && pool.shutdown.status != exit_failed;  // stop signals
  const Ms since = pool.shutdown.begun ? pool.shutdown.since : clock_ms();
  const Ms deadline = grace ? since + grace : never;
  terminate(-1);
  for (Ms now = clock_ms(); now < deadline; now = clock_ms()) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
    if (kill(-1, 0) != 0 || atomic_load(stop_requests) > used) return;
    wait_until(min(deadline, now + leftover_interval));
  }
}

}  // namespace

// ---- The public functions, and main -------------------------------------------------------------

int forkd_yield() {
  Line* line = self.line;
  if (!line) return 1;
  // Not an atomic increment, which would cost ten times as much: two threads may lose a count, but
  // the master only checks whether it changes.
  __atomic_store_n(&line->yields, relaxed_load(line->yields) + 1, __ATOMIC_RELAXED);
  if (!is_linux && getppid() != master_pid) return 0;
  // Relaxed: a request seen one yield later is early enough, and answer_request() reads it again.
  if (relaxed_load(line->request) == Request::None) return 1;
  return answer_request();
}

int forkd_stop_fd() {
  pthread_mutex_lock(&self.stop_mutex);
  int ends[2];
  if (self.stop_pipe[0] < 0 && open_pipe(ends)) {
    self.stop_pipe[0] = ends[0];
    fstat(ends[1], &self.stop_file);
    atomic_store(self.stop_pipe[1], ends[1]);
    if (self.line) {
      // From now on the master sends a signal with a request. An earlier request is handled here.
      atomic_store(self.line->has_stop_fd, 1);
      if (atomic_load(self.line->request) == Request::End) write_stop_byte();
    }
  }
  const int fd = self.stop_pipe[0];
  pthread_mutex_unlock(&self.stop_mutex);
  return fd;
}

int forkd_worker_number() { return self.number; }

int forkd_run(forkd_worker* function, int argc, char** argv, const struct forkd_options* given) {
  static char* no_arguments[] = {nullptr};
  Options options;
  const bool good = function && (argc == 0 || (argc > 0 && argv));
  if (running || !good || (given && !convert(*given, options))) {
    errno = EINVAL;
    return -1;
  }
  for (int& count : arrived) count = 0;
  stop_requests = 0;
  if (!become_master()) return -1;
  running = true;
  fflush(nullptr);  // or every worker would write the buffered output again
  // Gives back what was read ahead, or a worker's exit(3) would move the shared offset (POSIX,
  // fflush). Not from a pipe, where musl would discard it.
  // cppcheck-suppress fflushOnInputStream
  if (lseek(STDIN_FILENO, 0, SEEK_CUR) >= 0) fflush(stdin);
  Job job{.spec = "a function of this program", .argc = argc, .argv = argv ? argv : no_arguments};
  job.function = function;
  const int status = run_pool(job, options);
  restore_handlers();
  release_pool();
  return status;
}

// Weak, so that an application that links this file can have its own main.
[[gnu::weak]] int main(int argc, char** argv) {
  // Before anything else: the kernel drops a signal to PID 1 that has no handler.
  if (!become_master()) fail(exit_failed, "cannot handle signals: %s", strerror(errno));
  const Options options = parse_options(argc, argv);
  if (options.reload) {
    if (optind < argc) fail(exit_usage, "--reload takes no worker: '%s'", argv[optind]);
    restore_handlers();
    ask_for_reload(options.reload);
  }
  const Job job = parse_job(argc - optind, argv + optind);
  if (options.timeout && job.is_command())
    fail(exit_usage, "a timeout needs a worker that can yield: '%s' is a command", job.spec);
  reset_getopt();  // once for all workers: in each it would cost a page fault
  keep_standard_descriptors();
  running = true;
  const int status = run_pool(job, options);
  remove_socket_files();
  remove_state();
  if (getpid() == 1) end_leftovers(options.grace);
  return status;  // the handlers stay, so a late signal does not change the status
}
