// Whether an INT, QUIT or TERM is a second one: forkd.cpp's own handler, without its loop.
#define main forkd_main
#include "../../forkd.cpp"
#undef main

static void pause_ms(long ms) {
  timespec t = {0, ms * 1000000};
  while (nanosleep(&t, &t) != 0) {
  }
}

int main() {
  if (!become_master()) return 1;
  raise(SIGTERM);
  raise(SIGINT);  // an echo,
  pause_ms(300);
  if (second_stop) return puts("an echo became a second signal with time"), 1;
  raise(SIGQUIT);
  if (!second_stop) return puts("a second signal was taken for an echo"), 1;
  return 0;
}
