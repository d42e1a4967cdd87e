/* Runs a program with no signal ignored or blocked, whatever the caller ignores (under nohup, say): a
 * shell cannot undo that.
 *
 *   default_signals PROGRAM [ARGUMENT ...] */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
  sigset_t none;
  int number;
  if (argc < 2) return 2;
  for (number = 1; number < 128; number++) signal(number, SIG_DFL); /* what cannot be stays */
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execvp(argv[1], argv + 1);
  perror(argv[1]);
  return 127;
}
