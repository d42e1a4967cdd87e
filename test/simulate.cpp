// Simulates the master: its real loop runs on virtual time against a kernel and workers made here.
//
//   simulate FIRST_SEED COUNT [-v]     runs COUNT seeds; -v prints the trace of each
//
// forkd.cpp is the code under test, here with its system calls replaced. A seed chooses the kind of
// worker, the options, how each version of the code behaves, and what happens when: signals, new
// files, deaths, a frozen master, a full queue, calls that fail. Time passes in poll(2) alone, and
// where the seed makes a call slow. The same seed gives the same run.
//
// A worker is a struct with a time at which it does something next. What it does to the memory that
// it shares with the master, it does by forkd's own functions, become_worker(), forkd_yield(),
// forkd_stop_fd() and on_request(), with `self` set to it meanwhile.
//
// Master and workers mix at each single access to shared memory. Before one of the master's, or in
// a system call, a worker may take some steps and a signal may arrive: that is a nested call. A
// worker can stop within forkd_yield() and go on later without a stack of its own: each of its
// accesses is recorded; the function is left by longjmp(3) before the next one. To go on, it is
// called again, what is recorded is recalled, and the access that comes after that is the next.
//
// At the end of a run all is made good: the pool must then become whole, finish a reload, and end.
// On the way each check_...() has a rule of the contract. One that is broken ends the program with
// status 1, the seed, the virtual time, the rule, and the last things that happened.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

// ---------------------------------------------------------------------------------------------
// What forkd.cpp gets instead of the system's
// ---------------------------------------------------------------------------------------------

static pid_t sim_fork();
static pid_t sim_getpid();
static pid_t sim_getppid();
static int sim_kill(pid_t pid, int signal);
static pid_t sim_waitpid(pid_t pid, int* status, int flags);
static int sim_waitid(idtype_t type, id_t id, siginfo_t* info, int flags);
static int sim_poll(pollfd* fds, nfds_t count, int timeout);
static int sim_clock_gettime(clockid_t clock, timespec* time);
static int sim_nanosleep(const timespec* time, timespec* left);
static int sim_pipe2(int ends[2], int flags);
static ssize_t sim_read(int fd, void* data, size_t size);
static ssize_t sim_write(int fd, const void* data, size_t size);
static int sim_open(const char* path, int flags);
static int sim_close(int fd);
static int sim_duplicate(int fd);
static int sim_file_of(int fd, struct stat* is);
static int sim_file_at(const char* path, struct stat* is);
static ssize_t sim_readlink(const char* path, char* buffer, size_t size);
static int sim_socket(int family, int type, int protocol);
static ssize_t sim_sendto(int fd, const void* data, size_t size, int flags, const sockaddr*,
                          socklen_t);
static char* sim_getenv(const char* name);
static int sim_set_mask(int how, const sigset_t* mask, sigset_t* before);
static void* sim_dlopen(const char* path, int flags);
static void* sim_dlsym(void* library, const char* name);
static char* sim_dlerror();
static int sim_execvp(const char* path, char* const* argv);
[[noreturn]] static void sim_exit(int status);

static bool recall(void* value, size_t size);        // of a worker that goes on within a call
static void record(const void* value, size_t size);  // what its next access has given
static void before_access();                         // by anyone
static bool is_shared(const void* at);               // not the worker's own memory
static void after_store(const void* at);             // by anyone
static void after_exchange(const void* at, int was);

template <typename T>
void sim_load(const T* from, T* to) {
  const bool shared = is_shared(from);
  if (shared && recall(to, sizeof *to)) return;
  before_access();
  *to = *from;
  if (shared) record(to, sizeof *to);
}
template <typename T>
void sim_store(T* to, T value) {
  const bool shared = is_shared(to);
  if (shared && recall(&value, sizeof value)) return;
  before_access();
  *to = value;
  after_store(to);
  if (shared) record(&value, sizeof value);
}
template <typename T>
bool sim_replace(T* at, T expected, T desired) {
  bool replaced;
  if (recall(&replaced, sizeof replaced)) return replaced;
  before_access();
  replaced = *at == expected;
  if (replaced) *at = desired;
  if (replaced) after_store(at);
  record(&replaced, sizeof replaced);
  return replaced;
}
template <typename T, typename V>
T sim_exchange(T* at, V value) {
  before_access();
  const T was = *at;
  *at = static_cast<T>(value);
  after_exchange(at, static_cast<int>(was));
  return was;
}
template <typename T>
void sim_add(T* at, T value) {
  before_access();
  *at += value;
}

#define __atomic_load(from, to, order) sim_load(from, to)
#define __atomic_store(to, value, order) sim_store(to, *(value))
#define __atomic_store_n(to, value, order) sim_store(to, value)
#define __atomic_compare_exchange(at, expected, desired, ...)                                      \
  sim_replace(at, *(expected), *(desired))
#define __atomic_exchange_n(at, value, order) sim_exchange(at, value)
#define __atomic_fetch_add(at, value, order) sim_add(at, value)
#define __atomic_fetch_sub(at, value, order) sim_add(at, -(value))
#define fork sim_fork
#define getpid sim_getpid
#define getppid sim_getppid
#define kill sim_kill
#define waitpid sim_waitpid
#define waitid sim_waitid
#define poll(...) sim_poll(__VA_ARGS__)
#define clock_gettime sim_clock_gettime
#define nanosleep sim_nanosleep
#define pipe2 sim_pipe2
#define read sim_read
#define write sim_write
#define open sim_open
#define close sim_close
#define fcntl(fd, command, ...) sim_duplicate(fd)
#define fstat sim_file_of
#define stat(path, is) sim_file_at(path, is)
#define readlink sim_readlink
#define socket sim_socket
#define sendto sim_sendto
#define getenv sim_getenv
#define pthread_sigmask sim_set_mask
#define dlopen sim_dlopen
#define dlsym sim_dlsym
#define dlerror sim_dlerror
#define execvp sim_execvp
#define exit sim_exit
#define _exit sim_exit
#define sigaction(...) 0
#define setpgid(...) 0
#define prctl(...) 0
#define pthread_mutex_lock(...) 0
#define pthread_mutex_unlock(...) 0
#define main forkd_main
#include "../forkd.cpp"
#undef main

// ---------------------------------------------------------------------------------------------
// The run
// ---------------------------------------------------------------------------------------------

enum class Kind { Function, Library, Command };

// What a worker does. A command that Works or Polls runs until it is asked to end.
enum class Plan { Works, Polls, Returns, Crashes, Hangs, DiesLoading, FailsToLoad, NeverLoads };
constexpr unsigned plan_count = 8;

// A version of the code: how its workers behave, one in so many otherwise.
struct Version {
  Plan plan = Plan::Works;
  unsigned oddity = 0;
  int bad_number = -1;  // under this one it crashes
  Ms load = 0;
  Ms task = 1;
};
constexpr int version_count = 64;

struct Run {
  unsigned long long random;
  unsigned long seed;
  Kind kind;
  bool verbose;
  unsigned density;  // accesses of the master until something comes between, about; 0: never
  unsigned failing;  // one in so many calls fails; 0: none
  Ms slowness;       // how long a call may take
  bool freezes;      // the master is stopped now and then
  bool moves;        // a release folder: the old file keeps a name
  bool has_manager;
  Ms watchdog;       // WATCHDOG_USEC in milliseconds; 0: none
  Ms script_end;     // when all is made good
  bool stops_early;  // or before that comes a shutdown
  Version versions[version_count];
  int newest;    // the version at the path
  bool missing;  // there is none
} run;

