/* A worker that is a program of its own, for a container without a shell or an interpreter: prints
   "ping" once a second, or as often as its argument says in milliseconds, until TERM asks it to
   end. */
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void ask(int number) {
  (void)number;
  asked = 1;
}

int main(int argc, char** argv) {
  struct sigaction action = {.sa_handler = ask};
  const long ms = argc > 1 ? atol(argv[1]) : 1000;
  const struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
  sigaction(SIGTERM, &action, NULL);
  do {
    if (write(STDOUT_FILENO, "ping\n", 5) < 0) {
      /* nobody listens: go on */
    }
    nanosleep(&pause, NULL);
  } while (!asked);
  return 0;
}
