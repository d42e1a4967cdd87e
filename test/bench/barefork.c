// The physical limit of a pre-forking master, for the benchmark: fork, pause, waitpid, fork, and
// nothing else. "barefork -n NUMBER" forks workers, "barefork -n NUMBER exec" forks and executes them,
// "barefork -n NUMBER exits" forks some that end by exit(3); without -n, whatever the arguments, it
// is a worker.
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void waits(void);
void exits(void);

enum { most = 4096 };
static pid_t pids[most];
static int number;
static volatile sig_atomic_t stopping;

static void stop(int signal_number) {
  stopping = 1;
  for (int i = 0; i < number; i++)
    if (pids[i] > 0) kill(pids[i], signal_number);
}

static void start(int i, char* program, const char* how) {
  if ((pids[i] = fork()) != 0) return;
  signal(SIGTERM, SIG_DFL);
  if (strcmp(how, "exits") == 0) exits();
  if (strcmp(how, "exec") == 0) {
    execl(program, program, (char*)0);
    _exit(127);
  }
  waits();
}

int main(int argc, char** argv) {
  if (argc < 3 || strcmp(argv[1], "-n") != 0) waits();
  number = atoi(argv[2]);
  if (number < 1 || number > most) return 2;
  const char* how = argc > 3 ? argv[3] : "forks";
  signal(SIGTERM, stop);
  for (int i = 0; i < number; i++) start(i, argv[0], how);
  for (pid_t ended; (ended = waitpid(-1, NULL, 0)) > 0;)
    for (int i = 0; i < number; i++)
      if (pids[i] == ended) {
        if (stopping) pids[i] = 0;
        else start(i, argv[0], how);
        break;
      }
  return 0;
}