constexpr Ms tolerance = 20;  // of times that are compared with those of a busy master

Ms now;
Ms delayed;  // how much of that went by in slow calls and while the master was frozen
Ms frozen;   // while workers were frozen
int freezes;
unsigned long moment;  // counts what changes the strength of the pool

unsigned below(unsigned n) {
  run.random += 0x9e3779b97f4a7c15;
  unsigned long long z = run.random;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<unsigned>((z ^ (z >> 31)) >> 33) % n;
}
bool one_in(unsigned n) { return n && below(n) == 0; }
Ms up_to(Ms most) { return below(static_cast<unsigned>(most) + 1); }

// The last things that happened.
constexpr int trace_size = 40;
char trace[trace_size][240];
unsigned traced;

[[gnu::format(printf, 1, 2)]] void note(const char* format, ...) {
  char* line = trace[traced++ % trace_size];
  int length = snprintf(line, sizeof *trace, "%s ", seconds(now).text);
  va_list args;
  va_start(args, format);
  vsnprintf(line + length, sizeof *trace - static_cast<size_t>(length), format, args);
  va_end(args);
  make_printable(line);
  if (run.verbose) puts(line);
}

[[noreturn, gnu::format(printf, 1, 2)]] void broken(const char* format, ...) {
  char rule[400];
  va_list args;
  va_start(args, format);
  vsnprintf(rule, sizeof rule, format, args);
  va_end(args);
  for (unsigned i = traced < trace_size ? 0 : traced - trace_size; i < traced && !run.verbose; i++)
    puts(trace[i % trace_size]);
  printf("seed %lu at %s: %s\n", run.seed, seconds(now).text, rule);
  fflush(stdout);
  _Exit(1);
}

// ---------------------------------------------------------------------------------------------
// Workers
// ---------------------------------------------------------------------------------------------

enum class Life { Gone, Loading, Working, Leaving, Zombie };

struct Process {
  Life life;
  pid_t pid;
  int number;
  int status;
  Plan plan;
  int version;       // of its code
  int expected;      // that which it has to load; -1: any
  bool old;          // a roll has begun since it was forked
  bool deaf;         // to TERM and ABRT
  bool untouchable;  // kill(2) gives EPERM
  bool wakes;        // TERM ends its hanging
  bool signalled;    // a signal that asks it to end is pending
  bool readable;     // its stop descriptor
  bool stolen;       // the application reaped it
  int countdown;     // yields until it does what it plans
  int yields;
  Ms load, task, last_task;
  Ms forked_at, loaded_at, next_at, yielded_at, let_go_at, aborted_at, killed_at, ended_at;
  unsigned long left;  // the moment when it ceased to work
  Ms frozen_before;    // `frozen` when it yielded last
  int freezes_before;  // `freezes`, likewise
  Slot* trial;         // what fork(2) copied
  Code pool_code, trial_code;
  int held_by_pool, held_by_trial;  // the versions that these descriptors lead to
  Self self, self_before;           // now, and at the beginning of the call
  bool in_call;
  int accesses, recalled, allowed;  // of the call: recorded, recalled, and how many it may add
  unsigned char values[64][8];
};

// What this file believes of a worker number, from what it sees happen.
struct Number {
  Process* process;
  bool brief;        // the process before returned 0 by itself
  bool was_healthy;  // the process before
  int failures_least, failures_most;
  Ms due_from, due_until;  // when the next start is due; never: none
  Ms delayed_before;       // `delayed` then
  Ms started;
};

constexpr int process_count = 256;
Process processes[process_count];
Number numbers[slot_count];
pid_t next_pid;
bool pending[SIGUSR2 > SIGCHLD ? SIGUSR2 + 1 : SIGCHLD + 1];  // signals to the master
bool blocked;
int bytes_in_pipe;   // of the self-pipe
bool interleaving;   // what comes between is never itself interrupted
Process* in_worker;  // the worker whose steps are taken now
bool stepping;       // they are recorded
jmp_buf out_of_worker;
unsigned until_next;  // accesses of the master until something comes between

// What the log and the kernel have shown of the pool.
struct Seen {
  int version;                  // the pool's
  int trial = -1, helper = -1;  // numbers; -1: none
  int tried;                    // the trial's version
  int target, told;
  int grown, shrunk;     // signals since `target` was compared
  Ms stop_at = never;    // when the shutdown began
  Ms signal_at = never;  // the first INT, QUIT or TERM
  Ms second_at = never;  // one that came 0.1 s later
  Ms ended_at = 0;       // the last worker that has ended
  bool gave_up, was_healthy, killed;
  int completed;  // rolls
  int fork_failures;
  Ms fork_from = 0;
  unsigned long closed;    // the moment of the last look
  bool hup;                // a HUP was taken of which the manager knows nothing
  bool trial_over = true;  // the last HUP has had its answer
  bool refused;            // READY=1 may be late, for the queue was full or a HUP came
  bool ready, reloading, stopping, full;  // the messages
  Ms watchdog_told;
  char status[300];
  int polls;
  Ms no_memory_until = 0, idle_since = 0;
  Ms polls_since;
  bool calm;  // all has been made good
  int stage;  // of the good end
  Ms stage_at, next_event, frozen_until = 0;
  Ms stop_delayed;  // `delayed` at the stop signal
  int completed_before;
} seen;

bool is_alive(const Process& p) { return p.life > Life::Gone && p.life < Life::Zombie; }
bool may_shut_down() { return seen.stop_at != never; }
Line& line_of(const Process& p) { return shared->line[p.number]; }
Process* process_of(pid_t pid) {
  for (Process& p : processes)
    if (p.life != Life::Gone && p.pid == pid) return &p;
  return nullptr;
}
// Whether this call is one that fails.
bool fails(unsigned factor = 1) {
  return !seen.calm && run.failing && one_in(run.failing * factor);
}
void take_time() {
  if (seen.calm || !run.slowness) return;
  const Ms time = up_to(run.slowness);
  now += time;
  delayed += time;
}

bool is_healthy(const Process& p) {
  return (p.life == Life::Working || p.life == Life::Leaving) &&
         (p.yields > 0 || (!pool.options.timeout && now - p.loaded_at >= warm_up()));
}

// Whether a number counts as vacant for sure, apart from what has happened since that moment, of
// which the master cannot know.
bool is_vacant(int number, unsigned long since) {
  const Number& n = numbers[number];
  const Process* p = n.process;
  if (!p) return !n.brief;
  if (p->left > since || (p->life == Life::Zombie && p->let_go_at == never)) return false;
  if (p->let_go_at != never)
    return now < p->let_go_at + finite_grace() - 10 * run.slowness - tolerance;
  return !is_healthy(*p) && !(n.brief && now < p->forked_at + max(proof_of_life, warm_up()));
}

// Whether a number has no healthy worker, for sure.
bool surely_not_healthy(const Number& n) {
  const Process* p = n.process;
  if (!p || p->life == Life::Loading) return !n.brief;
  return p->yields == 0 && (pool.options.timeout || now - p->loaded_at < warm_up()) && !n.brief;
}

int vacant(unsigned long since) {
  int count = 0;
  for (int i = 0; i < pool.target; i++) count += is_vacant(i, since);
  return count + (seen.helper >= 0 && is_vacant(seen.helper, since));
}

void raise_signal(int number) {
  note("signal %d to the master", number);
  pending[number] = true;
}

