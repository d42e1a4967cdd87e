#!/usr/bin/env bats
# Shutdown: the request, the nudge, the kill, and the death of the master itself.

load helper
load virtual

# shut_down_at_0 WORD STATUS ARGUMENT ...: in virtual time, TERM comes as soon as the worker has said WORD, and
# no time has passed.
shut_down_at_0() {
  echo 0 >time
  run_virtual "${@:3}"
  eventually printed "$1"
  signal TERM
  eventually logged "shutting down"
  rm time
  ends_with "$2"
}

@test "a task that is under way at shutdown is finished, and the master ends as soon as the last worker has" {
  run_forkd -g 1000 -n 3 "$W:tasks" tally
  eventually test -s tally
  stops_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
  logged_times 1 "shutting down"
  # Of the requests only -l debug tells.
  logged_times 0 "asked to end"
}

@test "from half of the grace period on workers get TERM and CONT once a second, commands do not, and all KILL at its end" {
  needs_virtual_time
  shut_down_at_0 hangs 3 -g 7 "$W:hangs"
  [ "$(times 'kill 15' | tr '\n' ' ')" = "3500 4500 5500 6500 " ]
  [ "$(times 'kill 18' | tr '\n' ' ')" = "3500 4500 5500 6500 " ]
  [ "$(times 'kill 9')" = 7000 ]
  logged "warning: worker 0 (pid [0-9]*) has not ended and is killed$"

  anew
  shut_down_at_0 ready 3 -g 7 sh -c 'trap "echo term" TERM; echo ready; while :; do sleep 0.05; done'
  [ "$(times 'kill 15' | head -n 1)" = 0 ]
  # The leader and its group.
  [ "$(times 'kill 9' | head -n 2 | tr '\n' ' ')" = "7000 7000 " ]
  [ "$(times 'kill 15' | awk '$1 > 0 && $1 < 7000' | wc -l)" -eq 0 ]
}

@test "with -g 0 workers are never killed, but woken up from four seconds on" {
  needs_virtual_time
  echo 0 >time
  run_virtual -g 0 "$W:hangs"
  eventually printed hangs
  signal TERM
  eventually logged "shutting down"
  time_until 20000
  [ "$(times 'kill 15' | tr '\n' ' ')" = "$(seq 4000 1000 20000 | tr '\n' ' ')" ]
  [ -z "$(times 'kill 9')" ]

  # One that is blocked in a system call ends then, and so does one that is stopped.
  for worker in blocked steady; do
    anew
    run_virtual -g 0 "$W:$worker"
    if [ $worker = blocked ]; then
      eventually printed blocked
    else
      pid=$(pid_of 0)
      kill -STOP "$pid"
      eventually is_state "$pid" T
    fi
    stops_with 0
    logged "info: worker 0 (pid [0-9]*) exited with status 0"
  done
}

@test "a worker that does not yield is killed at the end of the grace period, and no other one: status 3" {
  needs_virtual_time
  echo 0 >time
  run_virtual -g 1.5 -n 2 "$W:first_hangs"
  eventually printed hangs
  eventually logged "worker 1 (pid [0-9]*) started"
  signal TERM
  eventually logged "info: worker 1 (pid [0-9]*) exited with status 0"
  rm time
  ends_with 3
  logged_times 1 "warning: worker 0 (pid [0-9]*) has not ended and is killed$"
}

@test "a second INT, QUIT or TERM kills what is left; one within 0.1 s is an echo, and other signals mean nothing" {
  needs_virtual_time
  for name in INT QUIT TERM; do
    anew
    echo 0 >time
    run_virtual -g 1000 -n 2 "$W:hangs"
    eventually printed_times 2 hangs
    # A signal that has come when time has gone on has been taken.
    signal $name
    signal TERM
    eventually logged "shutting down"
    for other in USR1 USR2 HUP; do signal $other; done
    time_until 98
    signal TERM
    time_until 102
    [ -z "$(times 'kill 9')" ]
    signal $name
    ends_with 3
    logged_times 2 "is killed"
    logged_times 1 "shutting down"
    logged_times 0 "target\|reload"
    logged_times 2 "started"
  done
}

@test "TERM while workers wait in backoff ends the master at once" {
  needs_virtual_time
  echo 1400 >time
  run_virtual -w 0 -n 3 "$W:returns" 1
  eventually logged_times 12 "exited with status 1"
  eventually printed "^time 1400 stands$"
  # No time passes.
  stops_with 0
  logged_times 12 started
}

