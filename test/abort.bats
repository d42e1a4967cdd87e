#!/usr/bin/env bats
# Workers that hang, and take no notice of SIGABRT.

load helper

@test "a worker that takes no notice of SIGABRT is killed eight seconds later" {
  run_forkd -t 0.2 "$W:ignores_abort"
  eventually logged "is aborted"
  start=$SECONDS
  eventually logged "worker 0 (pid [0-9]*) was ended by signal 9"
  [ $((SECONDS - start)) -ge 7 ]
  eventually logged_times 2 started
}

@test "time for which the master is stopped does not bring the SIGKILL after SIGABRT nearer" {
  run_forkd -t 0.2 "$W:ignores_abort"
  eventually logged "is aborted"
  start=$SECONDS
  kill -STOP "$master"
  eventually is_state "$master" T
  background sleep 3
  wait "$background"
  kill -CONT "$master"
  eventually logged "worker 0 (pid [0-9]*) was ended by signal 9"
  [ $((SECONDS - start)) -ge 10 ]
}

@test "a worker that goes on although it was aborted is asked to end like any other" {
  run_forkd -t 0.5 -w 0.5 -g 40 "$W:survives_abort"
  eventually logged "is aborted"
  start=$SECONDS
  stops_with 0
  # And not by the SIGKILL eight seconds later, nor by the SIGTERM after half of the grace period.
  [ $((SECONDS - start)) -lt 8 ]
  printed survived
}

@test "a worker that was aborted before a shutdown, and takes no notice, makes the status 3" {
  run_forkd -t 0.2 -g 1 "$W:ignores_abort"
  eventually logged "is aborted"
  stops_with 3
}

@test "a worker that is removed by USR2 when it was aborted is not replaced" {
  run_forkd -t 0.2 -n 2 "$W:second_ignores_abort"
  eventually logged "worker 1 .*is aborted"
  signal USR2
  eventually logged "the target is now 1"
  eventually logged "worker 1 (pid [0-9]*) was ended by signal 9"
  has_workers 1
  logged_times 2 started
}
