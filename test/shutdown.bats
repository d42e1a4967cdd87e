#!/usr/bin/env bats
# Shutdown: the request, the nudge, the kill, and the death of the master itself.

load helper

@test "the master ends as soon as the last worker has, not at the end of the grace period" {
  run_forkd -g 1000 -n 3 "$W:steady"
  eventually has_workers 3
  stops_with 0
  # Of the requests only -l debug tells.
  logged_times 0 "asked to end"
}

@test "a task that is under way at shutdown is finished" {
  run_forkd -n 2 "$W:tasks" tally
  eventually test -s tally
  stops_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
}

@test "a worker blocked in a system call is woken up at half of the grace period" {
  run_forkd -g 3 -n 2 "$W:blocked"
  eventually printed_times 2 blocked
  stops_with 0
  logged_times 2 "exited with status 0"
}

@test "a worker that does not yield is killed at the end of the grace period: status 3" {
  run_forkd -g 1.5 -n 2 "$W:first_hangs"
  eventually printed hangs
  eventually logged "worker 1 (pid [0-9]*) started"
  stops_with 3
  logged_times 1 "warning: worker 0 (pid [0-9]*) has not ended and is killed$"
  logged "info: worker 1 (pid [0-9]*) exited with status 0"
}

@test "a stopped function worker is continued, sees the request and ends" {
  run_forkd -g 1 "$W:steady"
  eventually logged started
  pid=$(pid_of 0)
  kill -STOP "$pid"
  eventually is_state "$pid" T
  stops_with 0
}

@test "a second TERM kills what is left at once: status 3" {
  run_forkd -g 0 "$W:hangs"
  eventually printed hangs
  signal TERM
  eventually logged "shutting down"
  eventually second_term_works
  ends_with 3
}
# The second one counts from 0.1 s on; an earlier one is taken for an echo of the first.
second_term_works() { signal TERM; logged "is killed"; }

@test "an echo of the TERM that shuts the pool down kills nobody" {
  eventually ends_in_order_though_it_echoes
}
# A busy machine may be late with the echo: then it is a second signal, and the next pool shows it.
ends_in_order_though_it_echoes() {
  : >out
  run_forkd "$W:echoes_term"
  eventually printed polling
  stops_with 0
}

@test "INT and TERM that arrive together are one request to shut down" {
  run_forkd "$W:steady"
  eventually logged started
  kill -STOP "$master"
  eventually is_state "$master" T
  signal INT
  signal TERM
  kill -CONT "$master"
  ends_with 0
}

@test "TERM while workers wait in backoff ends the master at once" {
  run_forkd -n 3 "$W:returns" 1 healthy
  eventually logged_at_least 12 "exited with status 1"
  stops_with 0
  logged_times 1 "shutting down"
}

@test "from half of the grace period on workers get TERM once a second, and commands no second one" {
  # Two pools side by side: TERM after 1.75 and 2.75 s, and KILL after 3.5 s.
  "$FORKD" -g 3.5 sh -c 'trap "echo term >>terms" TERM; echo ready; while :; do sleep 0.05; done' >>ready 2>>commands.log 3>&- &
  commands=$!
  run_forkd -g 3.5 "$W:counts_terms"
  eventually printed counting
  eventually test -s ready
  kill -TERM "$commands"
  stops_with 3
  [ "$(grep -c term out)" -eq 2 ]
  eventually gone_or_zombie "$commands"
  [ "$(grep -c term terms)" -eq 1 ]
}

@test "a worker that is no longer wanted is asked to end once, and a command again by a shutdown" {
  cat >job.sh <<'END'
trap 'echo "term $FORKD_WORKER" >>terms; [ "$FORKD_WORKER" != 0 ] || exit 0' TERM
echo ready >>ready
while [ ! -e over ]; do sleep 0.02; done
END
  for job in "sh job.sh" "$W:first_yields $PWD/over"; do
    rm -f over ready log out
    run_forkd -l debug -n 2 -g 1000 $job
    eventually are_ready
    # Worker 1 goes on with its task, whatever it is told.
    signal USR2
    eventually logged_times 1 "the target is now 1"
    signal USR1
    eventually logged_times 1 "the target is now 2"
    signal USR2
    eventually logged_times 2 "the target is now 1"
    logged_times 1 "debug: worker 1 (pid [0-9]*) is asked to end"
    signal TERM
    eventually logged "shutting down"
    touch over
    ends_with 0
    case $job in
      sh*) logged_times 2 "worker 1 (pid [0-9]*) is asked to end" ;;
      *) logged_times 1 "worker 1 (pid [0-9]*) is asked to end" ;;
    esac
  done
}
are_ready() { [ "$(cat ready out 2>/dev/null | grep -c ready)" -eq 2 ]; }