@test "a worker that is no longer wanted is asked to end once, and a command again by a shutdown" {
  cat >job.sh <<'END'
trap 'echo "term $FORKD_WORKER" >>terms; [ "$FORKD_WORKER" != 0 ] || exit 0' TERM
echo ready
while [ ! -e over ]; do sleep 0.02; done
END
  for job in "sh job.sh" "$W:first_yields $PWD/over"; do
    rm -f over log out
    run_forkd -l debug -n 2 -g 1000 $job
    eventually printed_times 2 ready
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

@test "a worker that ended by the very signal that shuts the pool down has not failed" {
  run_forkd -n 2 sh -c 'echo up; exec sleep 1000'
  eventually printed_times 2 up
  pids=$(living "$master")
  kill -STOP "$master"
  eventually is_state "$master" T
  kill -TERM "$master" $pids
  for pid in $pids; do eventually gone_or_zombie "$pid"; done
  kill -CONT "$master"
  ends_with 0
  logged_times 2 "info: worker [01] (pid [0-9]*) was ended by signal 15"
  logged_times 2 started
}

@test "TERM while a thousand workers start does not wait for the last of them" {
  # The first one sends it.
  run_forkd -n 1024 sh -c '[ "$FORKD_WORKER" != 0 ] || kill -TERM "$PPID"; exec sleep 1000'
  ends_with 0
  never starts_of 1023 1
}

@test "when the master dies by SIGKILL workers finish their task and end, blocked ones too" {
  mkdir blocked
  run_forkd -n 2 "$W:tasks" tally
  eventually test -s tally
  eventually has_workers 2
  pids=$(living "$master")
  signal KILL
  for pid in $pids; do eventually gone_or_zombie "$pid"; done
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
  case $(uname)$CPPFLAGS in Linux*-DFORKD_PORTABLE* | [!L]*) return 0 ;; esac # there the kernel does not tell
  cd blocked
  run_forkd -n 2 "$W:blocked"
  eventually printed_times 2 blocked
  pids=$(living "$master")
  for pid in $pids; do eventually is_state "$pid" S; done
  signal KILL
  for pid in $pids; do eventually gone_or_zombie "$pid"; done
}

@test "the terminal's interrupt, which all processes get, is an orderly shutdown" {
  command -v setsid >/dev/null || skip "no setsid"
  setsid "$FORKD" -n 2 "$W:tasks" tally >>out 2>>log 3>&- &
  master=$!
  eventually has_workers 2
  eventually test -s tally
  kill -INT -- "-$master"
  ends_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
}

@test "a worker that cannot be killed is said to be so, with the reason, and not waited for: status 3" {
  needs_virtual_time
  touch no_kill
  shut_down_at_0 ready 3 -g 0.3 sh -c 'trap "" TERM; echo ready; while :; do sleep 0.05; done'
  [ "$(times 'kill 9' | tr '\n' ' ')" = "300 300 " ]
  logged "error: worker 0 (pid [0-9]*) has not ended and cannot be killed: Operation not permitted"
  kill -KILL "$(pid_of 0)"
}

@test "time for which the pool is frozen brings the end of the grace period no nearer" {
  needs_virtual_time
  echo 9000 >freeze
  shut_down_at_0 hangs 3 "$W:hangs"
  [ "$(times 'kill 9')" = 17000 ]
}

@test "in a shutdown the master waits for a second at most: a longer wait would hide a freeze" {
  command -v strace >/dev/null || skip "no strace"
  strace -o trace -e trace=poll,ppoll,restart_syscall "$FORKD" -g 1000 sh -c 'trap "" TERM; echo ready; while :; do sleep 0.05; done' >>out 2>>log 3>&- &
  tracer=$!
  eventually printed ready
  kill -TERM "$(living "$tracer")"
  eventually found '\(, \(1000\|9[0-9][0-9]\)\|tv_nsec=9[0-9]*}, NULL, 8\|tv_sec=1, tv_nsec=0}, NULL, [08]\)) *= 0 (Timeout)' trace
  eventually found '= 0 (Timeout)' trace
  kill -KILL $(tree "$tracer")
  wait "$tracer" 2>/dev/null || :
}

@test "a crash at the end is a warning, also when the worker was asked to end; a request that ends it is not" {
  run_forkd -n 3 "$W:crashes_at_end"
  eventually printed_times 3 up
  signal USR2
  eventually logged "warning: worker 2 (pid [0-9]*) was ended by signal 13"
  signal USR2
  eventually logged "warning: worker 1 (pid [0-9]*) was ended by signal 11"
  stops_with 0
  logged "info: worker 0 (pid [0-9]*) was ended by signal 15"
}

@test "a command that ends itself by HUP, INT or QUIT when it gets TERM has not crashed" {
  for name in HUP INT QUIT; do
    rm -f log out
    # (A shell ignores some in what it starts in the background.)
    run_forkd "$BIN/default_signals" sh -c "trap 'trap - $name; kill -s $name \$\$' TERM; echo ready; while :; do sleep 0.02; done"
    eventually printed ready
    stops_with 0
    logged "info: worker 0 (pid [0-9]*) was ended by signal $(kill -l $name) "
  done
}
