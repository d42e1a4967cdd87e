#!/usr/bin/env bats
# Workers that end: replaced at once, or later.

load helper

@test "a worker that is killed is replaced" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  old=$(pid_of 1)
  kill -KILL "$old"
  eventually is_replaced 1 "$old"
  logged "warning: worker 1 (pid $old) was ended by signal 9 (Killed) after [0-9]*\.[0-9][0-9][0-9] s$"
  has_workers 2
}

@test "a worker that returns 0 is replaced at once, but no number starts more than ten times a second" {
  run_forkd "$W:returns" 0
  eventually starts_of 0 12
  # 12 starts are 11 pauses of a tenth of a second: the 12th cannot have come before 1.1 s.
  lived "$master" 1
  logged_times 0 warning
}

@test "failures in the first second are delayed by 0.1 s, doubling" {
  command -v strace >/dev/null || skip "no strace"
  strace -f -ttt -e trace=clone,clone3,fork,vfork -e signal=none -o trace "$FORKD" "$W:returns" 1 healthy >>out 2>>log 3>&- &
  background=$!
  eventually starts_of 0 6
  kill -TERM "$(children "$background")"
  wait "$background" || :
  # The gaps between the forks of the master: 0.1, 0.2, 0.4, 0.8, 1.6 s. (strace may note a time late.)
  awk '/= [0-9]+$/ && /clone|fork/ { print $2 }' trace | awk '
    NR > 1 { gap = $1 - last; want = 0.1 * 2 ^ (NR - 2); print gap, want; if (gap < want / 2) bad = 1 }
    { last = $1 }
    END { exit bad || NR < 6 }'
}

@test "a worker that fails when it was asked to end has not failed" {
  run_forkd -w 1000 "$W:fails_when_asked"
  for round in 1 2 3 4 5 6; do
    eventually printed_times $round waiting
    kill -HUP "$(pid_of 0)"
  done
  eventually printed_times 7 waiting
  logged_times 6 "info: worker 0 (pid [0-9]*) exited with status 1"
}

@test "a worker that was healthy and lived for a second is replaced at once, whatever went before" {
  run_forkd "$W:fails_late"
  eventually printed_times 5 fails
  touch late
  eventually one_has_lived
  # Without the second of life 1.6 s would have been due, or more.
  awk '
    /starts/ { if (lived >= 1000) { print $2 - end, "ms"; exit $2 - end >= 1500 } began = $2 }
    /fails/ { end = $2; lived = end - began }' out
}
one_has_lived() {
  awk '/starts/ { if (lived >= 1000) found = 1; began = $2 } /fails/ { lived = $2 - began } END { exit !found }' out
}

@test "a number that was removed and is added again starts without a backoff" {
  run_forkd -n 2 "$W:second_crashes_without" "$PWD/exists"
  eventually logged_at_least 5 "worker 1 (pid [0-9]*) exited with status 1"
  signal USR2
  eventually logged "the target is now 1"
  starts=$(grep -c "worker 1 .*started" log)
  began=$SECONDS
  signal USR1
  # Four starts take 0.1 + 0.2 + 0.4 s. The backoff of 1.6 s, now 3.2 s, 6.4 s, is forgotten.
  eventually starts_of 1 $((starts + 4))
  [ $((SECONDS - began)) -lt 6 ]
}

@test "the end of a worker says whether a core was dumped" {
  case $(bash -c 'ulimit -c unlimited; sh -c "kill -SEGV \$\$"; :' 2>&1) in
    *dumped*) ;;
    *) skip "no core files here" ;;
  esac
  run_forkd sh -c 'ulimit -c unlimited || echo refused; kill -SEGV $$'
  eventually logged "ended by signal 11"
  never printed refused || skip "forkd was built so that there are none"
  logged "was ended by signal 11 ([^)]*), core dumped, after [0-9.]* s$"
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
  # musl calls fcntl(2) once more for each descriptor.
  second=2 said=0
  case $CC in *musl*) second=3 ;; esac
  for call in 1 $second; do
    status=0
    timeout 20 strace -o trace -e trace=fcntl -e inject=fcntl:error=ENFILE:when=$call \
      "$FORKD" "$W:steady" >>out 2>>log || status=$?
    [ "$status" -eq 1 ]
    logged_times $((said += 1)) "critical: cannot make a pipe: "
  done
}

@test "fork that fails is logged, delayed, and no failure of a worker" {
  command -v strace >/dev/null || skip "no strace"
  # Every fork but the first fails, until strace lets go of the master.
  strace -ttt -e trace=clone,clone3,fork,poll,ppoll -e inject=clone,clone3,fork:error=EAGAIN:when=2+ -o trace \
    "$FORKD" -n 3 "$W:steady" >>out 2>>log 3>&- &
  background=$!
  eventually logged "error: cannot fork: Resource temporarily unavailable; next try in 0.400 s"
  master=$(children "$background")
  has_workers 1
  eventually woken_until_it_tried_again
  [ "$(sed -n 's/.*next try in //p' log | head -n 3 | tr '\n' ' ')" = "0.100 s 0.200 s 0.400 s " ]
  # It tries no sooner than it says, whatever wakes it, and sleeps meanwhile.
  awk '/EAGAIN/ { print $1 }' trace | awk '
    NR > 1 { gap = $1 - last; want = 0.1 * 2 ^ (NR - 2); print gap, want; if (gap < want / 2) bad = 1 }
    { last = $1 }
    END { exit bad || NR < 3 }'
  [ "$(grep -c poll trace)" -lt 100 ]
  kill -INT "$background" 2>/dev/null
  kill -KILL "$background"
  eventually has_workers 3
  eventually logged_times 3 started
  signal TERM
  eventually gone_or_zombie "$master"
}

woken_until_it_tried_again() {
  signal CHLD
  logged "next try in 0.800 s"
}

@test "a fork that works ends the backoff of those that failed" {
  command -v strace >/dev/null || skip "no strace"
  # Every second one fails.
  strace -e trace=clone,clone3,fork -e inject=clone,clone3,fork:error=EAGAIN:when=2+2 -o trace \
    "$FORKD" -n 4 "$W:steady" >>out 2>>log 3>&- &
  background=$!
  eventually logged_times 4 "started$"
  master=$(children "$background")
  logged_times 3 "cannot fork: .*; next try in 0.100 s"
  signal TERM
  eventually gone_or_zombie "$master"
}
