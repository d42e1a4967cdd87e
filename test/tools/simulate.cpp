// Simulates forkd's master: its real loop on virtual time, with a kernel and workers made here.
//
//   simulate FIRST_SEED COUNT [-v]     -v prints all that happens
//
// forkd.cpp is the code under test, with its system calls replaced. A seed chooses the options, the
// kind of worker, what each version of the code does, and what happens when: signals, new files,
// deaths, a frozen container, a full queue, calls that fail. The same seed gives the same run.
//
// Time passes in poll(2) alone: so whatever is due has been done when the master sleeps again. A
// worker is a struct with the time of its next act. It asks the real forkd_yield() whether to go
// on. Before each access to shared memory, and in system calls, something may come between: in the
// master, a signal or an act of a worker; in forkd_yield(), a signal or a whole turn of the master.
//
// In the end all is made good: code works, and calls succeed. The pool must then become whole,
// finish three reloads, and end. Each check_...() holds a rule of the contract. When one is broken
// the program prints all that happened with that seed, the rule last, and exits with 1.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace {

using Ms = long long;

// ---------------------------------------------------------------------------------------------
// The run
// ---------------------------------------------------------------------------------------------

enum class Kind { Function, Library, Command };
enum class Plan { Works, Polls, Returns, Crashes, Hangs, NeverLoads, FailsToLoad };
enum class Life { Loading, Working, Leaving, Dead };

// What the seed has chosen.
struct {
  unsigned long seed;
  unsigned long long random;
  bool verbose;
  Kind kind;
  unsigned density;  // something comes between each so many accesses, about; 0: never
  unsigned failing;  // one call in so many fails; 0: none
  unsigned oddity;   // one worker in so many has another plan than its version; 0: none
  bool freezes, stops, has_manager;
  bool has_dead_child;  // of the application, which waitid(2) finds first
  Ms script_end;        // when all is made good
  Plan versions[64];
  int newest = -1;  // the version at the path
} run;

// A worker number, and its process.
struct Worker {
  int number;
  bool away;   // its worker was let go, and the next is not healthy yet
  bool brief;  // the last process returned 0 by itself
  Ms started;
  int failures_least, failures_most;  // in a row
  Ms due_from, due_until;             // when the next start is due
  pid_t pid;                          // 0: there is no process, and the following means nothing
  Life life;
  Plan plan;
  int version, status;       // of its code; with which it ends
  Ms task;                   // how long one takes
  bool in_call;              // it is within forkd_yield() or forkd_stop_fd()
  bool told;                 // its stop descriptor is readable
  bool immune, killed;       // kill(2) fails; has got SIGKILL, or was to get it
  int freezes;               // in its life
  Ms forked_at, aborted_at;  // by the master's clock; never: not at all
  Ms loaded_at, first_yield_at, yielded_at, asked_at;  // in awake() time; never: not at all
  Ms next_at;                                          // never: not at all
  Ms group_until;  // when the last of what a command has left in its group ends
} workers[32];     // 0 to 23, and 1024 to 1031

Ms now = 1000000;
Ms frozen;          // how much of that
bool calm;          // all has been made good
Worker* in_worker;  // the one whose code runs; null: the master's
bool pending[65];   // signals to the master
bool blocked;       // they are
int bytes_in_pipe;  // of its self-pipe
int open_files;

#define note(...) (run.verbose ? (printf("%lld ", now), printf(__VA_ARGS__), puts("")) : 0)
#define broken(...)                                                                                \
  (printf("seed %lu at %lld: ", run.seed, now), printf(__VA_ARGS__), puts(""), exit(1))

unsigned below(unsigned n) {
  run.random = run.random * 6364136223846793005 + 1442695040888963407;
  return static_cast<unsigned>(run.random >> 33) % n;
}
bool one_in(unsigned n) { return n && below(n) == 0; }
bool call_fails() { return !calm && one_in(run.failing); }

// ---------------------------------------------------------------------------------------------
// The kernel
// ---------------------------------------------------------------------------------------------

void between();                     // before an access
bool stored(const void* at);        // after one that has changed the memory there
int taken(const int* at, int was);  // after an exchange
void deliver_signals();
pid_t fork_worker();
int send_signal(pid_t pid, int signal);
pid_t reap(pid_t pid, int* status);
ssize_t take_line(const char* text, size_t size);
ssize_t take_message(const char* text);
int wait_for_byte(const pollfd*, int timeout);
ssize_t take_byte() { return in_worker ? in_worker->told = true : ++bytes_in_pipe; }

int fail(int reason) { return errno = reason, -1; }

