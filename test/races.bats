#!/usr/bin/env bats
# Races that many reloads in a row make wide.

load helper
load virtual
load reload

@test "quick reloads of a pool of one, one after the other, wait for no clock" {
  needs_virtual_time
  start_virtual -w 0
  eventually is_ready 1 0
  # Time goes on only when it has to: before a start, a tenth of a second after the last one, and until the
  # master sees that a worker is loaded. A reload that missed its moment would be over when the master looks the
  # next time, a second later, which never comes.
  at=0
  for round in $(seq "${RELOADS:-50}"); do
    signal HUP
    time_to $((at += 100))
    eventually is_ready 1 1024 "$round"
    time_to $((at += 20))
    eventually is_ready 1 0 $((round + 1))
    time_to $((at += 20))
    eventually logged_times "$round" "reload complete"
    eventually logged_times "$round" "worker 1024 (pid [0-9]*) exited with status 0"
  done
}