// It ends, with a status as of waitpid(2).
void end(Process& p, int status) {
  note("worker %d (pid %d) ends, status %d", p.number, p.pid, status);
  p.life = Life::Zombie;
  p.status = status;
  p.ended_at = now;
  p.next_at = never;
  if (p.let_go_at == never) p.left = ++moment;
  seen.ended_at = now;
  pending[SIGCHLD] = true;
}

void swap_self(Process& p) {
  const Self other = self;
  self = p.self;
  p.self = other;
}

// Between these two the process is that worker. leave_worker() ends what stands between them.
void enter(Process& p, bool steps) {
  swap_self(p);
  in_worker = &p;
  stepping = steps;
}
void leave(Process& p) {
  swap_self(p);
  in_worker = nullptr;
  stepping = false;
}
[[noreturn]] void leave_worker() { longjmp(out_of_worker, 1); }

// It was asked to end, or has taken room.
void let_go(Process& p) {
  if (p.let_go_at != never) return;
  p.let_go_at = now;
  p.left = ++moment;
}

// Delivers the signal that asks it to end.
void run_handler(Process& p) {
  p.signalled = false;
  enter(p, false);
  on_request(SIGTERM);
  leave(p);
  if (p.readable) p.next_at = now;
}

// Loads the code: become_worker() with the memory as it was at the fork.
void load_code(Process& p) {
  int fds[sizeof own / sizeof *own];
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) fds[i] = *own[i];
  Slot* const trial = pool.reload.trial;
  const Code codes[] = {pool_code, trial_code};
  char** const variables = environ;
  const int inside = handling;
  pool.reload.trial = p.trial;
  pool_code = p.pool_code;
  trial_code = p.trial_code;
  p.loaded_at = now;
  p.frozen_before = frozen;
  p.life = Life::Working;
  enter(p, false);
  if (setjmp(out_of_worker) == 0) become_worker(p.number);
  leave(p);
  handling = inside;
  environ = variables;
  pool_code = codes[0];
  trial_code = codes[1];
  pool.reload.trial = trial;
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) *own[i] = fds[i];
}

// Goes on within forkd_yield() or forkd_stop_fd(), or calls it, for so many accesses at most.
void step(Process& p, int allowed) {
  if (!p.in_call) p.self_before = p.self;
  p.self = p.self_before;
  const bool wants_fd = p.plan == Plan::Polls && p.self.stop_pipe[0] < 0;
  volatile int result = 1;
  p.in_call = true;
  p.recalled = 0;
  p.allowed = allowed;
  enter(p, true);
  if (setjmp(out_of_worker) == 0) {
    result = wants_fd ? (forkd_stop_fd(), 1) : forkd_yield();
    p.in_call = false;
  }
  leave(p);
  if (p.in_call) return;
  p.accesses = 0;
  if (wants_fd) return;
  if (result) {
    p.next_at =
        p.plan == Plan::Polls && !p.readable && !pool.options.timeout ? never : now + p.task;
    return;
  }
  note("worker %d (pid %d) was let go", p.number, p.pid);
  if (p.self.stop_pipe[0] >= 0 && !p.readable)
    broken("the stop descriptor of a worker that is asked to end must be readable");
  enter(p, false);
  result = forkd_yield();
  leave(p);
  if (result) broken("once forkd_yield has returned 0 it always returns 0");
  p.life = Life::Leaving;
  p.next_at = now + p.last_task;
}

// What a worker does when its time has come.
void act(Process& p) {
  if (p.signalled) run_handler(p);
  switch (p.life) {
  case Life::Loading:
    if (p.plan == Plan::NeverLoads && !seen.calm) {
      p.next_at = never;
    } else if (p.plan == Plan::DiesLoading) {
      end(p, SIGSEGV);
    } else {
      load_code(p);
      if (p.life == Life::Working) p.next_at = run.kind == Kind::Command ? now + p.task : now;
    }
    return;
  case Life::Working:
    if (p.plan == Plan::Returns) return end(p, 0);
    if (p.plan == Plan::Crashes && p.countdown-- <= 0) return end(p, one_in(2) ? SIGSEGV : 1 << 8);
    if (p.plan == Plan::Hangs && p.countdown-- <= 0) {
      p.next_at = never;
      return;
    }
    if (run.kind == Kind::Command) {
      p.next_at = p.plan == Plan::Crashes ? now + p.task : never;
      return;
    }
    // It may lose the processor within the call.
    step(p, one_in(run.density ? 4 : 0) ? static_cast<int>(below(8)) : 1000);
    if (p.in_call) p.next_at = now + up_to(seen.calm ? 2 : 20);
    return;
  case Life::Leaving: return end(p, one_in(8) && !seen.calm ? 1 << 8 : 0);
  default: p.next_at = never;
  }
}

// How a worker on that version behaves.
void choose_plan(Process& p, int number) {
  const Version& version = run.versions[p.version];
  p.plan =
      one_in(seen.calm ? 0 : version.oddity) ? static_cast<Plan>(below(plan_count)) : version.plan;
  if (number == version.bad_number) p.plan = Plan::Crashes;
  p.deaf = !seen.calm && one_in(12);
  p.untouchable = !seen.calm && one_in(40);
  p.wakes = one_in(2);
  p.countdown = static_cast<int>(below(3));
  p.load = up_to(version.load);
  p.task = 1 + up_to(version.task);
  p.last_task = seen.calm ? up_to(20) : one_in(20) ? up_to(15000) : up_to(100);
}

// A worker gets a signal, apart from KILL.
void receive(Process& p, int signal) {
  if (signal == SIGABRT && !p.deaf) return end(p, SIGABRT);
  if (signal != SIGTERM && signal != SIGHUP) return;
  if (run.kind != Kind::Command) {
    p.signalled = true;
    if (p.plan == Plan::Hangs && p.wakes) p.plan = Plan::Works;
    if (p.life == Life::Working && p.plan != Plan::Hangs && p.next_at == never) p.next_at = now;
  } else if (p.life == Life::Working && !p.deaf) {
    p.life = Life::Leaving;
    p.next_at = now + p.last_task;
  } else if (p.life == Life::Loading) {
    end(p, SIGTERM);
  }
}

// ---------------------------------------------------------------------------------------------
// Things that come between the master's accesses
// ---------------------------------------------------------------------------------------------

void happen();

void begin_to_stop() {
  if (seen.stop_at != never) return;
  seen.stop_at = now;
  seen.stop_delayed = delayed;
}

// False: none was pending.
bool deliver_signals() {
  bool any = false;
  for (int number = 1; number < static_cast<int>(sizeof pending) && !blocked; number++) {
    if (!pending[number]) continue;
    pending[number] = false;
    any = true;
    seen.grown += number == SIGUSR1;
    seen.shrunk += number == SIGUSR2;
    if (number == SIGTERM || number == SIGINT || number == SIGQUIT) {
      begin_to_stop();
      if (seen.signal_at == never) seen.signal_at = now;
      if (seen.second_at == never && now - seen.signal_at >= 100) seen.second_at = now;
    }
    count_signal(number);
  }
  return any;
}

void come_between() {
  if (run.density == 0 || interleaving || in_worker || until_next-- > 0) return;
  interleaving = true;
  const int saved_errno = errno;
  until_next = below(2 * run.density);
  Process& p = processes[below(16)];
  if (one_in(4))
    deliver_signals();
  else if (one_in(40) && !seen.calm)
    happen();
  else if (p.life == Life::Working && run.kind != Kind::Command && p.next_at != never &&
           (p.plan == Plan::Works || p.plan == Plan::Polls)) {
    if (p.signalled && one_in(2)) run_handler(p);
    step(p, static_cast<int>(below(4)));
  } else if (p.life == Life::Leaving || p.life == Life::Loading) {
    if (p.next_at <= now) act(p);
  }
  interleaving = false;
  errno = saved_errno;
}

