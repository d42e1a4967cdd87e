#!/usr/bin/env bats
# Reload: HUP, good and bad code, and the code that is pinned meanwhile.

load helper

@test "a reload replaces every worker, and an extra one tries the code first" {
  start_one -n 2
  eventually runs 1 2
  before=$(living "$master" | tr '\n' ' ')
  deploy two
  signal HUP
  eventually runs 2 3
  eventually logged "reload complete after [0-9.]* s: every worker runs the new code"
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  eventually has_workers 2
  new_pids "$before"
  printed '^version 2 number 1024$'
  logged_times 1 "reload: trying"
  logged_times 1 "reload succeeded"
  logged_times 1 "reload complete"
}

@test "a reload works for a pool of 1024" {
  not_emulated "hundreds of emulators are too many"
  deploy one
  run_forkd -n 1024 -l warning ./code.so:quiet
  eventually has_workers 1024
  before=$(living "$master" | tr '\n' ' ')
  signal HUP
  eventually new_pids "$before"
  eventually has_workers 1024
  signal USR1
  eventually logged "warning: the target stays 1024, the most there can be"
  has_workers 1024
}

@test "bad code of every kind leaves the pool as it is, and a later reload works" {
  start_one -n 2
  eventually runs 1 2
  rm code.so
  reload_fails "cannot load ./code.so:steady: No such file or directory"
  mkdir code.so
  reload_fails "not a regular file"
  rmdir code.so
  mkfifo code.so
  reload_fails "not a regular file"
  rm code.so
  echo "no shared object" >code.so
  reload_fails "cannot load ./code.so:steady: "
  deploy undefined
  reload_fails "a_symbol_that_nobody_has"
  deploy worker
  reload_fails "steady"
  deploy ctor_crash
  reload_fails "ended by signal 11"
  deploy ctor_exit
  reload_fails "exited with status 0 after .* before it was healthy"
  deploy two
  signal HUP
  eventually runs 2 3
  eventually logged "reload succeeded"
  never logged "could not start.* before it was healthy"
}

@test "code for another machine leaves the pool as it is" {
  case $CC in *musl*) skip "musl's loader does not look at the machine" ;; esac
  start_one
  eventually runs 1 1
  # The ELF header's e_machine, two bytes at 18 (elf(5)).
  cp "$BIN/two.so" next.so
  printf '\377\377' | dd of=next.so bs=1 seek=18 conv=notrunc 2>dd.log
  mv next.so code.so
  reload_fails "cannot load ./code.so:steady"
}

@test "code that crashes before its first yield leaves the pool as it is" {
  deploy one
  run_forkd ./code.so:changing
  eventually runs 1 1
  deploy two
  reload_fails "worker 1024 (pid [0-9]*) was ended by signal 11 .* before it was healthy"
}

@test "code that never finishes loading is killed after the longer of the grace period and the warm-up" {
  for options in "-g 0.3 -w 0.2" "-g 0.2 -w 0.3"; do
    : >log
    : >out
    start_one $options
    eventually runs 1 1
    deploy ctor_hang
    reload_fails "worker 1024 (pid [0-9]*) was not loaded within 0.300 s"
    eventually logged "worker 1024 (pid [0-9]*) was ended by signal 9"
    deploy two
    signal HUP
    eventually runs 2 2
    stops_with 0
  done
}

@test "an extra worker that hangs while it is loaded and cannot be killed is said to be so once" {
  command -v strace >/dev/null || skip "no strace"
  deploy one
  strace -o trace -e trace=kill -e inject=kill:error=EPERM "$FORKD" -g 0.2 -w 0.2 ./code.so:steady >>out 2>>log 3>&- &
  tracer=$!
  eventually runs 1 1
  master=$(living "$tracer")
  deploy ctor_hang
  signal HUP
  eventually logged "error: worker 1024 (pid [0-9]*) has not ended and cannot be killed: Operation not permitted"
  # Nor does it stand in the way of the next reload.
  deploy two
  signal HUP
  eventually logged "reload complete"
  logged_times 1 "cannot be killed"
}

@test "with -g 0 code has time to be loaded, whatever the warm-up" {
  start_one -g 0 -w 0.1
  eventually runs 1 1
  deploy ctor_slow
  signal HUP
  eventually logged "reload succeeded"
  never logged killed
}

