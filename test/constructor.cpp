// Code that goes wrong while it is loaded: it crashes, exits or never comes back.
#include <signal.h>
#include <unistd.h>

[[gnu::constructor]] static void load() {
#if defined CRASH
  raise(SIGSEGV);
#elif defined EXIT
  _exit(0);
#elif defined HANG
  for (;;) pause();
#endif
}

extern "C" int steady() { return 0; }
