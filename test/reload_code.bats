#!/usr/bin/env bats
# Which code a worker runs: that of the last good reload, whatever stands at its path meanwhile.

load helper
load reload

@test "the pool runs the code of its start or of the last good reload, whatever comes to its path and whoever starts" {
  needs_linux "the code is pinned"
  start_one -n 2 -w 0
  eventually runs 1 2
  open=$(open_files)
  # Loaded by its path while that leads to it.
  printed_times 2 "^file ./code.so$"
  deploy two
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually runs 1 3
  # And then from the held file. Not by /proc/self: a debugger would open a descriptor of its own.
  eventually is_replaced 0 "$old"
  eventually printed "^file /proc/$(pid_of 0)/fd/[0-9]*$"
  [ -r "$(sed -n 's/^file \(.proc.*\)/\1/p' out)" ]
  signal USR1
  eventually runs 1 4
  deploy ctor_crash
  reload_fails "signal 11"
  signal USR1
  eventually runs 1 5
  rm code.so
  signal USR1
  eventually runs 1 6
  never runs 2 1
  eventually has_open "$open"
  # After a good reload the same.
  for times in 1 2 3; do
    reload two
    eventually logged_times $times "reload complete"
  done
  eventually has_workers 5
  eventually has_open "$open"
  deploy ctor_crash
  reload_fails "signal 11"
  deploy one
  : >out
  kill -KILL "$(pid_of 1)"
  eventually runs 2 1
  signal USR1
  eventually runs 2 2
  rm code.so
  reload_fails "No such file"
  signal USR1
  eventually runs 2 3
  never runs 1 1
  eventually has_open "$open"
}

@test "a worker that crashes after the release link has moved on comes back on the old release" {
  needs_linux "the code is pinned"
  cat >release.c <<'END'
#include "forkd.h"
#include <stdio.h>
#include <unistd.h>
int companion(void);
int run(void) {
  dprintf(1, "companion %d\n", companion());
  while (forkd_yield()) usleep(10000);
  return 0;
}
END
  echo "int companion(void) { return RELEASE; }" >companion.c
  mkdir 1 2
  for release in 1 2; do
    "$CC" -shared -fPIC -DRELEASE=$release -o $release/libcompanion.so companion.c
  done
  "$CC" -I"$ROOT" -shared -fPIC -o 1/w.so release.c -L1 -lcompanion -Wl,-rpath,'$ORIGIN'
  cp 1/w.so 2
  ln -s 1 current
  run_forkd -w 0 ./current/w.so:run
  eventually printed "companion 1"
  ln -sfn 2 current
  kill -KILL "$(pid_of 0)"
  eventually printed_times 2 "companion 1"
  signal HUP
  eventually logged "reload complete"
  eventually printed_times 2 "companion 2"
}