@test "an extra worker that is sent a signal while it loads the code has tried nothing: another one does" {
  start_one
  eventually runs 1 1
  deploy ctor_waits
  signal HUP
  first=$(pid_of 1024)
  kill -HUP "$first"
  touch go
  eventually logged "info: worker 1024 (pid $first) exited with status 0"
  eventually logged "reload succeeded"
  logged_times 0 "reload failed"
  [ "$(pid_of 1024)" != "$first" ]
}

@test "workers that die between a deploy and the reload are replaced on the old code" {
  needs_linux "the code is pinned"
  start_one -n 2
  eventually runs 1 2
  deploy two
  kill -KILL "$(pid_of 0)"
  eventually runs 1 3
  signal USR1
  eventually runs 1 4
  never runs 2 1
}

@test "the code stays the old one after a failed reload, also for new workers" {
  needs_linux "the code is pinned"
  start_one
  eventually runs 1 1
  deploy ctor_crash
  reload_fails "signal 11"
  signal USR1
  eventually runs 1 2
  rm code.so
  signal USR1
  eventually runs 1 3
}

@test "the code of the last good reload stays the pool's, whatever came after it" {
  needs_linux "the code is pinned"
  start_one
  eventually runs 1 1
  deploy two
  signal HUP
  eventually logged "reload complete"
  deploy ctor_crash
  reload_fails "signal 11"
  deploy one
  signal USR1
  eventually runs 2 3
  rm code.so
  reload_fails "No such file"
  kill -KILL "$(pid_of 0)"
  eventually runs 2 4
  runs 1 1
  never runs 1 2
}

@test "reloads, good and bad, leave no file open" {
  [ -e /proc/self/fd ] || skip "no /proc"
  start_one
  eventually runs 1 1
  before=$(ls -l "/proc/$master/fd" | sed 's/.* [0-9]* -> //; s/ (deleted)//' | sort)
  for round in 1 2 3; do
    deploy two
    signal HUP
    eventually logged_times $round "reload complete"
  done
  eventually has_workers 1
  deploy ctor_crash
  reload_fails "signal 11"
  [ "$before" = "$(ls -l "/proc/$master/fd" | sed 's/.* [0-9]* -> //; s/ (deleted)//' | sort)" ]
}

@test "code is loaded by its path while that leads to it, and from the held file when not" {
  needs_linux "the code is pinned"
  start_one
  eventually runs 1 1
  grep -q "^file ./code.so$" out
  deploy two
  signal USR1
  eventually runs 1 2
  # Not by /proc/self: a debugger would open a descriptor of its own. And the file stays open for it.
  grep -q "^file /proc/$(pid_of 1)/fd/[0-9]*$" out
  [ -r "$(sed -n 's/^file \(.proc.*\)/\1/p' out)" ]
}

@test "workers that are busy for long are not killed, while the others are replaced" {
  # Nobody waits for it, for any time.
  deploy one
  run_forkd -g 1000 -n 3 ./code.so:first_busy stay
  eventually runs 1 3
  busy=$(pid_of 0)
  touch stay
  eventually printed "^busy"
  deploy two
  signal HUP
  # The two others, and the extra worker.
  eventually runs 2 3
  eventually is_replaced 1 "$(first_pid_of 1)"
  eventually is_replaced 2 "$(first_pid_of 2)"
  [ "$(pid_of 0)" = "$busy" ]
  has_workers 4
  rm stay
  eventually logged "reload complete"
  eventually is_replaced 0 "$busy"
  eventually has_workers 3
}

@test "the extra worker stays until every number has a worker on the new code" {
  deploy one
  run_forkd ./code.so:first_busy stay
  touch stay
  eventually printed "^busy"
  deploy two
  signal HUP
  eventually logged "reload succeeded"
  eventually runs 2 1
  has_workers 2
  rm stay
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  eventually has_workers 1
  logged_times 1 "worker 1024 (pid [0-9]*) started"
}

@test "HUP during a reload does nothing new while the file is the same" {
  start_one -g 1000
  eventually runs 1 1
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  signal HUP
  eventually logged "already under way, and the file is the same"
  logged_times 1 "reload: trying"
}

@test "HUP during a trial tries the newest file beside the worker of the dropped trial" {
  deploy one
  run_forkd -l debug ./code.so:slow_start slow
  eventually runs 1 1
  touch slow
  deploy one
  signal HUP
  eventually printed "^slow 1024"
  deploy two
  signal HUP
  eventually printed "^slow 1025"
  logged "worker 1024 (pid [0-9]*) is asked to end"
  rm slow
  eventually logged "reload complete"
  eventually has_workers 1
  logged_times 1 "reload: trying the new code as worker 1024"
  logged_times 1 "reload: trying the new code as worker 1025"
  logged_times 1 "reload succeeded"
}

