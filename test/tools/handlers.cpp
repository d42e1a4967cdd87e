// The master's signal handlers, without its loop: forkd.cpp's own functions.
//
//   handlers           counts, descriptors, errno and system calls that a signal must leave alone
//   handlers restore   what the application has set up is as before when forkd_run() is over, and
//                      when it could not begin (strace(1) makes a sigaction(2) fail); prints which
#define main forkd_main
#include "../../forkd.cpp"
#undef main

static int failures;
static void expect(bool right, const char* what) {
  if (!right) failures += printf("wrong: %s\n", what) > 0;
}

static int bytes_in_pipe() {
  char bytes[64];
  const ssize_t n = read(wake_read, bytes, sizeof bytes);
  return n < 0 ? 0 : static_cast<int>(n);
}

static void check_counts() {
  const struct {
    int number;
    Event event;
  } signals[] = {{SIGUSR1, OnGrow}, {SIGUSR2, OnShrink}, {SIGHUP, OnReload}, {SIGCHLD, OnChild},
                 {SIGINT, OnStop},  {SIGQUIT, OnStop},   {SIGTERM, OnStop}};
  for (const auto& is : signals) {
    for (int i = 0; i < 3; i++) raise(is.number);
    expect(consume(is.event) == 3, "each signal counts once");
    expect(consume(is.event) == 0, "a signal that was taken does not count again");
    expect(is.event == OnStop || atomic_load(first_stop_at) == 0, "only a stop signal stops");
  }
  for (const int count : arrived) expect(count == 0, "no signal counts as another one");
  raise(SIGPIPE);
  raise(SIGTTOU);
  raise(SIGXFSZ);
}

static void check_pipe() {
  int ends[2];
  if (!open_pipe(ends)) exit(1);
  wake_read = ends[0];
  wake_write = ends[1];
  atomic_store(woken, 0);
  for (int i = 0; i < 5; i++) raise(SIGUSR1);
  expect(bytes_in_pipe() == 1, "many signals are one byte");
  expect(atomic_load(woken), "who wakes the loop says so");
  atomic_store(woken, 0);
  raise(SIGUSR2);
  expect(bytes_in_pipe() == 1, "the next signal is another byte");
  // A pipe that is full, or one that is gone, is no trouble for a handler.
  char page[4096] = {};
  while (write(wake_write, page, sizeof page) > 0 || write(wake_write, page, 1) > 0) {
  }
  for (int i = 0; i < 2; i++) {
    atomic_store(woken, 0);
    errno = 12345;
    raise(SIGUSR1);
    expect(errno == 12345, "errno stays");
    wake_write = 1000;
  }
  expect(atomic_load(handling) == 0, "no handler is said to run any more");
}

static void check_calls() {
  int ends[2];
  char byte;
  if (pipe(ends) != 0) exit(1);
  const pid_t reader = getpid();
  const pid_t child = fork();
  if (child == 0) {
    const timespec pause{.tv_sec = 0, .tv_nsec = 100'000'000};
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGHUP, SIGTERM};
    for (const int number : numbers) {
      nanosleep(&pause, nullptr);
      kill(reader, number);
    }
    nanosleep(&pause, nullptr);
    if (write(ends[1], "", 1) != 1) _exit(1);
    raise(SIGSTOP);
    _exit(0);
  }
  expect(read(ends[0], &byte, 1) == 1, "a signal does not interrupt a read");
  int status;
  consume(OnChild);
  waitpid(child, &status, WUNTRACED);
  expect(WIFSTOPPED(status) && consume(OnChild) == 0, "a child that is stopped is no event");
  kill(child, SIGCONT);
  waitpid(child, &status, 0);
  expect(consume(OnChild) == 1, "a child that ends is one");
}

static void not_mine(int) {}

struct Signals {
  struct sigaction actions[65];
  sigset_t mask;
};
static Signals signals() {
  static Signals is;
  is = {};
  for (int number = 1; number < 32; number++) sigaction(number, nullptr, &is.actions[number]);
  pthread_sigmask(SIG_SETMASK, nullptr, &is.mask);
  return is;
}

static void check_restore() {
  struct sigaction action {};
  action.sa_handler = not_mine;
  action.sa_flags = SA_NODEFER;
  // Of what forkd handles itself the first, the last and some others.
  static const int handled[] = {SIGCHLD, SIGTERM, SIGUSR2, SIGXFSZ};
  for (const int number : handled) sigaction(number, &action, nullptr);
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  static const int masked[] = {SIGTERM, SIGUSR1, SIGXFSZ, SIGWINCH};
  for (const int number : masked) sigaddset(&blocked, number);
  pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
  const Signals before = signals();
  if (become_master()) {
    const Signals now = signals();
    for (const auto& entry : signal_table) {
      expect(now.actions[entry.number].sa_handler == entry.in_master, "forkd handles its signals");
      expect(sigismember(&now.mask, entry.number) == 0, "and none of them is blocked");
    }
    expect(sigismember(&now.mask, SIGWINCH) == 1, "any other signal stays blocked");
    printf("begun\n");
    restore_handlers();
  } else {
    printf("%s\n", strerror(errno));
  }
  const Signals after = signals();
  const int flags = SA_NODEFER | SA_NOCLDSTOP | SA_RESETHAND | SA_RESTART;
  for (int number = 1; number < 32; number++) {
    const struct sigaction &was = before.actions[number], &is = after.actions[number];
    expect(was.sa_handler == is.sa_handler && (was.sa_flags & flags) == (is.sa_flags & flags),
           "an action is as before");
    expect(sigismember(&before.mask, number) == sigismember(&after.mask, number), "so is the mask");
  }
}

int main(int argc, char**) {
  if (argc > 1) {
    check_restore();
  } else {
    if (!become_master()) return 1;
    check_counts();
    check_pipe();
    check_calls();
  }
  return failures ? 1 : 0;
}
