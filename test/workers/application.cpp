// The same in C++: the header, the linkage and the designated options.
#include "forkd.h"
#include <stdio.h>
#include <unistd.h>

namespace {

int greeting;  // set up by main, and seen by every worker

int run(int, char** argv) {
  dprintf(1, "%s %d number %d\n", argv[0], greeting, forkd_worker_number());
  while (forkd_yield()) usleep(10000);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  greeting = 42;
  const forkd_options options = {.num_workers = 2, .grace = 1, .timeout = 0, .log_level = 0};
  return forkd_run(run, argc, argv, &options);
}