bool recall(void* value, size_t size) {
  if (!stepping) return false;
  Process& p = *in_worker;
  if (p.recalled < p.accesses) {
    memcpy(value, p.values[p.recalled++], size);
    return true;
  }
  if (p.allowed-- <= 0) leave_worker();
  return false;
}

void record(const void* value, size_t size) {
  if (!stepping) return;
  Process& p = *in_worker;
  if (p.accesses == static_cast<int>(sizeof p.values / sizeof *p.values))
    broken("a call of forkd_yield must come to an end");
  memcpy(p.values[p.accesses++], value, size);
  p.recalled = p.accesses;
}

void before_access() { come_between(); }
bool is_shared(const void* at) { return at < &self || at >= &self + 1; }

// ---------------------------------------------------------------------------------------------
// The rules
// ---------------------------------------------------------------------------------------------

// What the master had no part in since `delayed` was that much.
Ms lateness(Ms delayed_before) { return delayed - delayed_before + tolerance; }
Ms backoff_after(int failures) {
  return failures == 0 ? 0 : min(100 << min(failures - 1, 7), 10000);
}

// Whether there is to be a process under that number.
bool is_expected(int number) {
  return !may_shut_down() && (number < pool.target || number == seen.helper);
}

// The master starts a process under that number.
void check_fork(int number) {
  const Number& n = numbers[number];
  if (n.process) broken("never two processes under one number: %d", number);
  if (may_shut_down() && seen.stop_at < now - lateness(0))
    broken("nothing is started during a shutdown");
  if (n.started && now - n.started < start_interval - run.slowness)
    broken("no number starts more than ten times a second: %d", number);
  if (number >= max_workers) return;
  if (n.due_from != never && now < n.due_from - run.slowness)
    broken("worker %d must wait until its backoff is over", number);
  if (now < seen.fork_from - run.slowness) broken("after a fork that failed the pool waits");
}

// Those that work, or are about to: not asked to end, not aborted, wanted.
void check_count() {
  int count = 0;
  for (const Process& p : processes)
    count += is_alive(p) && p.let_go_at == never && p.aborted_at == never && p.killed_at == never &&
             (p.number < pool.target || p.number >= max_workers);
  const int extra = (seen.trial >= 0) + (seen.helper >= 0);
  if (count > pool.target + extra)
    broken("%d workers are more than the target %d and %d", count, pool.target, extra);
}

// The model of a restart: when the next process is due.
void expect_restart(Process& p) {
  Number& n = numbers[p.number];
  const bool succeeded = !p.stolen && p.status == 0;
  const bool asked = atomic_load(line_of(p).request) != Request::None;
  const bool loaded = atomic_load(line_of(p).phase) == Phase::Loaded;
  const Ms lived = p.ended_at - p.forked_at, known = now - p.forked_at;
  const Ms ran = p.ended_at - p.loaded_at;
  const bool surely_healthy =
      loaded && (p.yields > 0 || (!pool.options.timeout && freezes == p.freezes_before &&
                                  p.ended_at >= seen.frozen_until && ran >= warm_up() + 300));
  const bool maybe_healthy =
      loaded && (p.yields > 0 || (!pool.options.timeout && now - p.loaded_at >= warm_up()));
  const bool surely_good = asked || succeeded || (surely_healthy && lived >= proof_of_life);
  const bool maybe_good =
      surely_good || p.stolen || (maybe_healthy && known >= proof_of_life - run.slowness);
  n.failures_least = maybe_good ? 0 : n.failures_least + 1;
  n.failures_most = surely_good ? 0 : n.failures_most + 1;
  n.due_from = max(now + backoff_after(n.failures_least), n.started + start_interval);
  n.due_until = max(now + backoff_after(n.failures_most), n.started + start_interval);
  n.delayed_before = delayed;
  n.brief = (p.status == 0 || p.stolen) && loaded && p.let_go_at == never;
  n.process = nullptr;
  n.was_healthy = maybe_healthy || (loaded && (p.status == 0 || p.stolen));
  seen.was_healthy = seen.was_healthy || n.was_healthy;
}

void expect_at_once(Number& n) {
  n.failures_least = n.failures_most = 0;
  n.due_from = n.due_until = max(now, n.started + start_interval);
  n.delayed_before = delayed;
}

// No number that is wanted waits for longer than its backoff.
void check_restarts() {
  for (int i = 0; i < slot_count; i++) {
    const Number& n = numbers[i];
    if (!is_expected(i) || n.process) continue;
    const Ms due = max(n.due_until, seen.fork_from);
    if (now > due + lateness(n.delayed_before))
      broken("worker %d is wanted and was due at %s", i, seconds(due).text);
  }
}

// A place in the room is about to be taken, or was published.
void check_room(int places) {
  const int limit = static_cast<int>(max(1, pool.target / 4));
  const int count = vacant(seen.closed);
  if (places + count > limit)
    broken("room for %d more, %d of %d are vacant: more than a quarter", places, count,
           pool.target);
}

// The master asks a worker to end.
void check_request(int number) {
  Process* p = numbers[number].process;
  if (!p || !is_alive(*p)) return;
  if (!may_shut_down() && number == seen.helper)
    broken("the extra worker works until every number runs the new code");
  if (!may_shut_down() && number < pool.target) {
    if (seen.helper < 0 || !p->old) broken("worker %d is asked to end for no reason", number);
    if (p->let_go_at == never) check_room(1);
  }
  let_go(*p);
  p->left = 0;
}

// The master sends a worker a signal: ABRT and KILL have their times.
void check_signal(const Process& p, int signal) {
  if (signal == SIGABRT) {
    const Ms limit =
        p.yields ? pool.options.timeout : max(pool.options.timeout, pool.options.warm_up);
    const Ms idle = now - p.yielded_at - (frozen - p.frozen_before);
    if (freezes - p.freezes_before < 2 && idle < limit)
      broken("worker %d is aborted %s s after its yield", p.number, seconds(idle).text);
  }
  if (signal != SIGKILL) return;
  const Ms grace = pool.options.grace;
  const bool at_end =
      may_shut_down() && ((grace && now >= seen.stop_at + grace) || seen.second_at != never);
  const bool aborted = p.aborted_at != never && now - p.aborted_at >= 8000;
  const bool not_loaded =
      p.life == Life::Loading && now - p.forked_at >= load_limit() - run.slowness &&
      (seen.trial >= 0 || seen.helper >= 0 || numbers[1024].process || numbers[1025].process);
  if (!at_end && !aborted && !not_loaded) broken("worker %d is killed for no reason", p.number);
}

// A worker that hangs is found.
void check_hanging() {
  for (const Process& p : processes) {
    if (!is_alive(p)) continue;
    const Ms limit =
        p.yields ? pool.options.timeout : max(pool.options.timeout, pool.options.warm_up);
    const bool quiet = freezes == p.freezes_before && p.yielded_at >= seen.frozen_until;
    if (limit && pool.options.timeout && p.aborted_at == never && p.killed_at == never && quiet &&
        now - p.yielded_at > limit * 3 / 2 + 8 * lateness(delayed))
      broken("worker %d has not yielded for one and a half timeouts", p.number);
    if (p.aborted_at != never && p.killed_at == never && quiet &&
        now - p.aborted_at > 8500 + delayed)
      broken("worker %d was aborted, and is to be killed 8 s later", p.number);
  }
}

