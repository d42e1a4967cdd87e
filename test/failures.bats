#!/usr/bin/env bats
# Workers that end: replaced at once, later, or never.

load helper

@test "a worker that is killed is replaced" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  old=$(pid_of 1)
  kill -KILL "$old"
  eventually is_replaced 1 "$old"
  logged "worker 1 (pid $old) was ended by signal 9 (Killed) after 0\.[0-9]* s"
  has_workers 2
}

@test "a worker that returns 0 is replaced at once, but no number starts more than ten times a second" {
  run_forkd "$W:returns" 0
  eventually starts_of 0 12
  # 12 starts are 11 pauses of a tenth of a second: the 12th cannot have come before 1.1 s.
  lived=$(ps -o etimes= -p "$master")
  [ "$lived" -ge 1 ]
  logged_times 0 warning
}

@test "failures in the first second are delayed by 0.1 s, doubling" {
  command -v strace >/dev/null || skip "no strace"
  strace -f -ttt -e trace=clone,clone3,fork,vfork -e signal=none -o trace "$FORKD" "$W:returns" 1 healthy >>out 2>>log 3>&- &
  background=$!
  eventually starts_of 0 6
  kill -TERM "$(children "$background")"
  wait "$background" || :
  # The gaps between the forks of the master: 0.1, 0.2, 0.4, 0.8, 1.6 s.
  awk '/= [0-9]+$/ && /clone|fork/ { print $2 }' trace | awk '
    NR > 1 { gap = $1 - last; want = 0.1 * 2 ^ (NR - 2); print gap, want; if (gap < want - 0.005) bad = 1 }
    { last = $1 }
    END { exit bad || NR < 6 }'
}

@test "the master gives up with 1 when no worker was ever healthy and each failed five times in a row" {
  run_forkd -n 2 "$W:returns" 3
  ends_with 1
  logged "critical: .*giving up"
  starts_of 0 5
  starts_of 1 5
}

@test "a failure before a worker was healthy counts, however late it comes" {
  run_forkd sh -c 'sleep 1.1; exit 4'
  ends_with 1
  logged_times 5 "exited with status 4 after 1\.[0-9]* s"
  logged "critical: .*giving up"
}

@test "the master does not give up once a worker was healthy" {
  run_forkd "$W:returns" 3 healthy
  eventually starts_of 0 6
  kill -0 "$master"
  logged_times 0 critical
}

@test "a worker that failed and works again later is not punished for ever" {
  run_forkd "$W:crashes_without" exists healthy
  eventually starts_of 0 3
  touch exists
  eventually starts_of 0 4
  eventually has_workers 1
}

@test "the end of every worker is seen when all die at the same moment" {
  run_forkd -n 50 "$W:steady"
  eventually has_workers 50
  kill -STOP "$master"
  eventually is_state "$master" T
  kill -KILL $(children "$master")
  kill -CONT "$master"
  eventually logged_times 50 "ended by signal 9"
  eventually logged_times 100 "started"
  eventually has_workers 50
}

@test "workers killed one after the other leave the pool at exactly its target" {
  run_forkd -n 20 "$W:steady"
  eventually has_workers 20
  for round in 1 2 3; do
    for pid in $(living "$master"); do kill -KILL "$pid"; done
    eventually logged_times $((20 * (round + 1))) "started$"
  done
  eventually has_workers 20
  [ "$(children "$master" | wc -l)" -eq 20 ]
}

@test "a pipe that forkd cannot set up as it needs it ends forkd with 1 and the reason" {
  command -v strace >/dev/null || skip "no strace"
  for call in 1 2; do
    status=0
    timeout 20 strace -o trace -e trace=fcntl -e inject=fcntl:error=ENFILE:when=$call \
      "$FORKD" "$W:steady" >>out 2>>log || status=$?
    [ "$status" -eq 1 ]
    logged_times $call "critical: cannot make a pipe: "
  done
}

@test "fork that fails is logged, delayed, and no failure of a worker" {
  command -v strace >/dev/null || skip "no strace"
  # Every fork but the first fails, until strace lets go of the master.
  strace -e trace=clone,clone3,fork -e inject=clone,clone3,fork:error=EAGAIN:when=2+ -o trace \
    "$FORKD" -n 3 "$W:steady" >>out 2>>log 3>&- &
  background=$!
  eventually logged "error: cannot fork: Resource temporarily unavailable; next try in 0.200 s"
  master=$(children "$background")
  has_workers 1
  kill -INT "$background" 2>/dev/null
  kill -KILL "$background"
  eventually has_workers 3
  eventually logged_times 3 started
  signal TERM
  eventually gone_or_zombie "$master"
}
