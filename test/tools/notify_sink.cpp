// A service manager's ear: prints each datagram that comes to the address that is its argument (a
// path, or @ and a name) on a line: the milliseconds of the monotonic clock, and what it says.
// With a second argument it fills the queue of that address instead.
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static void print(const char* text) {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  printf("%lld %s\n", t.tv_sec * 1000LL + t.tv_nsec / 1000000, text);
  fflush(stdout);
}

int main(int argc, char** argv) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (argc < 2 || strlen(argv[1]) >= sizeof name.sun_path) return 2;
  memcpy(name.sun_path, argv[1], strlen(argv[1]));
  if (name.sun_path[0] == '@') name.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(argv[1]));
  if (argc > 2) {
    while (sendto(fd, "full", 4, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&name), size) > 0) {
    }
    return 0;
  }
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&name), size) != 0) {
    perror(argv[1]);
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