// At the end of the grace period, or at the second signal, all that is left is killed.
void check_shutdown() {
  if (!may_shut_down()) return;
  const Ms end =
      min(pool.options.grace ? seen.stop_at + pool.options.grace : never, seen.second_at);
  if (end == never || now <= end + lateness(seen.stop_delayed)) return;
  for (const Process& p : processes)
    if (is_alive(p) && p.killed_at == never)
      broken("worker %d must be killed at the end of the grace period", p.number);
}

// Before the master sleeps it has seen all that has ended.
void check_reaped() {
  for (const Process& p : processes)
    if (p.life == Life::Zombie && p.ended_at < now && !pending[SIGCHLD] && bytes_in_pipe == 0)
      broken("worker %d has ended, and is not reaped", p.number);
}

// Whether the master has nothing to wait for but signals.
bool is_idle() {
  if (run.has_manager || pool.options.timeout || may_shut_down() || woken || pending[SIGCHLD])
    return false;
  for (int i = 0; i < pool.target; i++)
    if (!numbers[i].process) return false;
  for (const Process& p : processes)
    if (p.life != Life::Gone && (p.number >= max_workers || p.aborted_at != never)) return false;
  return seen.trial < 0 && seen.helper < 0;
}

// How long the master is about to wait.
void check_wait(int timeout) {
  if (!is_idle()) seen.idle_since = now;
  // A reload that has ended, and code that returns 0 at once, leave a look behind.
  if (timeout >= 0 && now - seen.idle_since > 1000 + max(proof_of_life, warm_up()))
    broken("idle, the master makes no system call at all");
  // While nothing happens it looks every 10 ms at most.
  if (++seen.polls > 60 + (now - seen.polls_since) / 4) broken("the loop spins");
}

// The pool of which every worker fails, and none was ever healthy, does not go on.
void check_hopeless() {
  if (seen.was_healthy || may_shut_down()) return;
  for (const Process& p : processes)
    if (p.life != Life::Gone && p.loaded_at != never &&
        (p.yields > 0 || now - p.loaded_at >= warm_up()))
      return;
  for (int i = 0; i < pool.target; i++)
    if (numbers[i].failures_least <= give_up_after) return;  // a USR2 may have taken the others
  broken("every worker has failed more than five times: the master must give up");
}

// While its queue has room the service manager hears of the master in time.
void check_watchdog() {
  if (run.watchdog && seen.calm &&
      now > max(seen.watchdog_told, seen.stage_at + 200) + run.watchdog / 2 + tolerance)
    broken("WATCHDOG=1 is said twice in WATCHDOG_USEC");
}

// Each USR1 and USR2 has its effect, once.
void check_target() {
  for (int count : arrived)
    if (count > 0) return;
  const int grown = seen.target + seen.grown;
  // At the least target the order counts in which the signals were taken.
  if (seen.target - seen.shrunk < 1 || may_shut_down())
    seen.target = pool.target;
  else
    seen.target = grown - seen.shrunk;
  seen.grown = seen.shrunk = 0;
  if (pool.target != seen.target || pool.target < 1)
    broken("the target is %d, not %d", pool.target, seen.target);
}

// What the log says, and whether that is so.
void read_log(const char* line) {
  const auto says = [&](const char* words) { return strstr(line, words) != nullptr; };
  if (const char* trying = strstr(line, "trying the new code as worker ")) {
    seen.trial = atoi(trying + strlen("trying the new code as worker "));
    seen.tried = run.newest;
    numbers[seen.trial].brief = false;
    expect_at_once(numbers[seen.trial]);
  } else if (says("reload failed")) {
    seen.trial = -1;
    seen.trial_over = true;
  } else if (says("already under way")) {
    seen.trial_over = seen.trial < 0;
  } else if (says("reload succeeded")) {
    const Process* p = numbers[seen.trial].process;
    if (p ? surely_not_healthy(numbers[seen.trial]) : !numbers[seen.trial].was_healthy)
      broken("the trial has passed, but its worker is not healthy");
    // The master measures a pause from the end of its wait, which is at most 0.2 s here.
    const Ms paused = p ? frozen - p->frozen_before : 0;
    if (paused && p->yields == 0 &&
        now - p->loaded_at - paused < warm_up() - 400 * (freezes - p->freezes_before))
      broken("the trial has passed, but its worker could not run for the warm-up");
    seen.helper = seen.trial;
    seen.trial = -1;
    seen.trial_over = true;
    seen.version = seen.tried;
    for (Process& q : processes) q.old = q.life != Life::Gone && &q != p;
    for (Number& n : numbers) {
      const int failures = &n == &numbers[seen.helper] && !n.process ? n.failures_most : 0;
      n.brief = n.brief && &n == &numbers[seen.helper] && !n.process;
      expect_at_once(n);
      n.failures_most = failures;
      n.due_until += backoff_after(failures);
    }
  } else if (says("reload complete")) {
    for (int i = 0; i < pool.target; i++) {
      const Number& n = numbers[i];
      const Process* p = n.process;
      if (!p ? !n.brief : p->old || (is_alive(*p) && !is_healthy(*p) && !n.brief))
        broken("the reload is complete, but worker %d does not run the new code", i);
    }
    seen.helper = -1;
    seen.completed++;
  } else if (const char* target = strstr(line, "the target is now ")) {
    const int told = atoi(target + strlen("the target is now "));
    if (told > seen.told && !numbers[told - 1].process) expect_at_once(numbers[told - 1]);
    seen.told = told;
  } else if (says("giving up")) {
    seen.gave_up = true;
    begin_to_stop();
    if (seen.was_healthy) broken("once a worker has been healthy the master never gives up");
    for (int i = 0; i < pool.target; i++)
      if (numbers[i].failures_most < give_up_after)
        broken("the master gives up, but worker %d has not failed five times", i);
  } else if (const char* number = strstr(line, "critical: worker ");
             says("critical: cannot") ||
             (number && atoi(number + strlen("critical: worker ")) < pool.target)) {
    seen.gave_up = true;
    begin_to_stop();
  }
}

// ---------------------------------------------------------------------------------------------
// The kernel
// ---------------------------------------------------------------------------------------------

struct Descriptor {
  enum { Closed, Pipe, File, Socket } kind;
  int version;
};
constexpr int descriptor_count = 256;
Descriptor descriptors[descriptor_count];

int new_descriptor(Descriptor is) {
  for (int fd = 3; fd < descriptor_count; fd++)
    if (descriptors[fd].kind == Descriptor::Closed) {
      descriptors[fd] = is;
      return fd;
    }
  broken("no descriptor is leaked");
}

int fail(int reason) {
  errno = reason;
  return -1;
}

// Describes the regular file with that version; -1: there is none.
int fill_in(int version, struct stat* is) {
  *is = {};
  is->st_mode = S_IFREG;
  is->st_ino = static_cast<ino_t>(version + 1);
  return version < 0 ? fail(ENOENT) : 0;
}

int version_of(int fd) {
  if (in_worker)
    return fd == in_worker->pool_code.fd ? in_worker->held_by_pool : in_worker->held_by_trial;
  return fd >= 0 && fd < descriptor_count ? descriptors[fd].version : -1;
}

int version_at(const char* path) {
  if (strncmp(path, "/old/", 5) == 0) return run.moves ? atoi(path + 5) : -1;
  if (const char* fd = strstr(path, "/fd/")) return version_of(atoi(fd + 4));
  return run.missing ? -1 : run.newest;
}

static pid_t sim_getpid() { return in_worker ? in_worker->pid : master_pid; }
static pid_t sim_getppid() { return master_pid; }