@test "a trial waits for the worker of a dropped one when there is no number left, and does not kill it" {
  deploy one
  run_forkd -g 0.5 -w 1 ./code.so:slow_start slow
  eventually runs 1 1
  touch slow
  for worker in 1024 1025; do
    deploy two
    signal HUP
    eventually printed "^slow $worker"
  done
  deploy two
  signal HUP
  eventually logged "reload: waits for worker 1024 (pid [0-9]*) of an earlier reload to end"
  signal HUP
  eventually logged "reload: already about to begin"
  # At its first task, it may finish that, however long it takes beyond the grace period.
  eventually lived "$(pid_of 1024)" 2
  # That another worker ends meanwhile changes nothing.
  kill -KILL "$(pid_of 0)"
  eventually is_replaced 0 "$(first_pid_of 0)"
  rm slow
  eventually logged "reload complete"
  never logged "is killed"
  logged_times 1 "reload: waits"
  logged_times 3 "reload: trying"
  logged_times 1 "reload succeeded"
  eventually has_workers 1
}

@test "USR1, USR2 and crashes during a reload keep their effect" {
  needs_linux "the code is pinned"
  start_one -n 3 -g 1000
  eventually runs 1 3
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  signal USR1
  eventually has_workers 5
  signal USR2
  eventually has_workers 4
  signal USR2
  eventually has_workers 3
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually is_replaced 0 "$old"
  eventually has_workers 3
  kill -KILL "$(pid_of 1024)"
  eventually logged "reload failed: worker 1024 (pid [0-9]*) was ended by signal 9"
  has_workers 2
}

@test "code that fails while it sets itself up, however late, leaves the pool as it is" {
  deploy one
  run_forkd -n 2 ./code.so:fails_late_in_two
  eventually runs 1 2
  deploy two
  reload_fails "worker 1024 (pid [0-9]*) exited with status 1 after [1-9][0-9]*\.[0-9]* s before it was healthy"
}

@test "a command that fails before the warm-up is over leaves the pool as it is" {
  echo 'exec sleep 1000' >job.sh
  run_forkd -w 60 -n 2 sh job.sh
  eventually has_workers 2
  echo 'sleep 0.5; exit 3' >job.sh
  reload_fails "worker 1024 (pid [0-9]*) exited with status 3 after [0-9.]* s before it was healthy"
}

@test "HUP during a trial of commands, which nobody can compare, begins a new one" {
  run_forkd -w 1 sleep 1000
  eventually has_workers 1
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  signal HUP
  eventually logged "reload: trying the new code as worker 1025"
  eventually logged "worker 1024 (pid [0-9]*) was ended by signal 15"
  eventually logged "reload complete"
  eventually has_workers 1
  logged_times 1 "reload succeeded"
  logged_times 0 "reload failed"
}

@test "a command that ends with 0 during its trial has passed it" {
  echo 'exec sleep 1000' >job.sh
  run_forkd -w 0.5 sh job.sh
  eventually has_workers 1
  echo '[ -e tried ] || { touch tried; exit 0; }; exec sleep 1000' >job.sh
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 1
}

@test "new code that fails when the master was stopped meanwhile has not passed its trial" {
  deploy one
  run_forkd -w 1 ./code.so:fails_late_in_two
  eventually runs 1 1
  deploy two
  signal HUP
  eventually runs 2 1
  kill -STOP "$master"
  eventually is_state "$(pid_of 1024)" Z
  background sleep 1
  wait "$background"
  kill -CONT "$master"
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 1"
}

@test "new code that survives its SIGABRT and is healthy then is the pool's" {
  deploy one
  run_forkd -t 0.5 -w 0.5 ./code.so:late_in_two
  eventually has_workers 1
  deploy two
  signal HUP
  eventually logged "worker 1024 .*is aborted"
  eventually logged "reload succeeded"
  never logged "worker 1024 .* has not ended and is killed"
}

@test "TERM during a reload ends the pool in an orderly way" {
  start_one -n 2 -g 2
  eventually runs 1 2
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  stops_with 3
  logged "worker 0 (pid [0-9]*) exited with status 0"
  logged "worker 1024 (pid [0-9]*) has not ended and is killed"
  # Dropped is not failed: the time of its trial, which began before the shutdown, means nothing any more.
  logged_times 0 "reload failed"
}

