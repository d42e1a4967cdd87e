#!/usr/bin/env bats
# When the master gives up, and when it does not.

load helper

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
  logged_times 5 "exited with status 4 after [1-9][0-9]*\.[0-9]* s"
  logged "critical: .*giving up"
}

@test "the master does not give up once a worker was healthy" {
  run_forkd "$W:returns" 3 healthy
  eventually starts_of 0 6
  kill -0 "$master"
  logged_times 0 critical
  # And these are warnings, which have to do with no reload.
  logged "warning: worker 0 (pid [0-9]*) exited with status 3"
  logged_times 0 "reload\|error"
}

@test "the master does not give up once a worker was healthy, although all fail before they are from then on" {
  touch exists
  run_forkd sh -c '[ -e exists ]'
  eventually logged "exited with status 0"
  rm exists
  eventually logged_at_least 6 "exited with status 1"
  kill -0 "$master"
  logged_times 0 critical
}

@test "the master does not give up while another worker may still become healthy" {
  run_forkd -n 2 "$W:second_fails_others_wait"
  eventually starts_of 1 6
  kill -0 "$master"
  logged_times 0 critical
}

@test "a worker that cannot start does not end a pool in which another one is healthy" {
  printf '#!/bin/sh\nsleep 0.3; echo up; exec sleep 1000\n' >job
  chmod +x job
  run_forkd -w 0 ./job
  eventually printed up
  mv job hidden
  signal USR1
  eventually logged "error: worker 1 (pid [0-9]*) could not start: cannot execute './job'"
  mv hidden job
  eventually has_workers 2
  logged_times 0 critical
}

@test "workers that cannot be loaded end the master with one critical line, and nothing is said of giving up" {
  run_forkd -n 4 "$BIN/undefined.so:steady"
  ends_with 1
  logged_times 1 critical
  logged_times 1 "could not start"
  never logged "giving up"
}

@test "a pool that could not come up has the status 1, also when a worker had to be killed then" {
  run_forkd -n 2 -g 1 "$BIN/hang_0.so:no_such_function"
  eventually logged "critical: worker 1 "
  # Nor does a request to end what is ending already change that.
  signal TERM
  ends_with 1
  logged "worker 0 (pid [0-9]*) has not ended and is killed"
  never logged "shutting down"
}