static pid_t sim_fork() {
  come_between();
  take_time();
  const int number = atoi(number_variable + strlen("FORKD_WORKER="));
  check_fork(number);
  if (fails()) {
    note("fork fails");
    if (number != seen.trial) seen.fork_from = now + backoff_after(++seen.fork_failures);
    return fail(EAGAIN);
  }
  seen.fork_failures = 0;
  Process* free = processes;
  while (free->life != Life::Gone)
    if (++free == processes + process_count) broken("there are more processes than any pool needs");
  Process& p = *free;
  p = {.life = Life::Loading,
       .pid = next_pid++,
       .number = number,
       .forked_at = now,
       .yielded_at = now,
       .let_go_at = never,
       .aborted_at = never,
       .killed_at = never,
       .frozen_before = frozen,
       .freezes_before = freezes,
       .trial = pool.reload.trial,
       .pool_code = pool_code,
       .trial_code = trial_code,
       .held_by_pool = version_of(pool_code.fd),
       .held_by_trial = version_of(trial_code.fd)};
  p.self = {.line = &shared->line[number], .number = number, .pid = p.pid};
  p.loaded_at = never;
  p.expected = run.kind != Kind::Library ? -1 : number == seen.trial ? seen.tried : seen.version;
  p.version = p.expected >= 0 ? p.expected : run.newest;
  choose_plan(p, number);
  p.next_at = now + p.load;
  Number& n = numbers[number];
  n.process = &p;
  n.started = now;
  moment++;
  check_count();
  return p.pid;
}

static int sim_kill(pid_t pid, int signal) {
  come_between();
  Process* p = process_of(pid < 0 ? -pid : pid);
  if (pid == -1 || pid == 0 || !p) broken("signal %d to %d, which is no worker", signal, pid);
  note("signal %d to %d, worker %d", signal, pid, p->number);
  if (p->stolen) return fail(ESRCH);
  if (!is_alive(*p)) return 0;
  if (pid > 0) check_signal(*p, signal);
  if (signal == SIGABRT) p->aborted_at = now;
  if (signal == SIGKILL) p->killed_at = now;
  if (p->untouchable) return fail(EPERM);
  if (signal == SIGKILL)
    end(*p, SIGKILL);
  else
    receive(*p, signal);
  return 0;
}

void reaped(Process& p) {
  expect_restart(p);
  const bool forced = p.killed_at != never || p.aborted_at != never;
  if (may_shut_down() && forced && WIFSIGNALED(p.status) && !p.stolen) seen.killed = true;
  p.life = Life::Gone;
}

static pid_t sim_waitpid(pid_t pid, int* status, int) {
  come_between();
  if (fails(4)) return fail(EINTR);
  Process* p = process_of(pid);
  if (!p) return fail(ECHILD);
  if (p->life != Life::Zombie) return 0;
  reaped(*p);
  if (p->stolen) return fail(ECHILD);
  *status = p->status;
  return pid;
}

static int sim_waitid(idtype_t, id_t, siginfo_t* info, int) {
  come_between();
  if (fails(4)) return fail(EINTR);
  for (Process& p : processes)
    if (p.life == Life::Zombie && !p.stolen) {
      info->si_pid = p.pid;
      break;
    }
  return 0;
}

static int sim_poll(pollfd*, nfds_t, int timeout) {
  come_between();
  check_wait(timeout);
  check_target();
  if (timeout != 0) {
    check_reaped();
    check_restarts();
    check_hanging();
    check_shutdown();
    check_hopeless();
    check_watchdog();
  }
  if (fails(2)) {
    if (one_in(2)) return fail(EINTR);
    seen.no_memory_until = now + 30;
  }
  if (now < seen.no_memory_until) return fail(ENOMEM);
  const Ms deadline = timeout < 0 ? never : now + timeout;
  for (;;) {
    if (now >= seen.frozen_until) {
      if (deliver_signals()) return fail(EINTR);
      if (bytes_in_pipe > 0) return 1;
      if (now >= deadline) return 0;
    }
    Process* first = nullptr;
    for (Process& p : processes)
      if (is_alive(p) && (!first || p.next_at < first->next_at)) first = &p;
    const Ms next = min(first ? first->next_at : never, seen.next_event);
    now = max(now, min(next, now < seen.frozen_until ? seen.frozen_until : deadline));
    if (now < next) continue;
    seen.polls = 0;
    seen.polls_since = now;
    if (seen.next_event <= now)
      happen();
    else
      act(*first);
  }
}

static int sim_clock_gettime(clockid_t, timespec* time) {
  *time = {.tv_sec = static_cast<time_t>(now / 1000),
           .tv_nsec = static_cast<long>(now % 1000 * 1000000)};
  return 0;
}

static int sim_nanosleep(const timespec* time, timespec*) {
  now += time->tv_nsec / 1000000;
  delayed += time->tv_nsec / 1000000;
  return 0;
}

static int sim_pipe2(int ends[2], int) {
  for (int i = 0; i < 2; i++)
    ends[i] = in_worker ? 1000 + i : new_descriptor({Descriptor::Pipe, -1});
  return 0;
}

static ssize_t sim_read(int, void*, size_t size) {
  come_between();
  const int count = bytes_in_pipe;
  bytes_in_pipe = static_cast<int>(max(0, count - static_cast<Ms>(size)));
  return count ? count - bytes_in_pipe : fail(EAGAIN);
}

static ssize_t sim_write(int fd, const void* data, size_t size) {
  if (in_worker) {
    in_worker->readable = true;
  } else if (fd != STDERR_FILENO) {
    bytes_in_pipe++;
  } else {
    note("%.*s", static_cast<int>(size) - 1, static_cast<const char*>(data));
    read_log(trace[(traced - 1) % trace_size]);
    come_between();
  }
  return static_cast<ssize_t>(size);
}

static int sim_open(const char* path, int) {
  come_between();
  const int version = version_at(path);
  if (version < 0 || fails()) return fail(version < 0 ? ENOENT : EMFILE);
  (seen.trial >= 0 ? seen.tried : seen.version) = version;
  return new_descriptor({Descriptor::File, version});
}
static int sim_close(int fd) {
  if (!in_worker) descriptors[fd].kind = Descriptor::Closed;
  return 0;
}
static int sim_duplicate(int fd) { return new_descriptor(descriptors[fd]); }
static int sim_file_of(int fd, struct stat* is) {
  return fill_in(in_worker ? fd : version_of(fd), is);
}
static int sim_file_at(const char* path, struct stat* is) { return fill_in(version_at(path), is); }
static int sim_socket(int, int, int) { return new_descriptor({Descriptor::Socket, -1}); }

static ssize_t sim_readlink(const char* path, char* buffer, size_t size) {
  const char* fd = strstr(path, "/fd/");
  return fd ? snprintf(buffer, size, "/old/%d", version_of(atoi(fd + 4)))
            : snprintf(buffer, size, "%d", in_worker->pid);
}

static int sim_set_mask(int, const sigset_t* mask, sigset_t* before) {
  if (in_worker) return 0;
  if (before) sigemptyset(before);  // all is unblocked but around a fork
  blocked = mask && sigismember(mask, SIGCHLD) == 1;
  deliver_signals();
  return 0;
}

static int run_worker(int, char**) { leave_worker(); }

