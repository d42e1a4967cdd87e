#!/usr/bin/env bats
# The roll: what can come between, while old workers are still at their tasks.

load helper

# roll_beside_a_busy_worker OPTION ...: a pool of version 1, whose worker 0 stays within its task while
# the file "stay" exists, gets version 2.
roll_beside_a_busy_worker() {
  deploy one
  run_forkd -g 1000 "$@" ./code.so:first_busy stay
  eventually runs 1 1
  touch stay
  eventually printed "^busy"
  deploy two
  signal HUP
}

@test "an old worker that dies during the roll is replaced at once on the new code" {
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  runs 2 2
  kill -KILL "$(pid_of 0)"
  eventually logged "reload complete"
  eventually has_workers 2
  eventually runs 2 3
}

@test "the extra worker of a roll that dies is replaced on the pool's code" {
  roll_beside_a_busy_worker
  eventually logged "reload succeeded"
  kill -KILL "$(pid_of 1024)"
  eventually runs 2 2
  eventually has_workers 2
  rm stay
  eventually logged "reload complete"
  eventually has_workers 1
}

@test "USR1 and USR2 work during a roll, and the target that they set survives" {
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  signal USR1
  eventually logged "the target is now 3"
  eventually runs 2 3
  signal USR1
  eventually logged "the target is now 4"
  signal USR2
  eventually logged_times 2 "the target is now 3"
  eventually has_workers 4
  rm stay
  eventually logged "reload complete"
  eventually has_workers 3
  never runs 1 3
}

@test "HUP during a roll does nothing new while the file is the same" {
  roll_beside_a_busy_worker
  eventually logged "reload succeeded"
  signal HUP
  eventually logged "already under way, and the file is the same"
  rm stay
  eventually logged "reload complete"
  logged_times 1 "reload: trying"
}

@test "a file is another one if its inode, its size or its time is, down to fractions of a second" {
  roll_beside_a_busy_worker
  trials=1
  for change in "touch -d 2001-01-01T00:00:01.5Z code.so" "touch -d 2001-01-01T00:00:02.5Z code.so" \
    "touch -d 2001-01-01T00:00:02.25Z code.so" "grow code.so" "copy code.so"; do
    eventually logged_times $trials "reload succeeded"
    echo "$change"
    $change
    signal HUP
    trials=$((trials + 1))
    eventually logged_times $trials "reload: trying"
  done
  eventually logged_times $trials "reload succeeded"
  signal HUP
  eventually logged "already under way, and the file is the same"
}
# Another size at the same time; and another file of the same size and time.
grow() {
  touch -r "$1" time
  printf x >>"$1"
  touch -r time "$1"
}
copy() { cp -p "$1" "$1.new" && mv "$1.new" "$1"; }

@test "a rollback of a pool of one is tried beside the extra worker, while the task goes on" {
  roll_beside_a_busy_worker -l debug
  busy=$(pid_of 0)
  eventually logged "reload succeeded"
  deploy one
  signal HUP
  eventually logged "reload: trying the new code as worker 1025"
  eventually logged_times 2 "reload succeeded"
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  # At once, and not when there is room.
  logged "worker 1024 (pid [0-9]*) is asked to end"
  [ "$(pid_of 0)" = "$busy" ]
  has_workers 2
  rm stay
  eventually logged "reload complete"
  eventually is_replaced 0 "$busy"
  eventually has_workers 1
}

@test "a trial that fails during a roll leaves the roll as it is" {
  needs_linux "the code is pinned"
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  deploy ctor_crash
  signal HUP
  eventually logged "reload failed: worker 1025 "
  kill -KILL "$(pid_of 1024)" "$(pid_of 1)"
  eventually runs 2 4
  rm stay
  eventually logged "reload complete"
  eventually has_workers 2
  never runs 1 3
}

