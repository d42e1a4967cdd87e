#!/usr/bin/env bats
# The master at rest: what it does while nothing happens, and how it counts time.

load helper

@test "idle, the master makes no system call" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -n 3 "$W:steady"
  eventually has_workers 3
  # An attached strace shows the call it is waiting in, and nothing after it.
  strace -p "$master" -o trace 3>&- &
  tracer=$!
  eventually test -s trace
  sleep 1.5 # nothing is waited for here: this is the time in which nothing must happen
  kill -INT "$tracer"
  wait "$tracer" || :
  cat trace
  [ "$(grep -c '(' trace)" -eq 1 ]
  grep -q -E 'poll\(|restart_syscall\(' trace
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