int find_dead(siginfo_t* info) {
  between();
  if (call_fails()) return fail(EINTR);
  info->si_pid = run.has_dead_child;  // as pid 1
  for (const Worker& w : workers)
    if (w.pid && w.life == Life::Dead && info->si_pid == 0) info->si_pid = w.pid;
  return 0;
}
int set_mask(const sigset_t* mask, sigset_t* before) {
  if (before) sigemptyset(before);  // all is unblocked but around a fork
  blocked = mask && sigismember(mask, SIGCHLD) == 1;
  deliver_signals();
  return 0;
}
int tell_time(timespec* time) {
  time->tv_sec = static_cast<time_t>(now / 1000);
  time->tv_nsec = static_cast<long>(now % 1000 * 1000000);
  return 0;
}
char manager_address[] = "@manager";

// The number of a descriptor of the code says which version it is.
constexpr int first_file = 100;

int new_file(int fd) { return open_files++, fd; }
int open_path() { return call_fails() ? fail(EMFILE) : new_file(first_file + run.newest); }
int describe(int fd, struct stat* is) {
  *is = {};
  is->st_mode = S_IFREG;
  is->st_ino = static_cast<ino_t>(fd);
  return 0;
}
// An open file, or the newest version.
int file_at(const char* path) {
  const char* held = "/proc/self/fd/";
  return strncmp(path, held, strlen(held)) == 0 ? atoi(path + strlen(held))
                                                : first_file + run.newest;
}
ssize_t read_all(char*) {
  between();
  const int all = bytes_in_pipe;
  bytes_in_pipe = 0;
  return all ? all : fail(EAGAIN);
}

}  // namespace

#define __atomic_load(...) (between(), __atomic_load(__VA_ARGS__))
#define __atomic_store(to, ...) (between(), __atomic_store(to, __VA_ARGS__), stored(to))
#define __atomic_compare_exchange(at, ...)                                                         \
  (between(), __atomic_compare_exchange(at, __VA_ARGS__) && stored(at))
#define __atomic_exchange_n(at, ...) (between(), taken(at, __atomic_exchange_n(at, __VA_ARGS__)))
#define clock_gettime(clock, time) tell_time(time)
#define close(fd) (void)open_files--
#define fcntl(fd, ...) new_file(fd)
#define fork() fork_worker()
#define fstat(fd, is) describe(fd, is)
#define getenv(name)                                                                               \
  (run.has_manager && strcmp(name, "NOTIFY_SOCKET") == 0 ? manager_address : nullptr)
#define getpid() (in_worker ? in_worker->pid : master_pid)
#define getppid() master_pid
#define kill(pid, signal) send_signal(pid, signal)
#define open(...) open_path()
#define pipe2(ends, flags) ((ends)[0] = (ends)[1] = new_file(first_file), open_files++, 0)
#define poll(fds, count, timeout) wait_for_byte(fds, timeout)
#define pthread_sigmask(how, mask, before) set_mask(mask, before)
#define read(fd, data, size) read_all(data)
#define sendto(fd, text, ...) take_message(text)
#define setpgid(pid, group) fail(ESRCH)
#define socket(family, type, protocol) new_file(first_file + 0 * (type))
#define stat(path, is) describe(file_at(path), is)
#define waitid(type, id, info, flags) find_dead(info)
#define waitpid(pid, status, flags) reap(pid, status)
#define write(fd, data, size) (fd == STDERR_FILENO ? take_line(data, size) : take_byte())
#define main forkd_main
#define take_turn forkd_turn
#include "../../forkd.cpp"
#undef main
#undef take_turn
#undef fork
#undef waitpid