@test "a trial during a roll waits for the worker of the trial that it takes the place of" {
  roll_beside_a_busy_worker
  eventually logged "reload succeeded"
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1025 (pid [0-9]*) started"
  deploy one
  signal HUP
  # The other extra worker is the one that helps in the roll.
  eventually logged "reload: waits for worker 1025 (pid $(pid_of 1025)) of an earlier reload to end"
  kill -KILL "$(pid_of 1025)"
  eventually logged_times 2 "reload succeeded"
  logged_times 0 "reload failed"
  rm stay
  eventually logged "reload complete"
  eventually has_workers 1
}

@test "two dropped trials that hang while they are loaded hold up no later reload" {
  start_one -g 0.3 -w 1.5
  eventually runs 1 1
  for name in ctor_hang ctor_hang two; do
    deploy $name
    signal HUP
    background sleep 0.1
    wait "$background"
  done
  eventually logged "reload complete"
  eventually has_workers 1
  runs 2 2
}

@test "the worker of a dropped trial that hangs while it is loaded is killed, though the reload is over, and its file closed" {
  start_one -g 1 -w 1
  eventually runs 1 1
  open_before=$(open_files)
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  deploy two
  signal HUP
  eventually logged "reload complete"
  [ "$(open_files)" = "$open_before" ]
  eventually logged "worker 1024 (pid [0-9]*) has not ended and is killed"
  eventually has_workers 1
}
open_files() { ls "/proc/$master/fd" 2>/dev/null | wc -l; }

@test "the worker of a dropped trial is killed for hanging without harm to the trial that is under way" {
  deploy one
  run_forkd -t 1000 -g 0.3 -w 1.5 ./code.so:slow_start slow
  eventually runs 1 1
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  touch slow
  deploy two
  signal HUP
  eventually printed "^slow 1025"
  eventually logged "worker 1024 (pid [0-9]*) has not ended and is killed"
  rm slow
  eventually logged "reload complete"
  logged_times 0 "reload failed"
}

@test "code that does one long task and returns 0 is rolled out, too" {
  run_forkd -n 2 sh -c 'sleep 1.5; exit 0'
  eventually has_workers 2
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 2
}

@test "an extra worker that fails again and again holds up the roll, which is said once" {
  deploy one
  run_forkd -n 2 ./code.so:fails_while_in_two 1024
  eventually runs 1 2
  deploy two
  touch fail
  signal HUP
  eventually logged_times 1 "error: reload stands still: worker 1024 (pid [0-9]*) exited with status 5"
  # With one number or the extra worker vacant, none of the others is let go.
  eventually logged_at_least 4 "worker 1024 (pid [0-9]*) exited with status 5"
  never logged "reload complete"
  rm fail
  eventually logged "reload complete"
}

@test "a command that cannot be executed does not pass its trial, however slow that is, with -w 0" {
  command -v strace >/dev/null || skip "no strace"
  printf '#!/bin/sh\necho up >>ups\nexec sleep 1000\n' >job
  chmod +x job
  strace -f -o trace -e trace=execve -e inject=execve:delay_enter=30000 "$FORKD" -w 0 -n 2 ./job >>out 2>>log 3>&- &
  tracer=$!
  eventually are_up 2
  master=$(living "$tracer" | head -n 1)
  rm job
  signal HUP
  eventually logged "reload failed: .*cannot execute"
  signal TERM
  eventually gone_or_zombie "$tracer"
}

are_up() { [ -e ups ] && [ "$(wc -l <ups)" -eq "$1" ]; }

@test "a pool that is frozen during a trial does not take that for the warm-up" {
  echo 'exec sleep 1000' >job.sh
  run_forkd -w 2 sh job.sh
  eventually has_workers 1
  echo 'sleep 0.8; exit 3' >job.sh
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  frozen=$(tree "$master")
  kill -STOP $frozen
  background sleep 2.5
  wait "$background"
  kill -CONT $frozen
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 3"
}

@test "TERM during a roll ends the pool in an orderly way" {
  roll_beside_a_busy_worker -n 2
  eventually logged "reload succeeded"
  signal TERM
  rm stay
  ends_with 0
  never logged "reload complete"
}

@test "a worker that is sent a signal itself during a roll comes back on the new code" {
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  kill -HUP "$(pid_of 0)" "$(pid_of 1)"
  rm stay
  eventually logged "reload complete"
  eventually has_workers 2
}
