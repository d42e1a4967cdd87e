// An application in C++ whose workers leave their function by an exception (throw) or by
// pthread_exit(3) (exit): nothing of main may run in them.
#include "forkd.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct Local {
  ~Local() { dprintf(1, "destroyed in %d\n", static_cast<int>(getpid())); }
};

static int throws(int, char**) {
  forkd_yield();
  throw 1;
}

static int exits(int, char**) {
  forkd_yield();
  pthread_exit(nullptr);
}

int main(int argc, char** argv) {
  Local local;
  try {
    return forkd_run(argc > 1 && strcmp(argv[1], "throw") == 0 ? throws : exits, argc, argv, nullptr);
  } catch (...) {
    dprintf(1, "caught in %d\n", static_cast<int>(getpid()));
  }
  return 9;
}
