#!/usr/bin/env bats
# -t: workers that hang.

load helper

@test "a worker that does not yield for the timeout is aborted and replaced" {
  run_forkd -t 1 -n 2 "$W:first_hangs"
  eventually logged "worker 0 (pid [0-9]*) has not yielded for 1\.000 s and is aborted"
  old=$(sed -n 's/.*worker 0 (pid \([0-9]*\)) has not yielded.*/\1/p' log | head -n 1)
  eventually logged "worker 0 (pid $old) was ended by signal 6"
  eventually is_replaced 0 "$old"
  never logged "worker 1 .*aborted"
}

@test "start-up before the first yield counts from the start of the worker" {
  run_forkd -t 0.2 -w 0.3 "$BIN/ctor_hang.so:steady"
  eventually logged "has not yielded for 0\.300 s and is aborted"
}

@test "a worker may take the warm-up time for its first yield, and the timeout for each other one" {
  run_forkd -t 0.2 -w 10 "$W:late_once"
  eventually logged "worker 0 (pid [0-9]*) has not yielded for 0\.200 s and is aborted"
  printed "^ready"
}

@test "for its first yield a worker has the timeout where that is longer than the warm-up" {
  touch slow
  run_forkd -t 3 -w 0.1 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually lived "$(pid_of 0)" 2
  rm slow
  eventually lived "$(pid_of 0)" 3
  never logged aborted
}

@test "a worker that never yields in time is never healthy: the master gives up" {
  run_forkd -t 0.2 -w 0.2 "$W:never_yields"
  ends_with 1
  logged_times 5 "is aborted"
}

@test "a pool that is frozen again and again loses nobody whose tasks take less than the timeout" {
  # SIGSTOP for all at once stands for the freezer of a cgroup.
  run_forkd -t 2 -n 2 "$W:long_tasks" 1800
  eventually has_workers 2
  before=$(living "$master" | sort)
  for round in 1 2 3; do
    kill -STOP "$master" $before
    background sleep 1
    wait "$background"
    kill -CONT "$master" $before
    background sleep 2
    wait "$background"
  done
  never logged aborted
  [ "$before" = "$(living "$master" | sort)" ]
}

@test "SIGCONT to the master, however often, does not put off the end of a worker that hangs" {
  run_forkd -t 1 "$W:hangs"
  old=$(pid_of 0)
  eventually continued_and_aborted "$old"
}
continued_and_aborted() {
  kill -CONT "$master"
  logged "worker 0 (pid $1) was ended by signal 6"
}

@test "workers that come and go do not put off the end of one that hangs" {
  run_forkd -t 0.3 -w 0.3 -n 100 -l warning "$W:first_hangs_others_end"
  eventually logged "worker 0 (pid [0-9]*) has not yielded for 0\.300 s and is aborted"
}

@test "a worker that was asked to end, and hangs, is aborted, too" {
  run_forkd -t 1 -n 2 "$W:second_hangs"
  eventually printed "^hangs$"
  signal USR2
  eventually logged "worker 1 (pid [0-9]*) has not yielded for .* and is aborted"
  # No warning, since it was to end.
  eventually logged "info: worker 1 (pid [0-9]*) was ended by signal 6"
  has_workers 1
}

@test "a worker that yields in time is never touched" {
  run_forkd -t 1 -n 1 "$W:steady"
  eventually lived "$master" 3
  stops_with 0
  never logged aborted
}

@test "two hundred workers that yield in time are never touched while the cores are busy" {
  for core in 1 2; do background sh -c 'while :; do :; done'; done
  run_forkd -t 1 -n 200 -l warning "$W:steady"
  eventually has_workers 200
  eventually lived "$master" 3
  never logged aborted
  has_workers 200
}

@test "a pool that was stopped for many timeouts and continued loses nobody" {
  run_forkd -t 0.5 -n 5 "$W:steady"
  eventually has_workers 5
  before=$(living "$master" | sort)
  kill -STOP "$master" $before
  eventually is_state "$master" T
  background sleep 3
  wait "$background"
  # First the master, as an unlucky scheduler would have it.
  kill -CONT "$master"
  kill -CONT $before
  background sleep 1
  wait "$background"
  never logged aborted
  [ "$before" = "$(living "$master" | sort)" ]
}

@test "without -t a worker may hang for ever" {
  run_forkd "$W:hangs"
  eventually logged started
  background sleep 1
  wait "$background"
  logged_times 1 started
}