static void* sim_dlopen(const char* path, int) {
  Process& p = *in_worker;
  p.version = version_at(path);
  note("worker %d (pid %d) loads version %d", p.number, p.pid, p.version);
  if (p.version != p.expected)
    broken("worker %d must run version %d, not %d", p.number, p.expected, p.version);
  return p.plan == Plan::FailsToLoad ? nullptr : &p;
}
static void* sim_dlsym(void*, const char*) { return reinterpret_cast<void*>(run_worker); }
static char* sim_dlerror() {
  static char text[] = "bad code";
  return text;
}
static int sim_execvp(const char*, char* const*) {
  if (in_worker->plan != Plan::FailsToLoad) leave_worker();
  return fail(ENOEXEC);
}
static void sim_exit(int status) {
  end(*in_worker, status << 8);
  leave_worker();
}

static char* sim_getenv(const char* name) {
  static char path[] = "@manager", usec[32];
  snprintf(usec, sizeof usec, "%lld", run.watchdog * 1000);
  if (strcmp(name, "NOTIFY_SOCKET") == 0 && run.has_manager) return path;
  if (strcmp(name, "WATCHDOG_USEC") == 0 && run.watchdog) return usec;
  return nullptr;
}

void after_store(const void* at) {
  if (!shared) return;
  const auto* byte = static_cast<const char*>(at);
  const auto* lines = reinterpret_cast<const char*>(shared->line);
  if (at == &shared->room) {
    if (in_worker) {
      let_go(*in_worker);
      in_worker->left = 0;
    } else if (shared->room == 0) {
      seen.closed = moment;
    } else {
      check_room(shared->room);
    }
  } else if (byte >= lines && byte < lines + sizeof shared->line) {
    const int number = static_cast<int>(static_cast<size_t>(byte - lines) / sizeof(Line));
    const Line& line = shared->line[number];
    if (in_worker && at == &line.yields) {
      Process& p = *in_worker;
      p.yields++;
      p.yielded_at = now;
      p.frozen_before = frozen;
      p.freezes_before = freezes;
    }
    if (at != &line.request || line.request != Request::End) return;
    if (in_worker)
      let_go(*in_worker);
    else
      check_request(number);
  }
}

void after_exchange(const void* at, int was) {
  if (at != &arrived[OnReload] || was == 0 || may_shut_down()) return;
  seen.hup = seen.ready;
  seen.refused = true;
  seen.trial_over = false;
}

// The service manager.
static ssize_t sim_sendto(int, const void* data, size_t size, int, const sockaddr*, socklen_t) {
  come_between();
  const auto* text = static_cast<const char*>(data);
  const auto is = [&](const char* words) { return strncmp(text, words, strlen(words)) == 0; };
  if (is("READY=1") && !seen.ready && !seen.refused)
    for (int i = 0; i < pool.target; i++)
      if (surely_not_healthy(numbers[i])) broken("READY=1, but worker %d is not healthy", i);
  if (seen.full) seen.refused = true;
  if (seen.full) return fail(EAGAIN);
  note("to the manager: %.*s", static_cast<int>(size), text);
  if (is("WATCHDOG=1")) {
    seen.watchdog_told = now;
    return static_cast<ssize_t>(size);
  }
  if (seen.stopping) broken("STOPPING=1 is the last word");
  if (is("READY=1")) {
    if (seen.hup && seen.ready) broken("READY=1 after a HUP of which no RELOADING=1 has told");
    if (seen.reloading && !seen.trial_over) broken("READY=1, but the trial is not over");
    seen.ready = true;
    seen.reloading = false;
  } else if (is("RELOADING=1")) {
    seen.reloading = true;
    seen.hup = false;
  } else if (is("STOPPING=1")) {
    seen.stopping = true;
  }
  if (const char* status = strstr(text, "STATUS="))
    snprintf(seen.status, sizeof seen.status, "%.*s", static_cast<int>(text + size - status),
             status);
  return static_cast<ssize_t>(size);
}

// ---------------------------------------------------------------------------------------------
// The script
// ---------------------------------------------------------------------------------------------

// A new file at the path.
void deploy(bool good) {
  if (run.newest + 1 < version_count) run.newest++;
  Version& version = run.versions[run.newest];
  version = {};
  if (good || one_in(3)) {
    version.plan = one_in(3) ? Plan::Polls : Plan::Works;
    version.load = good ? 20 : up_to(50);
    version.task = good ? 50 : up_to(300);
  } else {
    version.plan = static_cast<Plan>(below(plan_count));
    version.oddity = below(5);
    version.bad_number = one_in(6) ? static_cast<int>(below(4)) : -1;
    version.load = one_in(4) ? up_to(4000) : up_to(100);
    version.task = one_in(4) ? up_to(3000) : up_to(300);
  }
  note("version %d: plan %d, oddity %u, bad number %d", run.newest, static_cast<int>(version.plan),
       version.oddity, version.bad_number);
}

// A worker that is at work; null: the one that was drawn is not.
Process* any_worker() {
  Process& p = processes[below(16)];
  return is_alive(p) ? &p : nullptr;
}

void freeze(bool all) {
  const Ms time = 200 + up_to(one_in(3) ? 20000 : 2000);
  note("frozen for %lld ms, %s", time, all ? "all" : "the master alone");
  freezes++;
  delayed += time;
  if (!all) {
    seen.frozen_until = now + time;
    return;
  }
  frozen += time;
  now += time;
  seen.frozen_until = now;
}

void do_something() {
  Process* p = any_worker();
  const int stops[] = {SIGTERM, SIGINT, SIGQUIT};
  switch (below(16)) {
  case 0: return raise_signal(SIGUSR1);
  case 1: return raise_signal(SIGUSR2);
  case 2:
  case 3:
  case 4: deploy(false); [[fallthrough]];
  case 5: return raise_signal(SIGHUP);
  case 6:
    if (p) end(*p, one_in(2) ? SIGSEGV : SIGKILL);
    return;
  case 7:
    if (p) receive(*p, one_in(2) ? SIGTERM : SIGHUP);
    return;
  case 8:
    if (p && p->plan == Plan::Works) p->plan = Plan::Hangs;
    return;
  case 9:
    if (p && run.kind == Kind::Function) {
      end(*p, one_in(2) ? 0 : SIGSEGV);
      p->stolen = true;
    }
    return;
  case 10:
    if (run.freezes && !interleaving) freeze(one_in(2));
    return;
  case 11: seen.full = one_in(2); return;
  case 12: run.missing = one_in(3); return;
  case 13:
    if (run.stops_early && one_in(2)) raise_signal(stops[below(3)]);
    return;
  case 14:
    if (p) p->task = 1 + up_to(one_in(4) ? 5000 : 200);
    return;
  case 15:
    if (p && run.kind != Kind::Command && is_alive(*p) && p->life == Life::Working &&
        p->next_at != never)
      p->next_at = now;
    return;
  }
}

// All is good from here on: no call fails or is slow, and each worker yields.
void make_good() {
  note("all is made good");
  seen.stage_at = now;
  seen.calm = true;
  seen.full = run.missing = false;
  for (Process& p : processes) {
    if (!is_alive(p)) continue;
    p.readable = p.readable || (p.let_go_at != never && p.plan == Plan::Polls);
    p.deaf = p.untouchable = false;
    p.load = p.task = p.last_task = 20;
    if (p.plan != Plan::Polls) p.plan = Plan::Works;
    p.next_at = now;
    if (run.kind != Kind::Command || p.life != Life::Working) continue;
    p.next_at = never;
    if (p.let_go_at != never) receive(p, SIGTERM);
  }
  for (Version& version : run.versions)
    version = {.plan = version.plan == Plan::Polls ? Plan::Polls : Plan::Works,
               .oddity = 0,
               .bad_number = -1,
               .load = 20,
               .task = 50};
}