namespace {

// ---------------------------------------------------------------------------------------------
// The rules
// ---------------------------------------------------------------------------------------------

// What has happened so far.
struct {
  int target = 0;                    // as the signals want it
  int arrived[event_count] = {};     // signals that the master has not taken yet
  Ms first_stop = 0, last_stop = 0;  // signals
  Ms room_limit = 0;
  int fork_failures = 0;
  Ms fork_at = 0;           // not before this
  int version = -1;         // of the code that should be the pool's; -1: none yet;
  int version_before = 0;   // and of that to which it may go back, or which it has given up
  bool ready = false;       // READY=1 was said
  bool reloading = false;   // RELOADING=1 was said, and READY=1 not since
  Ms refused_at = 0;        // when the queue of the service manager was full
  bool hup_untold = false;  // a HUP was taken, and RELOADING=1 not said yet
  bool stopping = false;
} seen;

Ms awake() { return now - frozen; }  // the time in which anything could run
Ms clock() {
  return now - paused;
}  // that of the master, which misses a freeze that ends within a wait
Line& line_of(const Worker& w) { return shared->line[w.number]; }
bool is_loaded(const Worker& w) { return line_of(w).phase == Phase::Loaded; }
bool has_yielded(const Worker& w) { return line_of(w).yields > 0; }
bool is_alive(const Worker& w) { return w.pid && w.life != Life::Dead; }
bool is_group_left(const Worker& w) { return now < w.group_until; }
int version_of(const Code& code) { return static_cast<int>(code.file.st_ino) - first_file; }
bool is_old(const Worker& w) { return w.pid && slots[w.number].code != pool_code.number; }

// Whether it may count as healthy; or, with a delay, has to. Waits are no longer than a second.
bool is_healthy(const Worker& w, Ms delay = 0) {
  const Ms time = awake() - delay + (delay ? 0 : 1000 * w.freezes);
  const Ms proof = min(second, pool.options.warm_up);
  const bool ripe = !pool.options.timeout && time >= w.loaded_at + warm_up();
  const bool proven = has_yielded(w) && time >= w.first_yield_at + proof;
  return w.pid && is_loaded(w) && (proven || ripe);
}
Worker& worker_with(int number) { return workers[number % 1000]; }

Ms backoff_after(int failures) { return failures ? min(50 << min(failures, 10), 10000) : 0; }
void expect_start(Worker& n, int failures_least, int failures_most) {
  const Ms earliest = n.started ? n.started + start_interval : 0;
  n.failures_least = failures_least;
  n.failures_most = failures_most;
  n.due_from = max(clock() + backoff_after(failures_least), earliest);
  n.due_until = max(clock() + backoff_after(failures_most), earliest);
}

bool is_new_trial(const Worker& w) {
  return pool.reload.trial == &slots[w.number] && !pool.reload.tries_old;
}

// A process is to be forked.
void check_start(const Worker& w) {
  if (w.pid || is_group_left(w)) broken("never two processes under one number: %d", w.number);
  if (pool.shutdown.begun) broken("nothing is started during a shutdown");
  if (w.started && clock() < w.started + start_interval)
    broken("no number starts more than ten times a second: %d", w.number);
  if (clock() < seen.fork_at && !is_new_trial(w)) broken("after a fork that failed the pool waits");
  if (w.number < max_workers && clock() < w.due_from)
    broken("worker %d must wait until its backoff is over", w.number);
}

// Whether its worker was let go and the next is not healthy yet. One that does not end within the
// grace period counts as back.
bool is_away(const Worker& w) {
  const bool at_work = w.asked_at == never
                           ? is_healthy(w)
                           : awake() + 1000 * w.freezes >= w.asked_at + finite_grace();
  return w.away && !(w.pid && at_work);
}

bool lets_go() { return pool.reload.roll == Roll::Forward || pool.reload.roll == Roll::Back; }

// A worker is let go in a roll.
void check_room(Worker& w) {
  int away = 0;
  w.away = true;
  w.asked_at = awake();
  if (!in_worker) seen.room_limit = max(1, pool.target / 4);
  if (&slots[w.number] == pool.reload.trial) broken("the worker on trial is let go");
  if (!lets_go()) broken("worker %d is let go, though no roll is under way", w.number);
  for (Worker& n : workers)  // the helper counts as a number
    if (n.number < pool.target || &slots[n.number] == pool.reload.helper)
      away += n.away = is_away(n);
  if (away > seen.room_limit)
    broken("%d of %d workers were let go and are not back: no room for that", away, pool.target);
}

void check_yield(const Worker& w, bool goes_on, bool was_asked) {
  if (goes_on && was_asked) broken("worker %d was asked to end, but forkd_yield goes on", w.number);
  if (!goes_on && w.asked_at == never) broken("worker %d is let go for no reason", w.number);
}

// A yield of just now may have come after the look. Of a freeze the clock misses less than a wait,
// a fifth of the timeout, and the worker has one fifth more.
void check_abort(const Worker& w) {
  const Options& o = pool.options;
  const Ms limit = has_yielded(w) ? o.timeout : max(o.timeout, o.warm_up);
  const Ms idle = awake() - w.yielded_at;
  const Ms missed = max(0, w.freezes - 1) * o.timeout / 5 + w.freezes * (pause_slack + 2);
  if (idle > 0 && idle + missed < limit)
    broken("worker %d is aborted before its timeout", w.number);
}

// Whether a shutdown has come to where it kills.
bool is_over(Ms tolerance = 0) {
  const Ms grace = pool.options.grace, second_at = seen.first_stop + echo_time;
  const bool grace_over = grace && clock() >= pool.shutdown.since + grace;
  return pool.shutdown.begun && (grace_over || seen.last_stop > second_at - tolerance);
}

void check_kill(const Worker& w) {
  const bool aborted = w.aborted_at != never && clock() >= w.aborted_at + finite_grace();
  const bool loads = w.life == Life::Loading || w.loaded_at == awake();  // after the look
  const bool late = loads && !pool.shutdown.begun && clock() >= w.forked_at + load_limit();
  if (!is_over(2) && !aborted && !late) broken("worker %d is killed for no reason", w.number);
}

void check_trial(const Worker& w) {
  const Ms canary = pool.reload.tries_old ? 0 : pool.options.canary;
  const bool is_first = w.forked_at < pool.reload.trial_since + start_interval;
  if (w.pid && is_first && !w.brief && !is_healthy(w))
    broken("the trial has passed, but its worker is not healthy");
  if (w.pid && w.aborted_at != never) broken("the trial has passed, but its worker is aborted");
  if (clock() < pool.reload.trial_since + canary)
    broken("the trial has passed before the canary time is over");
}

// A roll has reached its end.
void check_roll() {
  for (int i = 0; i < pool.target; i++)
    if (is_old(workers[i])) broken("the roll is over, but worker %d runs other code", i);
}

void check_message(bool is_ready) {
  if (seen.stopping) broken("nothing is said after STOPPING=1");
  if (is_ready && seen.hup_untold) broken("READY=1 after a HUP, but no RELOADING=1 before it");
  for (int i = 0; is_ready && !seen.ready && i < pool.target; i++)
    if (!is_healthy(workers[i]) && !workers[i].brief)
      broken("READY=1, but worker %d is not healthy", i);
}

// The following are true whenever the master sleeps.
void check_reload() {
  const Reload& reload = pool.reload;
  for (const Worker& w : workers) {
    const Slot* slot = &slots[w.number];
    const bool has_part = slot == reload.trial || slot == reload.helper;
    if (w.number >= max_workers && is_alive(w) && !has_part && w.asked_at == never)
      broken("extra worker %d has no part in a reload, but is not asked to end", w.number);
    if (is_alive(w) && slot->code == pool_code.number && line_of(w).request == Request::WhenRoom)
      broken("worker %d runs the pool's code, but is to end when there is room", w.number);
    if (run.kind == Kind::Library && reload.roll == Roll::Forward && is_wanted(*slot) &&
        slot != reload.trial && w.failures_least >= 2)
      broken("the new code has failed twice in a row as worker %d, but the pool keeps it",
             w.number);
  }
  if (reload.roll == Roll::None && other_code.fd >= 0 && !pool.shutdown.begun)
    broken("no roll, but its old code is still open");
  if (run.has_manager && clock() > seen.refused_at + retry_interval && !pool.shutdown.begun) {
    if (seen.hup_untold) broken("a HUP was taken, but RELOADING=1 is not said");
    if (seen.reloading && reload.stage != Stage::Trial)
      broken("the trial is over, but READY=1 is not said");
  }
  if (run.kind == Kind::Library && seen.version >= 0 && version_of(pool_code) != seen.version)
    broken("the pool's code is version %d, not %d", version_of(pool_code), seen.version);
}
void check_restarts() {
  for (const Worker& w : workers)
    if (is_wanted(slots[w.number]) && !w.pid && !is_group_left(w) &&
        now >= w.group_until + 2 * leftover_interval && clock() >= max(w.due_until, seen.fork_at))
      broken("worker %d is wanted and due, but not started", w.number);
}
void check_signals() {
  for (int count : seen.arrived)
    if (count > 0) broken("the master sleeps, but has not taken a signal");
  if (!pool.shutdown.begun && pool.target != seen.target)
    broken("the target is %d, not %d", pool.target, seen.target);
}
void check_reaped() {
  for (const Worker& w : workers)
    if (w.pid && w.life == Life::Dead && !pending[SIGCHLD])
      broken("worker %d has ended, and is not reaped", w.number);
}
bool is_awaited(const Worker& w) { return is_group_left(w) || (w.pid && !(w.killed && w.immune)); }
void check_shutdown() {
  bool any = !pool.shutdown.begun;
  for (const Worker& w : workers) {
    if (is_over() && is_alive(w) && !w.killed)
      broken("the shutdown is over, but worker %d is not killed", w.number);
    any = any || is_awaited(w) || now < w.group_until + leftover_interval;
  }
  if (!any) broken("the master ends as soon as the last worker has");
}
void check_end() {
  for (const Worker& w : workers)
    if (is_awaited(w)) broken("the master ends, but worker %d is left", w.number);
  if (open_files != 0) broken("the master leaves %d descriptors open", open_files);
}

// Long after good reloads.
void check_whole() {
  for (int i = 0; i < pool.target; i++)
    if (!is_healthy(workers[i]) || workers[i].version != run.newest)
      broken("a good reload must end: worker %d does not run version %d", i, run.newest);
}

// ---------------------------------------------------------------------------------------------
// Workers
// ---------------------------------------------------------------------------------------------

// It ends, with a status as of waitpid(2).
void end(Worker& w, int status) {
  w.status = status;
  if (w.in_call) return;  // it ends after that
  note("worker %d (pid %d) ends, status %d", w.number, w.pid, status);
  w.life = Life::Dead;
  w.next_at = never;
  pending[SIGCHLD] = true;
}

// Does what on_request() does. It counts as back then, for the roll has not let it go.
void handle_signal(Worker& w) {
  line_of(w).request = Request::End;
  if (in_worker == &w) write_stop_byte();
  if (w.asked_at != never) return;
  w.away = false;
  w.asked_at = awake();
}

void load(Worker& w) {
  Line& line = line_of(w);
  if (w.plan == Plan::NeverLoads) return;
  if (line.request == Request::End) return end(w, 0);
  line.phase = w.plan == Plan::FailsToLoad ? Phase::Failed : Phase::Loaded;
  if (w.plan == Plan::FailsToLoad) return end(w, 127 << 8);
  w.loaded_at = awake();
  w.life = Life::Working;
  w.next_at = run.kind == Kind::Command ? now + w.task : now;
}

int call(Worker& w, int (*function)()) {
  const Self outer_self = self;
  Worker* const outer = in_worker;
  self = {.line = &line_of(w), .number = w.number, .pid = w.pid};
  in_worker = &w;
  w.in_call = true;
  const int result = function();
  w.in_call = false;
  in_worker = outer;
  self = outer_self;
  return result;
}

void yield(Worker& w) {
  const bool was_asked = w.asked_at != never;
  w.first_yield_at = min(w.first_yield_at, awake());
  const bool goes_on = call(w, forkd_yield);
  w.yielded_at = awake();
  check_yield(w, goes_on, was_asked);
  if (!goes_on) w.life = Life::Leaving;
}

// It waits by the stop descriptor, for which it asks when it has yielded for the first time.
void wait_by_stop_fd(Worker& w) {
  w.next_at = never;
  if (!line_of(w).has_stop_fd) {
    call(w, forkd_stop_fd);
    open_files -= 2;  // which are its own
  }
  if (w.told) w.next_at = now;
  if (line_of(w).request == Request::End && w.next_at == never)
    broken("worker %d is asked to end, but its stop descriptor is not readable", w.number);
}

// What it does when its time has come.
void act(Worker& w) {
  w.next_at = never;
  if (w.life == Life::Loading) return load(w);
  if (w.life == Life::Leaving || w.plan == Plan::Returns) return end(w, 0);
  if (w.plan == Plan::Crashes && one_in(3)) return end(w, one_in(2) ? SIGSEGV : 1 << 8);
  if (w.plan == Plan::Hangs && one_in(3)) return;
  w.next_at = now + w.task;
  if (run.kind == Kind::Command) return;
  yield(w);
  if (w.plan == Plan::Polls && w.life == Life::Working && !pool.options.timeout) wait_by_stop_fd(w);
  if (w.status) end(w, w.status);
}

// A signal comes to it, apart from KILL.
void receive(Worker& w, int signal) {
  if (signal == SIGABRT) return end(w, signal);
  if (signal != SIGTERM && signal != SIGHUP) return;
  if (run.kind != Kind::Command) {
    handle_signal(w);
    if (w.plan == Plan::Polls && w.life == Life::Working) w.next_at = now;
  } else if (w.life == Life::Loading) {
    end(w, signal);
  } else if (w.life == Life::Working && w.plan != Plan::Hangs) {
    w.life = Life::Leaving;
    w.next_at = now + w.task;
  }
}

// ---------------------------------------------------------------------------------------------
// The script
// ---------------------------------------------------------------------------------------------

bool waiting;     // the master is in poll(2),
Ms deadline;      // until then
bool queue_full;  // that of the service manager

Ms next_event;
int stage;  // of the good end

void raise_signal(int number) {
  note("signal %d to the master", number);
  pending[number] = true;
}

// A new file is put at the path.
void deploy(bool good) {
  if (run.newest < 63) run.newest++;
  Plan& plan = run.versions[run.newest];
  plan = one_in(3) ? Plan::Polls : Plan::Works;
  if (!good && one_in(2)) plan = static_cast<Plan>(below(7));
  note("version %d: plan %d", run.newest, static_cast<int>(plan));
}

// The container is frozen: time passes, and nothing runs.
void freeze() {
  const Ms time = 200 + below(one_in(3) ? 20000 : 2000);
  note("frozen for %lld ms", time);
  now += time;
  frozen += time;
  for (Worker& w : workers) {
    w.freezes++;
    if (w.next_at != never) w.next_at += time;
  }
}

void make_good() {
  note("all is made good");
  calm = true;
  queue_full = false;
  for (Plan& plan : run.versions) plan = Plan::Works;
  for (Worker& w : workers) {
    if (!is_alive(w)) continue;
    if (w.plan != Plan::Polls) w.plan = Plan::Works;
    // One that hears by signals alone and gets none, or has ignored it, would stay for ever.
    const bool is_command = run.kind == Kind::Command;
    if ((is_command || w.plan == Plan::Polls) && w.immune) end(w, 0);
    if (is_command && w.asked_at != never && w.life == Life::Working) end(w, 0);
    w.immune = w.immune && w.killed;
    w.group_until = min(w.group_until, now);
    w.task = 20;
    if (is_alive(w)) w.next_at = now;
  }
}

// First all is made good. Then come three reloads, and the shutdown, perhaps amid another reload.
void end_well() {
  if (stage == 4) check_whole();
  const Ms rounds = pool.target / max(1, pool.target / 4) + 5;
  next_event = now + below(200);
  const bool ends = stage > 4 || (stage == 4 && one_in(2));
  if (stage == 0) make_good();
  if (stage > 0 && !ends) deploy(true);
  if (stage > 0) raise_signal(ends ? SIGTERM : SIGHUP);
  if (stage == 0) next_event = now + 20000 + 2 * load_limit();
  if (stage == 3) next_event = now + rounds * (3000 + warm_up()) + pool.options.canary;
  if (pool.shutdown.begun) next_event = never;
  stage++;
}

void happen() {
  if (now >= run.script_end) return end_well();
  next_event = now + below(one_in(4) ? 5 : one_in(16) ? 40000 : 2000);
  Worker& w = workers[one_in(6) ? 24 + below(8) : below(16)];
  switch (below(11)) {
  case 0: return pool.target < 20 ? raise_signal(SIGUSR1) : void();
  case 1: return raise_signal(SIGUSR2);
  case 2:
  case 3: deploy(false); [[fallthrough]];
  case 4: return raise_signal(SIGHUP);
  case 5: return is_alive(w) ? end(w, one_in(2) ? SIGSEGV : SIGKILL) : void();
  case 6: return is_alive(w) ? receive(w, one_in(2) ? SIGTERM : SIGHUP) : void();
  case 7: w.plan = Plan::Hangs; return;
  case 8: return run.freezes && waiting ? freeze() : void();
  case 9: queue_full = one_in(2); return;
  case 10: return run.stops ? raise_signal(one_in(2) ? SIGTERM : SIGINT) : void();
  }
}

bool turned;  // the master had a turn within a call of a worker

void deliver_signals() {
  for (const auto& entry : signal_table) {
    if (blocked || !pending[entry.number]) continue;
    pending[entry.number] = false;
    seen.arrived[entry.event]++;
    if (entry.event == OnStop) seen.last_stop = now;
    if (seen.first_stop == 0) seen.first_stop = seen.last_stop;
    count_signal(entry.number);
  }
}

// The master wakes up and takes a turn, as in its loop.
void take_turn() {
  Worker* const w = in_worker;
  in_worker = nullptr;
  waiting = false;
  // It has noticed a pause when poll(2) returned.
  if (now - deadline > pause_slack) paused += now - deadline;
  wait_until(clock());
  forkd_turn(clock());
  turned = waiting = true;
  in_worker = w;
}

// The new code fails just now under the numbers where it has failed once: the pool goes back.
void end_failing() {
  for (Worker& w : workers)
    if (is_alive(w) && !w.in_call && !is_old(w) && w.failures_least == 1) end(w, 1 << 8);
}

void between() {
  static unsigned depth, accesses;
  if (run.density == 0 || depth == 2 || accesses-- > 0) return;
  const int saved_errno = errno;
  depth++;
  accesses = below(2 * run.density);
  Worker& w = workers[one_in(6) ? 24 + below(8) : below(16)];
  const bool in_master = !in_worker;
  if (in_worker && waiting && !calm && line_of(*in_worker).request == Request::TakingRoom)
    end_failing();
  if (in_worker && !calm && one_in(8))
    handle_signal(*in_worker);
  else if (in_worker && waiting && one_in(4))
    take_turn();
  else if (in_master && one_in(4))
    deliver_signals();
  else if (in_master && !calm && one_in(40))
    happen();
  else if (is_alive(w) && !w.in_call && w.next_at != never)
    act(w);
  depth--;
  errno = saved_errno;
}

bool stored(const void* at) {
  if (!shared) return true;
  if (at == &shared->room && !in_worker) seen.room_limit = max(1, pool.target / 4);
  if (at == &shared->room && !in_worker && shared->room > 0 && !lets_go())
    broken("there is room, though no roll is under way");
  if (at == &shared->room && in_worker && !pool.shutdown.begun) check_room(*in_worker);
  for (Worker& w : workers) {
    const bool asks = w.pid && at == &line_of(w).request && line_of(w).request == Request::End;
    if (!asks || w.asked_at != never) continue;
    w.away = is_away(w);
    if (is_old(w) && w.number < pool.target && !w.killed && !pool.shutdown.begun) check_room(w);
    w.asked_at = awake();
  }
  return true;
}

// The master takes the signals of one kind.
int taken(const int* at, int was) {
  if (at < arrived || at >= arrived + event_count) return was;
  const auto event = at - arrived;
  if (was != seen.arrived[event]) broken("a signal is lost, or is acted on twice");
  seen.arrived[event] = 0;
  if (was == 0 || pool.shutdown.begun) return was;
  if (event == OnReload) seen.hup_untold = seen.ready;
  if (event == OnShrink) seen.target = static_cast<int>(max(1, seen.target - was));
  for (int i = 0; event == OnGrow && i < was; i++) {
    workers[seen.target].away = false;
    expect_start(workers[seen.target++], 0, 0);
  }
  return was;
}

pid_t fork_worker() {
  static int forks;
  between();
  const int number = atoi(texts.number + strlen("FORKD_WORKER="));
  Worker& w = worker_with(number);
  check_start(w);
  if (seen.version < 0) seen.version = version_of(pool_code);
  w.started = clock();
  if (call_fails()) {
    if (!is_new_trial(w)) seen.fork_at = clock() + backoff_after(++seen.fork_failures);
    return fail(EAGAIN);
  }
  seen.fork_failures = 0;
  w.pid = ++forks * 2048 + number;  // so it says the number, too
  w.version = run.newest;
  if (run.kind == Kind::Library) w.version = version_of(is_new_trial(w) ? trial_code : pool_code);
  w.plan = !calm && one_in(run.oddity) ? static_cast<Plan>(below(7)) : run.versions[w.version];
  w.task = 1 + below(calm ? 50 : one_in(16) ? 15000 : 200);
  w.immune = !calm && one_in(20);
  w.life = Life::Loading;
  w.killed = w.told = false;
  w.status = w.freezes = 0;
  w.forked_at = clock();
  w.yielded_at = awake();
  w.next_at = now + below(calm ? 20 : one_in(8) ? 4000 : 100);
  w.asked_at = w.aborted_at = w.first_yield_at = never;
  return w.pid;
}

int send_to_group(Worker& w, int signal) {
  if (signal == SIGKILL) w.group_until = min(w.group_until, now);
  return is_group_left(w) ? 0 : fail(ESRCH);
}

int send_signal(pid_t pid, int signal) {
  between();
  if (pid < 0) return send_to_group(worker_with(-pid % 2048), signal);
  Worker& w = worker_with(pid % 2048);
  if (w.pid != pid) broken("%d is no worker", pid);
  note("signal %d to worker %d", signal, w.number);
  if (w.life == Life::Dead) return 0;
  if (signal == SIGABRT) check_abort(w);
  if (signal == SIGABRT) w.aborted_at = clock();
  if (signal == SIGKILL) check_kill(w);
  if (signal == SIGKILL) w.killed = true;
  if (w.immune) return fail(EPERM);
  signal == SIGKILL ? end(w, SIGKILL) : receive(w, signal);
  return 0;
}

pid_t reap(pid_t pid, int* status) {
  between();
  if (call_fails()) return fail(EINTR);
  Worker& w = worker_with(pid % 2048);
  if (w.pid != pid) broken("%d is no worker", pid);
  if (w.life != Life::Dead) return 0;
  const bool spared =
      w.asked_at != never || is_old(w) || (w.status == 0 && is_loaded(w) && w.aborted_at == never);
  const bool lived = clock() >= w.forked_at + second;
  w.brief = w.status == 0 && is_loaded(w) && w.asked_at == never;
  w.away = is_away(w) && !w.brief;
  // forkd may see late that one that did not yield is healthy.
  expect_start(w, spared || (lived && is_healthy(w)) ? 0 : w.failures_least + 1,
               spared || (lived && w.freezes == 0 && is_healthy(w, 2 * longest_watch))
                   ? 0
                   : w.failures_most + 1);
  w.pid = 0;
  if (run.kind == Kind::Command && slots[w.number].state != State::Killed && one_in(8))
    w.group_until = now + below(calm ? 200 : 12000);
  *status = w.status;
  return pid;
}

int wait_for_byte(const pollfd*, int timeout) {
  static int events;
  between();
  if (timeout != 0 && bytes_in_pipe == 0) {
    check_restarts();
    check_reload();
    check_signals();
    check_reaped();
    check_shutdown();
  }
  if (call_fails()) return fail(EINTR);
  deadline = timeout < 0 ? never : now + timeout;
  for (turned = false; !turned;) {
    deliver_signals();
    if (bytes_in_pipe > 0 || now >= deadline) return bytes_in_pipe;
    Worker* first = workers;
    for (Worker& w : workers)
      if (w.next_at < first->next_at) first = &w;
    const Ms next = min(first->next_at, next_event);
    now = max(now, min(next, deadline));
    if (++events > 1000000 || now > run.script_end + 1000000) broken("a run must end");
    waiting = true;
    if (next_event <= now) happen();
    if (first->next_at <= now) act(*first);
    waiting = false;
  }
  return 0;
}

// A line of the log.
ssize_t take_line(const char* text, size_t size) {
  char line[1500];
  snprintf(line, sizeof line, "%.*s", static_cast<int>(size) - 1, text);
  note("%s", line);
  const char* trying = strstr(line, "reload: trying the ");
  if (trying) expect_start(worker_with(atoi(strrchr(trying, ' '))), 0, 0);
  if (strstr(line, "every worker runs") || strstr(line, "info: back on")) check_roll();
  const bool passed = strstr(line, "has passed its trial");
  if (passed) check_trial(worker_with(number_of(*pool.reload.trial)));
  if (passed && !pool.reload.tries_old) {
    if (pool.reload.roll != Roll::Forward) seen.version_before = seen.version;
    seen.version = version_of(trial_code);
  }
  if (strstr(line, "going back") || strstr(line, "cannot go back")) {
    const int version = seen.version;
    seen.version = seen.version_before;
    seen.version_before = version;
  }
  for (Worker& w : workers)
    if ((passed && !pool.reload.tries_old) || strstr(line, "going back") ||
        strstr(line, "cannot go back"))
      if (&slots[w.number] != pool.reload.trial) expect_start(w, 0, 0);
  between();
  return static_cast<ssize_t>(size);
}

// A message to the service manager.
ssize_t take_message(const char* text) {
  const auto is = [&](const char* word) { return strncmp(text, word, strlen(word)) == 0; };
  between();
  check_message(is("READY"));
  if (queue_full) return seen.refused_at = clock(), fail(EAGAIN);
  seen.ready = seen.ready || is("READY");
  note("to the manager: %s", text);
  if (is("RELOADING")) seen.hup_untold = false;
  if (is("RELOADING") || is("READY")) seen.reloading = is("RELOADING");
  seen.stopping = is("STOPPING");
  return 1;
}

void run_seed(unsigned long seed, bool verbose) {
  static char name[] = "./code.so:run";
  static char* arguments[] = {name, nullptr};
  run.seed = run.random = seed;
  run.verbose = verbose;
  run.kind = static_cast<Kind>(below(3));
  run.density = one_in(4) ? 0 : 2 << below(6);
  run.failing = one_in(2) ? 0 : 10 << below(5);
  run.oddity = below(6);
  run.freezes = one_in(4);
  run.stops = one_in(4);
  run.has_manager = one_in(2);
  run.has_dead_child = run.kind == Kind::Function && one_in(2);
  run.script_end = now + 2000 + below(20000);
  deploy(one_in(2));
  Options options{.workers = static_cast<int>(1 + below(one_in(4) ? 20 : 5)),
                  .grace = one_in(4) ? 0 : 1000 << below(4),
                  .warm_up = one_in(4) ? 0 : 200 << below(6)};
  if (one_in(4)) options.canary = 1 + below(3000);
  if (run.kind != Kind::Command && one_in(3)) options.timeout = 300 + below(3000);
  Job job{.spec = name, .argc = 1, .argv = arguments};
  if (run.kind == Kind::Function) job.function = [](int, char**) { return 0; };
  if (run.kind == Kind::Library) job.path = "./code.so";
  seen.target = options.workers;
  for (int i = 0; i < 32; i++) workers[i].number = i < 24 ? i : i + 1000;
  for (Worker& w : workers) w.next_at = never;
  master_pid = 100;
  run_pool(job, options);
  release_pool();
  check_end();
}

}  // namespace

// Each seed has a process of its own, so none depends on those before it.
int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const unsigned long first = strtoul(argv[1], nullptr, 10), count = strtoul(argv[2], nullptr, 10);
  for (unsigned long seed = first; seed < first + count; seed++) {
    int status;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) return run_seed(seed, argc > 3), 0;
    if (waitpid(pid, &status, 0) != pid || status != 0) return run_seed(seed, true), 1;
  }
}
