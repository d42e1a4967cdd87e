// The log on a standard error that takes nothing: forkd.cpp's own functions, without its loop.
//
//   slow_log pipe|socket|terminal   what is lost is counted, and told as soon as there is room
//   slow_log alarm                  a write that blocks is cut short, and leaves no trace
//
// Where forkd would block, this does.
#define main forkd_main
#include "../../forkd.cpp"
#undef main
#include <termios.h>

static bool failed(const char* what) { return printf("%s\n", what) < 0; }

// Makes a pair of descriptors, one of them standard error; returns the other one.
static int connect_stderr(const char* kind) {
  int ends[2] = {-1, -1};
  if (strcmp(kind, "socket") == 0) {
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
  } else if (strcmp(kind, "terminal") == 0) {
    ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
    if (ends[0] >= 0 && grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0)
      ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
    termios raw;
    tcgetattr(ends[1], &raw);
    raw.c_oflag = 0;  // or the terminal makes two bytes of a newline
    tcsetattr(ends[1], TCSANOW, &raw);
  } else if (pipe(ends) != 0) {
    return -1;
  }
  dup2(ends[1], STDERR_FILENO);
  close(ends[1]);
  return ends[0];
}

// Reads what is there to the end of the text, of which the last part is kept.
static void read_rest(int fd, char* text, size_t size) {
  size_t length = 0;
  pollfd in{.fd = fd, .events = POLLIN, .revents = 0};
  // A terminal may hand over the last bytes a moment later.
  while (poll(&in, 1, 200) == 1) {
    if (length > size / 2) {
      memmove(text, text + length - size / 4, size / 4);
      length = size / 4;
    }
    const ssize_t n = read(fd, text + length, size - 1 - length);
    if (n <= 0) break;
    length += static_cast<size_t>(n);
  }
  text[length] = '\0';
}

static bool check_count(const char* kind) {
  static char text[65536], wanted[256];
  const int reader = connect_stderr(kind);
  if (reader < 0) return failed("no such standard error here");
  open_log();
  for (int i = 0; i < 1000000 && dropped_lines == 0; i++) log_event(LOG_INFO, "line %d", i);
  if (dropped_lines != 1) return failed("no line was dropped");
  log_event(LOG_INFO, "a second one");
  log_event(LOG_INFO, "a third one");
  const bool was_open = line_is_open;
  read_rest(reader, text, sizeof text);
  if ((text[strlen(text) - 1] != '\n') != was_open) return failed("the open line is none");
  log_event(LOG_INFO, "there is room");
  log_event(LOG_INFO, "all is well");
  read_rest(reader, text, sizeof text);
  const int pid = master_pid;
  snprintf(wanted, sizeof wanted,
           "%sforkd[%d]: warning: 3 log lines were dropped\nforkd[%d]: info: there is room\n"
           "forkd[%d]: info: all is well\n",
           was_open ? "\n" : "", pid, pid, pid);
  if (strcmp(text, wanted) != 0) return printf("not %s, but %s", wanted, text) < 0;
  return true;
}

static void not_mine(int) {}

// Whether SIGALRM is as the application has it: handled, blocked, and its timer armed or not.
static bool alarm_is(void (*handler)(int), bool armed) {
  struct sigaction action;
  sigset_t mask;
  itimerval timer;
  sigaction(SIGALRM, nullptr, &action);
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  getitimer(ITIMER_REAL, &timer);
  const bool handled = action.sa_handler == handler && action.sa_flags & SA_RESTART;
  const bool blocked = sigismember(&mask, SIGALRM) == 1;
  const bool timed = armed ? timer.it_value.tv_sec > 500 && timer.it_interval.tv_sec == 7
                           : timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0;
  return handled && blocked && timed;
}

struct AlarmCheck {
  void (*handler)(int);
  bool good;
};
static void* check_alarm(void* which) {
  auto& check = *static_cast<AlarmCheck*>(which);
  static char text[4 << 20];
  Ms shortest = never;
  master_thread = pthread_self();
  struct sigaction action {};
  action.sa_handler = check.handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &alarm, nullptr);
  for (int i = 0; i < 2; i++) {
    const bool armed = i == 1;
    const int reader = connect_stderr("pipe");
    const itimerval timer{.it_interval = {7, 0}, .it_value = {1000, 0}};
    if (armed) setitimer(ITIMER_REAL, &timer, nullptr);
    const Ms began = clock_ms();
    const ssize_t written = write_in_time(text, sizeof text);  // more than a pipe holds
    shortest = min(shortest, clock_ms() - began);
    if (written <= 0 || written >= ssize_t{sizeof text}) return failed("not cut short"), nullptr;
    if (!alarm_is(check.handler, armed)) return failed("SIGALRM is not as before"), nullptr;
    if (write_in_time(text, 1) > 0) return failed("there was room"), nullptr;
    if (!alarm_is(check.handler, armed))
      return failed("SIGALRM is not as before, without room"), nullptr;
    close(reader);
  }
  // It takes a few milliseconds, and on a busy machine not each time more than half a second.
  if (shortest > 500) return failed("the write took too long"), nullptr;
  const itimerval none{};
  setitimer(ITIMER_REAL, &none, nullptr);
  check.good = true;
  return nullptr;
}

int main(int argc, char** argv) {
  master_pid = getpid();
  master_thread = pthread_self();
  signal(SIGPIPE, SIG_IGN);
  if (argc != 2) return 2;
  if (strcmp(argv[1], "alarm") != 0) return check_count(argv[1]) ? 0 : 1;
  // First with the default action: a SIGALRM that comes after that is restored ends the process.
  AlarmCheck alone{.handler = SIG_DFL, .good = false},
      in_thread{.handler = not_mine, .good = false};
  pthread_t thread;
  check_alarm(&alone);
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  // The kernel gives the signal of a timer to the first thread, if that does not block it.
  if (pthread_create(&thread, nullptr, check_alarm, &in_thread) != 0) return 1;
  pthread_join(thread, nullptr);
  return alone.good && in_thread.good ? 0 : 1;
}