// How long a roll of good workers takes at most.
Ms rolls_within() {
  const Ms rounds = pool.target / max(1, pool.target / 4) + 2;
  return 2000 + rounds * (1500 + warm_up());
}

// After a good reload: every number runs the new code, and the service manager knows.
void check_whole() {
  for (int i = 0; i < pool.target; i++) {
    const Process* p = numbers[i].process;
    if (!p || p->old || p->life != Life::Working)
      broken("a good reload must end: worker %d is not on the new code", i);
  }
  if (!run.has_manager) return;
  char status[100];
  snprintf(status, sizeof status, "STATUS=%d of %d workers healthy; last reload: succeeded",
           pool.target, pool.target);
  if (!seen.ready || seen.reloading) broken("READY=1 is never lost");
  if (strcmp(status, seen.status) != 0)
    broken("the manager must know: %s, not %s", status, seen.status);
}

// The end of a run, in stages. All is good; a reload; and the shutdown, at once or amid two more
// reloads.
void end_well() {
  const auto next_stage = [](Ms after) {
    seen.stage++;
    seen.next_event = now + after;
  };
  if (may_shut_down()) {
    if (seen.stage_at == 0) seen.stage_at = now;
    if (now > seen.stage_at + delayed + 60000) broken("a shutdown must end");
    if (seen.second_at == never && pool.options.grace == 0) raise_signal(SIGTERM);
    seen.next_event = now + 5000;
    return;
  }
  switch (seen.stage) {
  case 0: make_good(); return next_stage(2 * load_limit() + 20000);
  case 1:
    deploy(true);
    raise_signal(SIGHUP);
    seen.completed_before = seen.completed;
    return next_stage(rolls_within());
  case 2:
    check_whole();
    if (seen.completed == seen.completed_before) broken("a good reload must end");
    if (one_in(2)) {
      seen.stage = 3;
      if (one_in(2)) deploy(true);
      raise_signal(SIGHUP);
      return next_stage(up_to(150));
    }
    [[fallthrough]];
  case 3: raise_signal(SIGTERM); return next_stage(5000);
  case 4:
    if (one_in(2)) deploy(true);
    raise_signal(SIGHUP);
    seen.stage = 2;
    return next_stage(up_to(150));
  }
}

void happen() {
  if (now < run.script_end) {
    const bool burst = one_in(4);
    seen.next_event = now + (burst ? up_to(5) : up_to(2000));
    do_something();
  } else {
    end_well();
  }
}

// ---------------------------------------------------------------------------------------------
// A seed
// ---------------------------------------------------------------------------------------------

void choose_run(unsigned long seed, bool verbose, Options& options) {
  run = {};
  run.random = seed;
  run.seed = seed;
  run.verbose = verbose;
  const unsigned densities[] = {0, 100, 20, 4};
  const unsigned failing[] = {0, 0, 200, 20};
  const Ms grace[] = {0, 1000, 3000, 8000}, warm_up[] = {0, 200, 1000, 8000};
  run.kind = static_cast<Kind>(below(3));
  run.density = densities[below(4)];
  run.failing = failing[below(4)];
  run.slowness = one_in(4) ? up_to(30) : 0;
  run.freezes = one_in(4);
  run.moves = one_in(2);
  run.has_manager = one_in(2);
  run.watchdog = run.has_manager && one_in(2) ? 500 + up_to(4000) : 0;
  run.stops_early = one_in(4);
  run.newest = -1;
  options.workers = static_cast<int>(1 + (one_in(4) ? below(20) : below(5)));
  options.grace = grace[below(4)];
  options.warm_up = warm_up[below(4)];
  if (run.kind != Kind::Command && one_in(3)) options.timeout = 300 + up_to(3000);
  options.log_level = one_in(2) ? LOG_DEBUG : LOG_INFO;
}

// As at the start of a process.
void reset() {
  now = 1000000;
  delayed = frozen = 0;
  freezes = 0;
  moment = 0;
  traced = 0;
  next_pid = 1000;
  interleaving = blocked = false;
  in_worker = nullptr;
  stepping = false;
  bytes_in_pipe = 0;
  until_next = 0;
  for (Process& p : processes) p.life = Life::Gone;
  for (Number& n : numbers) n = {};
  for (bool& is_pending : pending) is_pending = false;
  for (Descriptor& d : descriptors) d = {};
  seen = {};
  for (int& count : arrived) count = 0;
  woken = second_stop = false;
  first_stop_at = 0;
  handling = 0;
  self = {};
  running = true;
}

// The master has ended: when, what it has left, what it has said, and its status.
void check_end(int status) {
  const bool had_second = seen.second_at != never;
  Ms end = seen.ended_at;
  bool immune = false;
  for (const Process& p : processes)
    if (p.life != Life::Gone) {
      immune = true;
      if (p.life == Life::Zombie || p.killed_at == never)
        broken("the master ends, but worker %d is left", p.number);
      end = max(end, p.killed_at);
    }
  if (!may_shut_down()) broken("the master ends, but nobody asked it to");
  end = max(end, seen.stop_at);
  if (now > end + lateness(seen.stop_delayed))
    broken("the master ends when the last worker has gone");
  const int expected = seen.gave_up ? exit_failed : seen.killed || immune ? exit_killed : 0;
  if (status != expected) broken("the exit status is %d, not %d", status, expected);
  if (run.has_manager && seen.reloading && !seen.stopping && !seen.full)
    broken("RELOADING=1 is followed by READY=1 or STOPPING=1");
  if (run.has_manager && seen.calm && !seen.gave_up && !seen.stopping)
    broken("STOPPING=1 is said at the end");
  if (seen.calm && seen.stage > 0 && seen.stop_at > run.script_end && !seen.gave_up &&
      !had_second && now - seen.stop_at > 200)
    broken("the shutdown took %s s: a request was missed", seconds(now - seen.stop_at).text);
}

void run_seed(unsigned long seed, bool verbose) {
  static char name[] = "./code.so:run";
  static char* arguments[] = {name, nullptr};
  reset();
  Options options;
  choose_run(seed, verbose, options);
  note("seed %lu: kind %d, -n %d -g %s", seed, static_cast<int>(run.kind), options.workers,
       seconds(options.grace).text);
  note("  -w %s -t %s, a manager: %d", seconds(options.warm_up).text, seconds(options.timeout).text,
       run.has_manager);
  deploy(one_in(2));
  run.script_end = now + 2000 + up_to(20000);
  seen.next_event = now + up_to(500);
  seen.target = seen.told = options.workers;
  for (int i = 0; i < slot_count; i++) {
    numbers[i].due_from = 0;
    numbers[i].due_until = now;
  }
  seen.version = run.newest;
  master_pid = one_in(8) ? 1 : 100;
  Job job{.spec = name, .argc = 1, .argv = arguments};
  if (run.kind == Kind::Function) job.function = run_worker;
  if (run.kind == Kind::Library) {
    job.path = "./code.so";
    job.symbol = "run";
  }
  const int status = run_pool(job, options);
  note("the master ends with status %d", status);
  check_end(status);
  release();
  for (const Descriptor& d : descriptors)
    if (d.kind != Descriptor::Closed) broken("the master leaves no descriptor open");
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: simulate FIRST_SEED COUNT [-v]\n");
    return 2;
  }
  const unsigned long first = strtoul(argv[1], nullptr, 10), count = strtoul(argv[2], nullptr, 10);
  for (unsigned long seed = first; seed < first + count; seed++) run_seed(seed, argc > 3);
}
