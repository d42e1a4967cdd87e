// Rolls at full speed: never are more old workers let go than there is room for, and a request that
// comes while a worker takes room is not lost.
//
//   room ROLLS            prints how many were let go, and how many at most at a time
//   room ROLLS signals    the workers get SIGHUP, too, while they take room
//
// forkd.cpp is the code under test, here with the processor given away before each step that takes,
// closes or publishes room, so that the steps of master and workers mix in every order. The workers
// are processes that yield; one that is let go comes back as a worker on new code a little later.
// This process is the master: it begins a roll, and looks until that is over.
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

static unsigned next_random = 1;
static bool in_yield, asked;  // of a worker that gets signals

static unsigned random_number() {
  next_random = next_random * 1103515245 + 12345;
  return next_random >> 16;
}

static bool give_way() {
  if (random_number() % 2) sched_yield();
  if (in_yield && !asked && random_number() % 16 == 0) {
    asked = true;
    raise(SIGHUP);
  }
  return true;
}
#define __atomic_compare_exchange(...) (give_way() && __atomic_compare_exchange(__VA_ARGS__))
#define __atomic_store(...) (give_way(), __atomic_store(__VA_ARGS__))
#define main forkd_main
#include "../../forkd.cpp"
#undef main

static constexpr int target = 6;

struct Gone {
  int now;   // workers that were let go and are not back
  int most;  // the most there ever were
  int all;   // how often one was let go
  int lost;  // requests that a yield did not heed
};

// False: the request by SIGHUP has come, and is lost.
static bool yield_until_let_go(bool signals) {
  for (; getppid() == master_pid; sched_yield()) {
    in_yield = signals;
    const int go_on = forkd_yield();
    in_yield = false;
    if (!go_on) return true;
    if (asked && forkd_yield()) return false;
  }
  _exit(0);  // nobody is left to end this process
}

[[noreturn]] static void work(int number, Gone* gone, bool signals) {
  next_random = static_cast<unsigned>(number);
  self = {.line = &shared->line[number], .number = number, .pid = getpid()};
  set_action(SIGHUP, on_request, SA_RESTART);
  for (;;) {
    if (!yield_until_let_go(signals)) __atomic_add_fetch(&gone->lost, 1, __ATOMIC_SEQ_CST);
    const int now = __atomic_add_fetch(&gone->now, 1, __ATOMIC_SEQ_CST);
    int most = atomic_load(gone->most);
    while (now > most && !__atomic_compare_exchange_n(&gone->most, &most, now, false,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    __atomic_add_fetch(&gone->all, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 10; i++) sched_yield();
    __atomic_sub_fetch(&gone->now, 1, __ATOMIC_SEQ_CST);
    asked = false;
    atomic_store(self.line->request, Request::None);
  }
}

int main(int argc, char** argv) {
  const int rolls = argc > 1 ? atoi(argv[1]) : 1;
  const bool signals = argc > 2;
  const size_t size = sizeof(Shared) + sizeof(Gone);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  shared = static_cast<Shared*>(memory);
  Gone* gone = reinterpret_cast<Gone*>(shared + 1);
  master_pid = getpid();
  log_level = LOG_CRIT;
  pool.job = {.spec = "room", .function = [](int, char**) { return 0; }, .argc = 0, .argv = argv};
  pool.options.grace = 1000000000;  // no last task here is a long one
  pool.target = target;
  const auto run_as = [](Slot& slot, pid_t pid) {
    slot.state = State::Running;
    slot.pid = pid;
    line_of(slot).phase = Phase::Loaded;
  };
  for (int i = 0; i < target; i++) {
    const pid_t pid = fork();
    if (pid == 0) work(i, gone, signals);
    run_as(slots[i], pid);
  }
  Slot& helper = slots[max_workers];
  int done = 0;
  for (; done < rolls; done++) {
    run_as(helper, getpid());  // which counts as a worker that is always healthy
    line_of(helper).yields = 1;
    atomic_store(line_of(helper).request, Request::None);
    pool.reload.trial = &helper;
    pool.reload.trial_since = clock_ms();
    begin_roll(clock_ms());
    const Ms deadline = clock_ms() + 60000;
    while (pool.reload.helper && clock_ms() < deadline) {
      look(clock_ms());
      give_way();
    }
    if (pool.reload.helper || shared->room != 0) break;
  }
  for (int i = 0; i < target; i++) kill(slots[i].pid, SIGKILL);
  printf("%d rolls, %d let go, at most %d at a time, %d requests lost\n", done, gone->all,
         gone->most, gone->lost);
  return done == rolls && gone->all >= rolls * target && (signals || gone->most == 1) &&
                 gone->lost == 0
             ? 0
             : 1;
}
