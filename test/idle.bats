#!/usr/bin/env bats
# The master at rest: what it does while nothing happens, and how it counts time.

load helper

# Three pools side by side: workers that yield, after a signal and a crash; workers that never yield;
# and a service manager that is not there.
@test "idle, the master makes no system call, whatever its workers do but end" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -n 2 "$W:steady"
  masters=$master
  eventually has_workers 2
  signal USR1
  old=$(pid_of 2)
  kill -KILL "$old"
  eventually is_replaced 2 "$old"
  stopped=$(pid_of 1)
  run_forkd -w 0 -n 3 "$W:never_yields"
  masters="$masters $master"
  NOTIFY_SOCKET=$PWD/nobody run_forkd -n 3 "$W:steady"
  masters="$masters $master"
  for master in $masters; do eventually has_workers 3; done
  tracers=
  for master in $masters; do
    strace -p "$master" -o "trace.$master" 3>&- &
    tracers="$tracers $!"
  done
  for master in $masters; do eventually test -s "trace.$master"; done
  # They look until their workers are healthy.
  eventually are_quiet
  kill -INT $tracers
  wait $tracers || :
}
# Nothing is waited for here: this is the time in which nothing must happen.
are_quiet() {
  wc -c trace.* >before
  kill -STOP "$stopped"
  is_state "$stopped" T || eventually is_state "$stopped" T
  kill -CONT "$stopped"
  sleep 1.5
  tail -n 2 trace.*
  # The trace shows the call that each is waiting in, and nothing after it.
  wc -c trace.* | cmp - before || return
  for trace in trace.*; do
    [[ $(tail -n 1 "$trace") =~ ^(poll|ppoll|restart_syscall)\( && ! ${BASH_REMATCH[0]} =~ " = " ]] || return
  done
}

@test "with -t the master wakes up no more than five times a timeout" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -t 0.5 -n 5 -s state "$W:steady"
  # (It looks more often until its workers are healthy.)
  eventually found healthy=5 state
  strace -ttt -p "$master" -e trace=poll,ppoll,restart_syscall -o trace 3>&- &
  tracer=$!
  eventually found_times 24 '(' trace
  kill -INT "$tracer"
  wait "$tracer" || :
  cat trace
  awk '/\(/ && ++calls == 4 { begin = $1 } calls == 24 { print $1 - begin, "s"; exit $1 - begin < 1.9 }' trace
}

@test "the clock that counts is monotonic" {
  command -v nm >/dev/null || skip "no nm"
  # The program asks for the time in one way, and never for the wall clock's.
  nm -u "$ROOT/forkd.o" >needed
  grep -q -w clock_gettime needed
  never grep -w -E 'time|gettimeofday|timespec_get' needed
  never grep CLOCK_REALTIME "$ROOT/forkd.cpp"
}