@test "USR1, USR2 and HUP during a shutdown are ignored" {
  run_forkd -g 0.5 -n 2 "$W:hangs"
  eventually printed_times 2 hangs
  signal TERM
  eventually logged "shutting down"
  signal USR1
  signal USR2
  signal HUP
  ends_with 3
  logged_times 0 "target"
  logged_times 0 "reload"
  logged_times 2 "started"
}

@test "of signals that are taken together only the one that ends the pool acts" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  kill -STOP "$master"
  eventually is_state "$master" T
  for name in HUP USR2 USR1 TERM; do signal $name; done
  kill -CONT "$master"
  ends_with 0
  logged_times 2 "started"
  logged_times 0 "target\|reload"
}

@test "USR1 acts before USR2, and that before HUP, when they are taken together" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  kill -STOP "$master"
  eventually is_state "$master" T
  for name in HUP USR2 USR1; do signal $name; done
  kill -CONT "$master"
  eventually logged "reload complete"
  [ "$(sed -n 's/.*: \(the target is now .\)/\1/p; s/.*\(trying\).*/\1/p' log | tr '\n' ' ')" = \
    "the target is now 3 the target is now 2 trying " ]
}

@test "a worker that ended by the very signal that shuts the pool down has not failed" {
  run_forkd -n 2 sleep 1000
  eventually both_sleep
  pids=$(living "$master")
  kill -STOP "$master"
  eventually is_state "$master" T
  kill -TERM "$master" $pids
  for pid in $pids; do eventually is_state "$pid" Z; done
  kill -CONT "$master"
  ends_with 0
  logged_times 2 "info: worker [01] (pid [0-9]*) was ended by signal 15"
  logged_times 2 started
}
both_sleep() { [ "$(ps -A -o ppid= -o comm= | awk -v p="$master" '$1 == p && $2 == "sleep"' | wc -l)" -eq 2 ]; }

@test "TERM while a thousand workers start does not wait for the last of them" {
  # The first one sends it.
  run_forkd -n 1024 sh -c '[ "$FORKD_WORKER" != 0 ] || kill -TERM "$PPID"; exec sleep 1000'
  ends_with 0
  started=$(grep -c 'started$' log)
  echo "$started started"
  [ "$started" -lt 1024 ]
}

@test "a worker that is aborted during the shutdown makes the status 3" {
  run_forkd -t 1 -g 1000 -n 2 "$W:second_hangs"
  eventually printed "^hangs$"
  signal TERM
  ends_with 3
  logged "info: worker 1 (pid [0-9]*) was ended by signal 6"
}

@test "with -g 0 workers are never killed, but woken up" {
  command -v strace >/dev/null || skip "no strace"
  strace -e trace=kill -o trace "$FORKD" -g 0 "$W:blocked" >>out 2>>log 3>&- &
  background=$!
  eventually printed blocked
  kill -TERM "$(children "$background")"
  wait "$background"
  grep -q 'kill([0-9]*, SIGTERM)' trace
  never grep -q SIGKILL trace
}

@test "when the master dies by SIGKILL workers that yield end" {
  run_forkd -n 3 "$W:steady"
  eventually has_workers 3
  pids=$(living "$master")
  signal KILL
  for pid in $pids; do eventually gone_or_zombie "$pid"; done
}

@test "when the master dies by SIGKILL blocked workers end, too" {
  needs_linux "the kernel tells workers that the master has died"
  run_forkd -n 3 "$W:blocked"
  eventually has_workers 3
  pids=$(living "$master")
  signal KILL
  for pid in $pids; do eventually gone_or_zombie "$pid"; done
}

@test "the terminal's interrupt, which all processes get, is an orderly shutdown" {
  command -v setsid >/dev/null || skip "no setsid"
  setsid "$FORKD" -n 2 "$W:tasks" tally >>out 2>>log 3>&- &
  master=$!
  eventually has_workers 2
  kill -INT -- "-$master"
  ends_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
}

@test "a worker that cannot be killed is said to be so, and not waited for: status 3" {
  command -v strace >/dev/null || skip "no strace"
  strace -o trace -e trace=kill -e inject=kill:error=EPERM "$FORKD" -g 0.3 sleep 777 >>out 2>>log 3>&- &
  tracer=$!
  eventually logged started
  master=$(living "$tracer")
  kill -TERM "$master"
  status=0
  eventually gone_or_zombie "$tracer"
  wait "$tracer" || status=$?
  [ "$status" -eq 3 ]
  logged "error: worker 0 (pid [0-9]*) has not ended and cannot be killed: Operation not permitted"
  kill -KILL "$(pid_of 0)" || : # it may have ended with its master
}

@test "a second signal is one that came 0.1 s after the first, whenever it is looked at" {
  not_emulated "the kernel runs no foreign program"
  "$BIN/second"
}
