// A service manager's ear.
//
//   notify_sink ADDRESS        prints each datagram that comes to that address (a path, or @ and a
//                              name) on a line: the microseconds of the monotonic clock, and what it says
//   notify_sink fill ADDRESS   fills the queue of that address
//   notify_sink hup PID        sends HUP, and prints the microseconds from just before it
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static long long now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void print(const char* text) {
  printf("%lld %s\n", now(), text);
  fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const bool fills = argc > 2 && strcmp(argv[1], "fill") == 0;
  const char* address = argv[argc - 1];
  if (argc > 2 && !fills) {
    const long long before = now();
    if (kill(static_cast<pid_t>(atoi(address)), SIGHUP) != 0) return 1;
    return printf("%lld\n", before) < 0;
  }
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (strlen(address) >= sizeof name.sun_path) return 2;
  memcpy(name.sun_path, address, strlen(address));
  if (name.sun_path[0] == '@') name.sun_path[0] = '\0';
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(address));
  if (fills) {
    // A socket's own buffer may be full before the queue is: then another one can still send.
    for (int sent = 1; sent > 0; fd = socket(AF_UNIX, SOCK_DGRAM, 0))
      for (sent = 0; sendto(fd, "full", 4, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&name), size) > 0;)
        sent++;
    return 0;
  }
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&name), size) != 0) {
    perror(address);
    return 1;
  }
  print("listening");
  char text[2048];
  for (;;) {
    const ssize_t length = recv(fd, text, sizeof text - 1, 0);
    if (length < 0) return 1;
    text[length] = '\0';
    for (char* c = text; (c = strchr(c, '\n'));) *c = ' ';
    print(text);
  }
}
