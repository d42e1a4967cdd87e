#!/usr/bin/env bats
# -t: workers that hang are aborted, and killed when that does not help.

load helper
load virtual

@test "a worker that hangs is aborted and replaced; one that yields is not, nor any when the whole pool was stopped" {
  mkdir stopped
  run_forkd -t 2 -n 2 "$W:first_hangs"
  hanging=$master
  cd stopped
  run_forkd -t 2 -n 3 "$W:steady"
  eventually has_workers 3
  before=$(living "$master" | sort)
  kill -STOP "$master" $before
  eventually is_state "$master" T
  cd ..
  eventually logged "worker 0 (pid [0-9]*) has not yielded for 2\.000 s and is aborted"
  old=$(first_pid_of 0)
  eventually logged "worker 0 (pid $old) was ended by signal 6"
  eventually is_replaced 0 "$old"
  never logged "worker 1 .*is aborted"
  await kill "$hanging"
  cd stopped
  # It has been stopped for longer than the timeout. First the master goes on, as an unlucky scheduler
  # would have it, and looks twice.
  kill -CONT "$master"
  pause 1.1
  kill -CONT $before
  pause 1.1
  never logged 'is aborted'
  [ "$before" = "$(living "$master" | sort)" ]
}

@test "nothing that comes meanwhile puts off the end of a worker that hangs: SIGCONT, workers that come and go" {
  mkdir continued
  run_forkd -t 0.3 -w 0.3 -n 20 -l warning "$W:first_hangs_others_end"
  cd continued
  run_forkd -t 0.5 "$W:hangs"
  old=$(pid_of 0)
  eventually continued_and_aborted "$old"
  cd ..
  eventually logged "worker 0 (pid [0-9]*) has not yielded for 0\.300 s and is aborted"
}
continued_and_aborted() {
  kill -CONT "$master"
  logged "worker 0 (pid $1) was ended by signal 6"
}

