// The example: prints "ping" once a second, and yields after each.
#include "forkd.h"
#include <stdio.h>
#include <unistd.h>

extern "C" int run() {
  do {
    puts("ping");
    fflush(stdout);
    sleep(1);
  } while (forkd_yield());
  return 0;
}
