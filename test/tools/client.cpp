// An HTTP client that looks closely: it counts which requests were answered in full, which were
// refused a connection and which were cut off.
//
//   client [-krv] [-c clients] [-n requests] [-p milliseconds] [-w file] address ...
//   client -n count -                  prints that many ports that nobody listens on
//
// Each client makes its requests one after the other, over a connection each, or (-k) over one as
// long as the server keeps it. -p: a pause after each. -r: the first connection is tried until it is
// not refused. -v: prints the answers. -w: the last request is sent half, and the rest when the file
// exists (-v: and says so). TERM ends the clients after their request. An address is V4:PORT, [V6]:PORT or a path; of
// several each gets its requests when the one before has answered.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

namespace {

enum Outcome { Ok, Refused, Cut, Other, outcome_count };

union Name {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
  sockaddr_un path;
} server;
socklen_t server_size;

bool keep_alive, retries, verbose;
int requests = 1;
long pause_ms;
const char* wait_for;
int counts[outcome_count];
volatile sig_atomic_t stop;

void on_term(int) { stop = 1; }

void wait_ms(long ms) {
  const timespec t = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, nullptr);
}

bool parse_address(char* text) {
  char* colon = strrchr(text, ':');
  if (strchr(text, '/')) {
    server.path.sun_family = AF_UNIX;
    server_size = sizeof server.path;
    return snprintf(server.path.sun_path, sizeof server.path.sun_path, "%s", text) > 0;
  }
  if (!colon) return false;
  *colon = '\0';
  const in_port_t port = htons(static_cast<in_port_t>(atoi(colon + 1)));
  if (*text == '[') {
    colon[-1] = '\0';
    server.v6.sin6_family = AF_INET6;
    server.v6.sin6_port = port;
    server_size = sizeof server.v6;
    return inet_pton(AF_INET6, text + 1, &server.v6.sin6_addr) == 1;
  }
  server.v4.sin_family = AF_INET;
  server.v4.sin_port = port;
  server_size = sizeof server.v4;
  return inet_pton(AF_INET, text, &server.v4.sin_addr) == 1;
}

// Below the ports that the kernel hands out by itself, so that no connection has it by chance.
int print_free_ports(int count) {
  srand(static_cast<unsigned>(getpid()) * 7919u + static_cast<unsigned>(time(nullptr)));
  for (int i = 0; i < 1000 && count > 0; i++) {
    const int port = 10000 + rand() % 20000;
    server.v4.sin_family = AF_INET;
    server.v4.sin_port = htons(static_cast<in_port_t>(port));
    const int fd = socket(AF_INET, SOCK_STREAM, 0);  // stays open: so no port comes twice
    if (bind(fd, &server.any, sizeof server.v4) != 0) continue;  // to all addresses
    printf("%d\n", port);
    count--;
  }
  return count;
}

int open_connection() {
  const int fd = socket(server.any.sa_family, SOCK_STREAM, 0);
  const timeval patience = {100, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (fd >= 0 && connect(fd, &server.any, server_size) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

bool send_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) return false;
    if (n > 0) data += n, size -= static_cast<size_t>(n);
  }
  return true;
}

// Sends one request and reads the answer to its last byte; `closes`: the server wants no further
// one on this connection.
Outcome exchange(int fd, bool halves, bool& closes) {
  char request[128], answer[4096];
  const int length = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: test\r\n%s\r\n",
                              keep_alive ? "" : "Connection: close\r\n");
  const size_t half = halves ? 20 : 0;
  bool sent = send_all(fd, request, half);
  while (halves && access(wait_for, F_OK) != 0) wait_ms(5);
  sent = sent && send_all(fd, request + half, static_cast<size_t>(length) - half);
  if (!sent) return Cut;
  if (halves && verbose) {
    puts("sent");
    fflush(stdout);
  }

  size_t received = 0, expected = 0;
  const char* body = nullptr;
  closes = false;
  for (;;) {
    const ssize_t n = recv(fd, answer + received, sizeof answer - 1 - received, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == ECONNRESET || errno == EPIPE ? Cut : Other;
    if (n == 0) break;
    answer[received += static_cast<size_t>(n)] = '\0';
    const char* end = strstr(answer, "\r\n\r\n");
    if (!body && end) {
      const char* field = strstr(answer, "Content-Length: ");
      if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0 || !field || field > end) return Other;
      body = end + 4;
      expected = static_cast<size_t>(body - answer) + strtoul(field + 16, nullptr, 10);
      closes = strstr(answer, "Connection: close\r\n") != nullptr;
    }
    // What is to be the last answer ends with the connection.
    if (body && received >= expected && !closes) break;
    if (received == sizeof answer - 1) return Other;
  }
  if (!body || received < expected) return Cut;
  if (received > expected || (!keep_alive && !closes)) return Other;
  if (verbose) {
    fputs(body, stdout);
    fflush(stdout);
  }
  return Ok;
}

void* run_client(void*) {
  int fd = -1;
  for (int i = 1; i <= requests && !stop; i++) {
    Outcome outcome = Refused;
    bool closes = true;
    for (int tries = 0; fd < 0 && (tries == 0 || (retries && i == 1 && tries < 20000)); tries++) {
      if (tries > 0) wait_ms(5);
      fd = open_connection();
    }
    if (fd >= 0) outcome = exchange(fd, wait_for && i == requests, closes);
    __atomic_fetch_add(&counts[outcome], 1, __ATOMIC_RELAXED);
    if (fd >= 0 && (closes || outcome != Ok)) {
      close(fd);
      fd = -1;
    }
    if (pause_ms) wait_ms(pause_ms);
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int max_clients = 64;
  pthread_t threads[max_clients];
  int clients = 1;
  for (int c; (c = getopt(argc, argv, "krvc:n:p:w:")) != -1;) switch (c) {
    case 'k': keep_alive = true; break;
    case 'r': retries = true; break;
    case 'v': verbose = true; break;
    case 'c': clients = atoi(optarg); break;
    case 'n': requests = atoi(optarg); break;
    case 'p': pause_ms = atol(optarg); break;
    case 'w': wait_for = optarg; break;
    default: return 2;
    }
  if (optind == argc - 1 && strcmp(argv[optind], "-") == 0) return print_free_ports(requests);
  signal(SIGTERM, on_term);
  for (int at = optind; at < argc; at++) {
    if (clients > max_clients || !parse_address(argv[at])) {
      fprintf(stderr, "client: wrong use\n");
      return 2;
    }
    for (int i = 0; i < clients; i++)
      if (pthread_create(&threads[i], nullptr, run_client, nullptr) != 0) return 1;
    for (int i = 0; i < clients; i++) pthread_join(threads[i], nullptr);
  }
  printf("ok %d refused %d cut %d other %d\n", counts[Ok], counts[Refused], counts[Cut],
         counts[Other]);
  return counts[Ok] > 0 && counts[Refused] + counts[Cut] + counts[Other] == 0 ? 0 : 1;
}