@test "a worker has the timeout for a yield, for its first one the warm-up where that is longer, and half as long again" {
  needs_virtual_time
  while read -r options worker limit; do
    echo "$options $worker"
    anew
    run_virtual ${options//,/ } "$BIN/$worker"
    eventually logged "error: worker 0 (pid [0-9]*) has not yielded for ${limit%???}\.${limit: -3} s and is aborted"
    [ "$limit" = 0200 ] || between "$limit" $((limit * 3 / 2)) "$(times 'kill 6' | head -n 1)"
  done <<'END'
-t,0.2,-w,3 workers.so:never_yields 3000
-t,0.2,-w,3 ctor_hang.so:steady 3000
-t,3,-w,0.1 workers.so:never_yields 3000
-t,0.2,-w,1000 workers.so:hangs 0200
END
}

@test "a pool that is frozen again and again loses nobody who yields within the timeout" {
  needs_virtual_time
  echo 0 >time
  run_virtual -t 1 "$W:says_yields"
  eventually printed "^time 0 stands$"
  for round in 1 2 3 4 5; do
    # It has yielded since the master looked last.
    : >yielded
    eventually test -s yielded
    echo 5000 >freeze
    # Three looks, a quarter of the timeout apart, and one for the freeze.
    echo $((round * 5750)) >next_time
    mv next_time time
    eventually is_frozen
    eventually stands_after $((round * 5750))
  done
  logged_times 0 'is aborted'
}
is_frozen() { [ ! -e freeze ]; }
stands_after() { [ "$(sed -n 's/^time \([0-9]*\) stands$/\1/p' out | tail -n 1)" -ge "$1" ]; }

@test "a worker that never yields in time is never healthy: the master gives up" {
  needs_virtual_time
  run_virtual -t 0.2 -w 0.2 "$W:never_yields"
  ends_with 1
  logged_times 5 "is aborted"
  logged "giving up"
}

@test "a worker that was asked to end, and hangs, is aborted, too, and makes the status of a shutdown 3" {
  needs_virtual_time
  echo 0 >time
  run_virtual -t 1 -g 1000 -n 2 "$W:hangs"
  eventually printed_times 2 "^hangs$"
  signal USR2
  eventually logged "the target is now 1"
  time_until 600
  [ -z "$(times 'kill 6')" ]
  time_until 2000
  eventually logged "worker 1 (pid [0-9]*) has not yielded for 1\.000 s and is aborted"
  # No warning, since it was to end.
  eventually logged "info: worker 1 (pid [0-9]*) was ended by signal 6"
  eventually logged "warning: worker 0 (pid [0-9]*) was ended by signal 6"
  eventually printed_times 3 "^hangs$"
  logged_times 1 "worker 1 .*started"
  signal TERM
  eventually logged "shutting down"
  rm time
  ends_with 3
  logged "info: worker 0 (pid [0-9]*) was ended by signal 6"
}

@test "a worker that takes no notice of SIGABRT is killed the grace period later, with -g 0 eight seconds" {
  needs_virtual_time
  for grace in 3 8 0; do
    anew
    run_virtual -t 0.2 -g $grace "$W:ignores_abort"
    eventually logged "warning: worker 0 (pid $(pid_of 0)) was ended by signal 9"
    aborted=$(times 'kill 6' | head -n 1)
    [ $grace -gt 0 ] || grace=8
    between $((aborted + grace * 1000)) $((aborted + grace * 1000 + 100)) "$(times 'kill 9' | head -n 1)"
    eventually starts_of 0 2
  done
}

@test "time for which the pool is frozen does not bring the SIGKILL after SIGABRT nearer" {
  needs_virtual_time
  echo 1000 >time
  run_virtual -t 0.2 "$W:ignores_abort"
  eventually logged "is aborted"
  eventually printed "^time 1000 stands$"
  echo 3000 >freeze
  rm time
  eventually printed "^time [0-9]* kill 9$"
  between $(($(times 'kill 6' | head -n 1) + 10000)) 20000 "$(times 'kill 9' | head -n 1)"
}

@test "a worker that is removed when it was aborted, or asked to end, goes on if it can, and is not replaced" {
  needs_virtual_time
  echo 2000 >time
  run_virtual -t 0.5 -w 0.5 -g 40 -n 2 "$W:survives_abort" "$PWD/over"
  eventually logged_times 2 "is aborted"
  signal USR2
  eventually logged "the target is now 1"
  signal TERM
  eventually logged "shutting down"
  # No time passes any more, so neither SIGTERM nor SIGKILL has a part in that.
  touch over
  ends_with 0
  printed_times 2 "^survived$"

  anew
  echo 2000 >time
  run_virtual -t 0.5 -w 0.5 -n 2 "$W:ignores_abort"
  eventually logged_times 2 "is aborted"
  signal USR2
  eventually logged "the target is now 1"
  time_until 15000
  eventually starts_of 0 2
  logged "info: worker 1 (pid [0-9]*) was ended by signal 9"
  starts_of 1 1
  logged_times 1 "worker 1 .*started"
}

@test "a worker that was aborted before a shutdown is killed at the end of the grace period at the latest: status 3" {
  needs_virtual_time
  echo 1000 >time
  run_virtual -t 0.2 -g 1 "$W:ignores_abort"
  eventually logged "error: worker 0 (pid [0-9]*) has not yielded for .* and is aborted"
  eventually printed "^time 1000 stands$"
  signal TERM
  eventually logged "shutting down"
  rm time
  ends_with 3
  between 1000 2000 "$(times 'kill 9' | head -n 1)"
}

@test "a worker that was aborted has failed, even if it ends with 0" {
  needs_virtual_time
  run_virtual -t 0.5 -w 0.5 "$W:ends_when_aborted"
  ends_with 1
  logged_times 5 "warning: worker 0 (pid [0-9]*) exited with status 0"
  logged "giving up"
}