@test "a reload lets workers in backoff start at once on the new code" {
  deploy one
  run_forkd -n 2 ./code.so:broken_in_one
  # After the sixth failure the next start is due 3.2 s later.
  eventually logged_at_least 12 "exited with status 1"
  deploy two
  signal HUP
  eventually logged "reload complete"
  runs 2 3
  logged "reload complete after [0-2][.]"
}

@test "fork that fails for the extra worker ends the reload, not the pool" {
  command -v strace >/dev/null || skip "no strace"
  deploy one
  strace -e trace=clone,clone3,fork -e inject=clone,clone3,fork:error=EAGAIN:when=2 -o trace \
    "$FORKD" ./code.so:steady >>out 2>>log 3>&- &
  background=$!
  eventually runs 1 1
  master=$(children "$background")
  signal HUP
  eventually logged "reload failed: cannot fork: Resource temporarily unavailable"
  # It is no failure of the pool, which would delay its next fork.
  never logged "next try"
  signal HUP
  eventually logged "reload succeeded"
}

@test "fork that fails for a worker does not end the trial of one that runs" {
  command -v strace >/dev/null || skip "no strace"
  deploy one
  strace -e trace=clone,clone3,fork -e inject=clone,clone3,fork:error=EAGAIN:when=3 -o trace \
    "$FORKD" ./code.so:slow_start slow >>out 2>>log 3>&- &
  background=$!
  eventually runs 1 1
  master=$(children "$background")
  touch slow
  signal HUP
  eventually printed "^slow 1024"
  signal USR1
  eventually logged "cannot fork: .*; next try in 0.100 s"
  rm slow
  eventually logged "reload succeeded"
  never logged "reload failed"
}

@test "a reload fails, and does not wait, while fork fails for the pool" {
  command -v strace >/dev/null || skip "no strace"
  deploy one
  strace -e trace=clone,clone3,fork -e inject=clone,clone3,fork:error=EAGAIN:when=3+ -o trace \
    "$FORKD" -n 2 ./code.so:steady >>out 2>>log 3>&- &
  background=$!
  eventually runs 1 2
  master=$(children "$background")
  kill -KILL "$(pid_of 0)"
  eventually logged "cannot fork"
  signal HUP
  eventually logged "reload failed: cannot fork: Resource temporarily unavailable"
}

@test "many reloads, every tenth of them broken, lose no task and do none twice" {
  deploy one
  run_forkd -n 4 ./code.so:counts tally
  eventually test -s tally
  for round in $(seq 20); do
    if [ $((round % 10)) -eq 0 ]; then deploy ctor_crash; else deploy two; fi
    signal HUP
    eventually logged_times "$round" "reload succeeded\|reload failed"
  done
  stops_with 0
  logged_times 2 "reload failed"
  awk '{ seen[$1 " " $2]++ } END { for (task in seen) if (seen[task] != 2) { print task, seen[task]; bad = 1 } exit bad }' tally
}

@test "a worker that crashes after the release link has moved on comes back on the old release" {
  needs_linux "the code is pinned"
  for release in 1 2; do
    mkdir $release
    echo "int companion(void) { return $release; }" >companion.c
    "$CC" -shared -fPIC -o $release/libcompanion.so companion.c
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
    "$CC" -I"$ROOT" -shared -fPIC -o $release/w.so release.c -L$release -lcompanion -Wl,-rpath,'$ORIGIN'
  done
  ln -s 1 current
  run_forkd ./current/w.so:run
  eventually printed "companion 1"
  ln -sfn 2 current
  kill -KILL "$(pid_of 0)"
  eventually printed_times 2 "companion 1"
  signal HUP
  eventually logged "reload complete"
  printed "companion 2"
}

@test "a reload that failed starts nothing later" {
  start_one -l debug
  eventually runs 1 1
  deploy ctor_crash
  signal HUP
  eventually logged "reload failed"
  background sleep 0.4
  wait "$background"
  logged_times 1 "reload failed"
  signal HUP
  signal HUP
  eventually logged_at_least 2 "reload failed"
  signal HUP
  rm code.so
  signal HUP
  eventually logged "reload failed: cannot load ./code.so:steady: No such file"
  starts=$(grep -c "worker 1024 .*started" log)
  deploy two
  background sleep 0.5
  wait "$background"
  never runs 2 1
  [ "$(grep -c "worker 1024 .*started" log)" -eq "$starts" ]
  has_workers 1
}
