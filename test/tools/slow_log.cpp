// The log on a standard error that takes nothing: forkd never waits for it, counts each line that is
// lost, and tells the count as soon as there is room.
//
//   slow_log pipe|socket|terminal|journal     "journal": a socket that JOURNAL_STREAM names
//
// Runs $FORKD with a worker of $BIN/workers.so. Prints what was wrong.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static const int deadline = 120000;  // milliseconds

static pid_t master;

[[noreturn]] static void fail(const char* what) {
  if (master > 0) kill(master, SIGKILL);
  printf("%s\n", what);
  exit(1);
}

// The two ends of such a standard error: where forkd writes, and where it is read.
static void open_ends(const char* kind, int* ends) {
  if (strcmp(kind, "pipe") == 0) {
    if (pipe(ends) != 0) fail("no pipe");
  } else if (strcmp(kind, "terminal") == 0) {
    ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
    if (ends[0] < 0 || grantpt(ends[0]) != 0 || unlockpt(ends[0]) != 0) fail("no terminal");
    ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
    termios raw;
    tcgetattr(ends[1], &raw);
    raw.c_oflag = 0;  // or the terminal makes two bytes of a newline
    tcsetattr(ends[1], TCSANOW, &raw);
  } else if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    fail("no socket");
  }
  for (int i = 0; i < 2; i++) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
}

// A terminal moves some of what is written to its other end, later and by a thread of the kernel. On
// Linux nothing moves any more when 4095 bytes are there.
static bool moves(int reader) {
#ifdef __linux__
  int there = 0;
  return isatty(reader) && ioctl(reader, FIONREAD, &there) == 0 && there < 4095;
#else
  (void)reader;
  return false;
#endif
}

// Fills it, until there is no room for some time.
static void fill(int fd, int reader) {
  static char page[4096];
  memset(page, '~', sizeof page);
  pollfd out{.fd = fd, .events = POLLOUT, .revents = 0};
  const int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  do {
    while (write(fd, page, sizeof page) > 0 || write(fd, page, 1) > 0) {
    }
  } while (poll(&out, 1, 50) == 1 || moves(reader));
  fcntl(fd, F_SETFL, flags);
}

static char text[1 << 20];
static size_t length;

static bool has_line(const char* words) {
  const char* found = strstr(text, words);
  return found && strchr(found, '\n');
}

// Reads on until there is a line with these words; without words, what is there.
static void read_until(int fd, const char* words) {
  pollfd in{.fd = fd, .events = POLLIN, .revents = 0};
  while (!words || !has_line(words)) {
    if (poll(&in, 1, words ? deadline : 200) != 1) {
      if (!words) return;
      fail(words);
    }
    char bytes[4096];
    const ssize_t n = read(fd, bytes, sizeof bytes);
    if (n <= 0) fail("it has ended");
    for (ssize_t i = 0; i < n; i++)
      if (bytes[i] != '~' && length < sizeof text - 1) text[length++] = bytes[i];
  }
}

// Waits for one more worker to print a line.
static void wait_for_worker(int fd) {
  char byte = 0;
  pollfd in{.fd = fd, .events = POLLIN, .revents = 0};
  while (byte != '\n')
    if (poll(&in, 1, deadline) != 1 || read(fd, &byte, 1) != 1) fail("the log holds forkd up");
}

static bool ends_with(const char* line, const char* end) {
  const size_t size = strlen(line);
  return size >= strlen(end) && strcmp(line + size - strlen(end), end) == 0;
}

// Each of the events is there, or cut where there was no more room, or counted.
static void check(int events, int pid, bool journal) {
  char info[64], warning[64];
  snprintf(info, sizeof info, journal ? "<6>" : "forkd[%d]: info: ", pid);
  snprintf(warning, sizeof warning, journal ? "<4>" : "forkd[%d]: warning: ", pid);
  int whole = 0, cut = 0, dropped = 0;
  if (text[0] == '\n' || strstr(text, "\n\n")) fail("a line was ended that was none");
  for (char* line = strtok(text, "\n"); line; line = strtok(nullptr, "\n")) {
    int count = 0;
    if (strncmp(line, warning, strlen(warning)) == 0 &&
        sscanf(line + strlen(warning), "%d log lines were dropped", &count) == 1) {
      dropped += count;
    } else if (strncmp(line, info, strlen(info)) == 0 &&
               (ends_with(line, " started") || ends_with(line, ": 1") ||
                (strstr(line, "target is now ") && !ends_with(line, " ")))) {
      whole++;
    } else if (strncmp(line, info, strlen(line) < strlen(info) ? strlen(line) : strlen(info)) != 0) {
      fail(line);
    } else {
      cut++;
    }
  }
  if (whole + cut + dropped == events && cut <= 1 && dropped > 0) return;
  printf("%d whole, %d cut, %d dropped, but %d events\n", whole, cut, dropped, events);
  exit(1);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const bool journal = strcmp(argv[1], "journal") == 0;
  int ends[2], out[2];
  open_ends(argv[1], ends);
  if (pipe(out) != 0) return 2;
  if (journal) {
    struct stat is;
    char name[64];
    fstat(ends[1], &is);
    snprintf(name, sizeof name, "%llu:%llu", static_cast<unsigned long long>(is.st_dev),
             static_cast<unsigned long long>(is.st_ino));
    setenv("JOURNAL_STREAM", name, 1);
  }
  fill(ends[1], ends[0]);
  const pid_t pid = master = fork();
  if (pid == 0) {
    char worker[4096];
    snprintf(worker, sizeof worker, "%s/workers.so:arguments", getenv("BIN"));
    dup2(out[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(out[0]);
    close(out[1]);
    execl(getenv("FORKD"), "forkd", worker, nullptr);
    _exit(127);
  }
  close(out[1]);
  wait_for_worker(out[0]);
  kill(pid, SIGUSR1);
  wait_for_worker(out[0]);
  // Room for a part of a line, where a part is taken.
  char some[30];
  if (read(ends[0], some, sizeof some) <= 0) return 2;
  kill(pid, SIGUSR1);
  wait_for_worker(out[0]);
  read_until(ends[0], nullptr);
  kill(pid, SIGUSR1);
  wait_for_worker(out[0]);
  read_until(ends[0], "worker 3 (pid");
  kill(pid, SIGTERM);
  int status = -1;
  for (int waited = 0; waitpid(pid, &status, WNOHANG) == 0 && waited < deadline; waited++)
    poll(nullptr, 0, 1);
  if (status != 0) fail("it has not ended with status 0");
  check(8, pid, journal);
  return 0;
}
