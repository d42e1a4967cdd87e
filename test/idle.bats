#!/usr/bin/env bats
# The master at rest: what it does while nothing happens, and how it counts time.

load helper

# Three pools side by side: workers that yield, after a signal and a crash; workers that never yield,
# and whose warm-up takes long; and a service manager that is not there.
@test "idle, the master makes no system call" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -n 2 "$W:steady"
  masters=$master
  eventually has_workers 2
  signal USR1
  old=$(pid_of 2)
  kill -KILL "$old"
  eventually is_replaced 2 "$old"
  run_forkd -w 1000 -n 3 "$W:never_yields"
  masters="$masters $master"
  NOTIFY_SOCKET=$PWD/nobody run_forkd -n 3 "$W:steady"
  masters="$masters $master"
  for master in $masters; do eventually has_workers 3; done
  # The third one looks until all are healthy.
  background sleep 0.5
  wait "$background"
  tracers=
  # An attached strace shows the call it is waiting in, and nothing after it.
  for master in $masters; do
    strace -p "$master" -o "trace.$master" 3>&- &
    tracers="$tracers $!"
  done
  for master in $masters; do eventually test -s "trace.$master"; done
  sleep 1.5 # nothing is waited for here: this is the time in which nothing must happen
  kill -INT $tracers
  wait $tracers || :
  for master in $masters; do
    cat "trace.$master"
    [ "$(grep -c '(' "trace.$master")" -eq 1 ]
    grep -q -E 'poll\(|restart_syscall\(' "trace.$master"
  done
}

@test "with -t the master wakes up no more than four times a timeout" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -t 0.5 -n 5 "$W:steady"
  eventually has_workers 5
  strace -p "$master" -e trace=poll,ppoll,restart_syscall -o trace 3>&- &
  tracer=$!
  eventually test -s trace
  background sleep 3
  wait "$background"
  kill -INT "$tracer"
  wait "$tracer" || :
  cat trace
  [ "$(grep -c '(' trace)" -ge 12 ]
  [ "$(grep -c '(' trace)" -le 30 ]
}

@test "the clock that counts is monotonic" {
  command -v nm >/dev/null || skip "no nm"
  # The program asks for the time in one way, and never for the wall clock's.
  nm -u "$ROOT/forkd.o" >needed
  grep -q -w clock_gettime needed
  never grep -w -E 'time|gettimeofday|timespec_get' needed
  never grep CLOCK_REALTIME "$ROOT/forkd.cpp"
}
