#!/usr/bin/env bats
# Workers that end: when they are replaced, and when the master gives up.

load helper
load virtual

@test "workers that are killed are replaced: one, all at the same moment, and one after the other" {
  run_forkd -n 20 "$W:steady"
  eventually has_workers 20
  old=$(pid_of 1)
  kill -KILL "$old"
  eventually is_replaced 1 "$old"
  logged "warning: worker 1 (pid $old) was ended by signal 9 (Killed) after [0-9]*\.[0-9][0-9][0-9] s$"
  eventually has_workers 20
  kill -STOP "$master"
  eventually is_state "$master" T
  kill -KILL $(children "$master")
  kill -CONT "$master"
  eventually logged_times 21 "ended by signal 9"
  eventually logged_times 41 "started$"
  for pid in $(living "$master"); do kill -KILL "$pid"; done
  eventually logged_times 61 "started$"
  eventually has_workers 20
  [ "$(children "$master" | wc -l)" -eq 20 ]
}

@test "a worker that returns 0 is replaced at once, but no number starts more than ten times a second" {
  needs_virtual_time
  run_virtual "$W:returns" 0
  eventually starts_of 0 12
  [ "$(times fork | head -n 12 | tr '\n' ' ')" = "0 100 200 300 400 500 600 700 800 900 1000 1100 " ]
  logged_times 0 warning
}

@test "failures in a row are delayed by 0.1 s, doubling up to 10 s, however many there are" {
  needs_virtual_time
  # The first process ends with 0: so the master does not give up.
  run_virtual sh -c '[ ! -e ran ] || exit 3; >ran'
  eventually starts_of 0 260
  times fork | awk '
    NR > 1 { want = NR > 9 ? 10000 : NR > 2 ? 100 * 2 ^ (NR - 3) : 100; if ($1 - last != want) { print NR, $1 - last, want; bad = 1 } }
    { last = $1 }
    END { exit bad || NR < 260 }'
  # And these are warnings, which have to do with no reload.
  logged "warning: worker 0 (pid [0-9]*) exited with status 3"
  logged_times 0 "reload\|error\|critical"
}

@test "a worker that fails when it was asked to end has not failed" {
  needs_virtual_time
  echo 0 >time
  run_virtual "$W:fails_when_asked"
  for round in 1 2 3 4 5 6; do
    eventually starts_of 0 $round
    eventually printed_times $round waiting
    kill -HUP "$(pid_of 0)"
    eventually logged_times $round "info: worker 0 (pid [0-9]*) exited with status 1"
    time_until ${round}00
  done
  eventually starts_of 0 7
}

@test "a worker has not failed when it was healthy and lived for a second, and has when either is not so" {
  needs_virtual_time
  echo 0 >time
  # Worker 1, which fails again and again, makes time pass.
  run_virtual -w 0 -n 2 "$W:fails_when" "$PWD/fail" 0
  time_until 999
  touch fail
  eventually logged "warning: worker 0 (pid [0-9]*) exited with status 1 after 0\.999 s"
  time_until 1098
  logged_times 1 "worker 0 .*started"
  rm fail
  time_until 1099
  eventually starts_of 0 2
  time_until 2099
  touch fail
  # Whatever went before, it is replaced at once: no time passes.
  eventually logged "warning: worker 0 (pid [0-9]*) exited with status 1 after 1\.000 s"
  eventually starts_of 0 3
  eventually logged "worker 0 (pid [0-9]*) exited with status 1 after 0\.000 s"
  # And the delays begin anew.
  time_until 2199
  eventually starts_of 0 4

  anew
  rm fail
  echo 0 >time
  run_virtual -w 1000 -n 3 "$W:fails_when" "$PWD/fail" 1
  # Never healthy, but the pool may still become so: worker 1 has not failed yet.
  time_until 2000
  for number in 0 2; do eventually logged_times 5 "worker $number (pid [0-9]*) exited with status 1"; done
  logged_times 0 critical
  touch fail
  eventually logged "worker 1 (pid [0-9]*) exited with status 1 after 2\.000 s"
  time_until 2099
  logged_times 1 "worker 1 .*started"
  rm time
  ends_with 1
  logged_times 5 "worker 1 .*exited"
  logged "critical: .*giving up"
}

