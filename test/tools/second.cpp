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
  const int stops[] = {SIGINT, SIGQUIT, SIGTERM, SIGINT, SIGQUIT};
  for (int i = 0; i < 3; i++) {
    first_stop_at = 0;
    second_stop = false;
    raise(stops[i]);
    raise(stops[i + 1]);  // an echo,
    pause_ms(120);
    if (second_stop) return puts("an echo became a second signal with time"), 1;
    raise(stops[i + 2]);
    if (!second_stop) return puts("a second signal was taken for an echo"), 1;
  }

  // One signal after the other: each up to 0.1 s after the first is an echo, and no later one is.
  first_stop_at = 0;
  second_stop = false;
  const Ms earliest = clock_ms();
  raise(SIGTERM);
  const Ms latest = clock_ms();
  while (!second_stop) {
    pause_ms(3);
    const Ms before = clock_ms();
    raise(SIGTERM);
    if (second_stop && clock_ms() - earliest < 99) return puts("an echo was not one"), 1;
    if (!second_stop && before - latest > 101) return puts("a late signal was an echo"), 1;
  }
  return 0;
}
