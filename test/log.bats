#!/usr/bin/env bats
# The log, and standard error that is slow, stuck or gone.

load helper

@test "every line has the form forkd[PID]: LEVEL: text" {
  run_forkd -l debug -n 2 "$W:steady"
  eventually has_workers 2
  signal USR2
  eventually has_workers 1
  stops_with 0
  never grep -v -E "^forkd\[$master\]: (debug|info|warning|error|critical): ." log
}

@test "a level leaves out what is less important" {
  run_forkd -l error -n 2 "$W:returns" 1
  ends_with 1
  never grep -v -E ': (error|critical): ' log
  logged "giving up"
}

@test "a line that stderr would not take is dropped and counted, and the pool goes on" {
  mkfifo pipe
  exec 8<>pipe
  "$FORKD" -n 2 "$W:shouts" >>out 2>pipe 3>&- 8>&- &
  master=$!
  eventually has_workers 2
  # Nobody reads: the pipe is full of what the workers write, and the master must not care.
  for n in 3 4 5; do
    signal USR1
    eventually has_workers $n
  done
  # A line that is free again shows in the next event.
  background cat pipe >log
  eventually grows_until_reported
  exec 8>&-
  stops_with 0
}

@test "a log that is a file, and at its limit, ends nobody" {
  # shellcheck disable=SC2016
  background sh -c 'ulimit -f 0 && exec "$0" "$1"' "$FORKD" "$W:steady" 2>limited
  master=$background
  eventually has_workers 1
  kill -KILL "$(living "$master")"
  eventually has_workers 1
  stops_with 0
  [ ! -s limited ]
}

grows_until_reported() { signal USR1; logged "warning: [0-9]* log lines\? w[a-z]* dropped"; }

@test "a reader of stderr that has gone does not end the pool" {
  mkfifo pipe
  exec 8<>pipe
  "$FORKD" "$W:steady" >>out 2>pipe 3>&- 8>&- &
  master=$!
  eventually has_workers 1
  exec 8>&-
  for n in 2 3; do
    signal USR1
    eventually has_workers $n
  done
  stops_with 0
}

@test "each line is one write" {
  command -v strace >/dev/null || skip "no strace"
  strace -e trace=write -s 300 -o trace "$FORKD" -n 2 "$W:returns" 1 >>out 2>>log 3>&- &
  background=$!
  wait "$background" || :
  # As many writes of a line to standard error as there are lines; each ends with its only newline.
  [ "$(grep -c 'write([0-9]*, "forkd\[[0-9]*\]: .*\\n"' trace)" -eq "$(wc -l <log)" ]
}