@test "a number that was removed and is added again starts without a backoff, and without its failures" {
  needs_virtual_time
  echo 0 >time
  run_virtual -n 2 "$W:second_crashes_without" "$PWD/exists"
  time_until 1600
  eventually logged_at_least 5 "worker 1 (pid [0-9]*) exited with status 1"
  signal USR2
  eventually logged "the target is now 1"
  signal USR1
  eventually logged_at_least 6 "worker 1 (pid [0-9]*) exited with status 1"
  time_until 1700
  eventually starts_of 1 7
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

@test "fork that fails is logged, tried again later and later, and no failure of a worker" {
  needs_virtual_time
  echo 0 >time
  run_virtual "$W:steady"
  eventually has_workers 1
  touch no_fork
  signal USR1
  eventually logged "error: cannot fork: Resource temporarily unavailable; next try in 0\.100 s"
  signal USR1
  eventually logged "target is now 3"
  # It tries no sooner than it says, whatever wakes it.
  for wake in 1 2 3; do
    signal CHLD
    eventually is_state "$master" S
  done
  time_until 1499
  # The delay is that of the whole pool.
  [ "$(sed -n 's/.*next try in //p' log | tr '\n' ' ')" = "0.100 s 0.200 s 0.400 s 0.800 s " ]
  [ "$(times fork | tr '\n' ' ')" = "0 0 100 300 700 " ]
  has_workers 1
  rm no_fork time
  eventually logged_times 3 "started$"
  eventually has_workers 3
  logged_times 0 "exited\|critical"
  # One that works ends the delays.
  touch no_fork
  signal USR1
  eventually logged_times 2 "next try in 0\.100 s"
}

@test "a pipe that forkd cannot set up as it needs it ends forkd with 1 and the reason" {
  command -v strace >/dev/null || skip "no strace"
  # Three calls look at the standard descriptors. musl calls fcntl(2) once more for each descriptor.
  second=5 said=0
  case $CC in *musl*) second=6 ;; esac
  for call in 4 $second; do
    strace -o trace -e trace=fcntl -e inject=fcntl:error=ENFILE:when=$call \
      "$FORKD" "$W:steady" >>out 2>>log 3>&- &
    master=$!
    ends_with 1
    logged_times $((said += 1)) "critical: cannot make a pipe: "
  done
}

@test "the master gives up with 1 when no worker was ever healthy and each failed five times in a row" {
  needs_virtual_time
  run_virtual "$W:returns" 3
  ends_with 1
  logged_times 1 "critical: .*giving up"
  [ "$(times fork | tr '\n' ' ')" = "0 100 300 700 1500 " ]
  anew
  run_virtual -n 2 "$W:returns" 3
  ends_with 1
  starts_of 0 5
  starts_of 1 5
}

@test "the master does not give up once a worker was healthy, although all fail before they are from then on" {
  needs_virtual_time
  touch exists
  run_virtual sh -c '[ -e exists ]'
  eventually logged "exited with status 0"
  rm exists
  eventually logged_at_least 6 "exited with status 1"
  kill -0 "$master"
  logged_times 0 critical
}

@test "a worker that cannot start does not end a pool in which another one is healthy" {
  printf '#!/bin/sh\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -w 0 -s state ./job
  eventually await line state 1 - "^healthy=1"
  mv job hidden
  signal USR1
  eventually logged "error: worker 1 (pid [0-9]*) could not start: cannot execute './job'"
  mv hidden job
  eventually has_workers 2
  logged_times 0 critical
}
