// A small HTTP/1.1 server as a worker: forkd -n 4 -b :8080 ./httpd.so:run
//
// All workers accept on the same sockets, and one request is one task. A worker that is asked to
// end leaves new clients to the others at once. Those it has get one more answer each, with
// "Connection: close", and a second to ask for it: so a client that is busy never finds its
// connection closed just as it sends a request.
#include "forkd.h"
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr int first_socket = 3;  // where forkd puts them, as sd_listen_fds(3) describes it
constexpr int max_sockets = 8;
constexpr int max_clients = 256;
constexpr int patience = 30000;    // milliseconds that a client may take for a request,
constexpr int last_chance = 1000;  // and when its connection is to end

struct Client {
  long long since;  // when it came, began a request or got an answer
  bool last;        // that answer was the last: what still comes in is thrown away
  size_t received;  // bytes in request
  char request[4096];
};

Client clients[max_clients];
pollfd polls[1 + max_sockets + max_clients];  // the stop descriptor, the sockets, the connections
pollfd* const sockets = polls + 1;
pollfd* const connections = sockets + max_sockets;  // of clients; fd is -1 where there is none
bool ending;                                        // what the last yield has said

long long clock_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// Whether the head of a request has the field, given as "\nName:", and the word in its line.
bool has(const char* head, const char* field, const char* word) {
  const char* start = strcasestr(head, field);
  const char* found = start ? strcasestr(start + strlen(field), word) : nullptr;
  return found && found < strchr(start + 1, '\n');
}

// Answers the request with this head. False: so many answers lie unread that this one does not fit.
bool answer(Client& c, int fd, const char* head) {
  int minor = 0;
  const char* status = strncmp(head, "GET ", 4) == 0 ? "200 OK" : "501 Not Implemented";
  if (sscanf(head, "%*s %*s HTTP/1.%d", &minor) != 1) status = "400 Bad Request";
  c.last = ending || *status != '2' || has(head, "\nConnection:", "close") ||
           (minor == 0 && !has(head, "\nConnection:", "keep-alive")) ||
           // A body is not read, and so nothing that comes after it.
           has(head, "\nTransfer-Encoding:", "") ||
           has(head, "\nContent-Length:", "") != has(head, "\nContent-Length:", " 0\r");
  char body[64], reply[256];
  const int length = snprintf(body, sizeof body, "worker %d, pid %d\n", forkd_worker_number(),
                              static_cast<int>(getpid()));
  const int size = snprintf(reply, sizeof reply,
                            "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                            "Connection: %s\r\n\r\n%s",
                            status, length, c.last ? "close" : "keep-alive", body);
  return send(fd, reply, static_cast<size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL) == size;
}

// Receives what is there and answers what is complete. False: the connection is over.
bool serve(Client& c, int fd, long long now) {
  if (c.last) c.received = 0;
  if (c.received == 0 && !c.last) c.since = now;
  const ssize_t n = recv(fd, c.request + c.received, sizeof c.request - 1 - c.received, 0);
  if (n <= 0) return false;
  c.request[c.received += static_cast<size_t>(n)] = '\0';
  for (char* end; !c.last && (end = strstr(c.request, "\r\n\r\n"));) {
    end[2] = '\0';
    if (!answer(c, fd, c.request)) return false;
    ending = !forkd_yield();
    c.since = now;
    c.received -= static_cast<size_t>(end + 4 - c.request);
    memmove(c.request, end + 4, c.received + 1);  // with the null byte
    // To close with something unread would reset the connection and lose the answer. So only our
    // side ends, and the client closes when it has read that.
    if (c.last) shutdown(fd, SHUT_WR);
  }
  return c.last || c.received < sizeof c.request - 1;
}

// Accepts a client. False: there is no place for one, or another worker was faster.
bool welcome(int socket, long long now) {
  int i = 0;
  while (i < max_clients && connections[i].fd >= 0) i++;
  if (i == max_clients) return false;
  connections[i].fd = accept(socket, nullptr, nullptr);
  clients[i].since = now;
  clients[i].last = false;
  clients[i].received = 0;
  return connections[i].fd >= 0;
}

}  // namespace

extern "C" int run() {
  const char* pid = getenv("LISTEN_PID");
  const int given = pid && atoi(pid) == getpid() ? atoi(getenv("LISTEN_FDS")) : 0;
  if (given < 1 || given > max_sockets) {
    fprintf(stderr, "httpd: %d sockets, must be 1 to %d: see forkd -b\n", given, max_sockets);
    return 1;
  }
  for (pollfd& p : polls) p = {-1, POLLIN, 0};
  polls[0].fd = forkd_stop_fd();
  for (int i = 0; i < given; i++) {
    sockets[i].fd = first_socket + i;
    // All workers wake up for a new client; who is late to accept it must not wait for another one.
    fcntl(sockets[i].fd, F_SETFL, fcntl(sockets[i].fd, F_GETFL) | O_NONBLOCK);
  }
  int open = 0;  // connections
  for (bool accepting = true; accepting || open > 0;) {
    ending = !forkd_yield();
    if (ending && accepting) {
      accepting = false;
      for (pollfd* p = polls; p < connections; p++) p->fd = -1;
      for (Client& c : clients) c.since = clock_ms();
    }
    // Not for ever: a look at the clock, and for forkd -t a sign of life.
    if (poll(polls, sizeof polls / sizeof *polls, accepting ? 1000 : 50) < 0) continue;
    const long long now = clock_ms();
    open = 0;
    for (int i = 0; i < max_clients; i++) {
      Client& c = clients[i];
      pollfd& p = connections[i];
      if (p.fd < 0) continue;
      const bool late = now - c.since > (accepting && !c.last ? patience : last_chance);
      open++;
      if (p.revents ? serve(c, p.fd, now) : !late) continue;
      open--;
      close(p.fd);
      p.fd = -1;
    }
    for (int i = 0; i < given; i++) {
      if (sockets[i].revents) open += welcome(sockets[i].fd, now);
      sockets[i].events = open < max_clients ? POLLIN : 0;
    }
  }
  return 0;
}
