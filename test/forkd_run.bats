#!/usr/bin/env bats
# forkd_run: the pool in an application of one's own.

load helper

run_application() {
  "$BIN/$application" "$@" >>out 2>>log 3>&- &
  master=$!
}
application=with_archive

@test "an application in C runs a pool, linked with the object and with the archive" {
  for application in with_object with_archive; do
    : >out
    run_application run last-one
    eventually printed "^worker 0 argc 3 last last-one$"
    eventually printed "^worker 1 argc 3 last last-one$"
    stops_with 0
  done
}

@test "an application in C++ runs a pool, and its workers see what it has set up" {
  application=in_cxx
  run_application
  eventually printed "in_cxx 42 number 0$"
  eventually printed "in_cxx 42 number 1$"
  stops_with 0
}

@test "an application needs the C library alone" {
  command -v ldd >/dev/null || skip "no ldd"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  run ldd "$BIN/with_archive"
  ! echo "$output" | grep -v -E 'libc\.|ld-|linux-vdso|ld-musl'
}

@test "null options and no arguments are the defaults" {
  run_application defaults
  eventually printed "^worker 0 argc 0 last none$"
  has_workers 1
  stops_with 0
}

@test "memory set up before the fork is shared, not copied" {
  [ -r /proc/self/smaps_rollup ] || skip "no /proc/PID/smaps_rollup"
  run_application memory
  eventually printed_times 2 "^sum 32768$"
  # Rss counts the 16 MiB in master and workers; Private must not, in a worker.
  private=$(awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$(pid_of 0)/smaps_rollup")
  rss=$(awk '/^Rss/ { print $2 }' "/proc/$(pid_of 0)/smaps_rollup")
  [ "$rss" -ge 16384 ]
  [ "$private" -lt 8192 ]
}

@test "what is in stdio's buffers is printed once" {
  run_application run
  eventually printed_times 2 "^worker"
  stops_with 0
  [ "$(grep -c buffered out)" -eq 1 ]
}

@test "the exit statuses are those of the tool" {
  run_application fails
  ends_with 1
  : >log
  run_application hangs
  eventually logged_times 2 started
  stops_with 3
}

@test "the timeout works as in the tool" {
  run_application timeout
  eventually logged "worker 0 (pid [0-9]*) was ended by signal 6"
}

@test "bad options, bad arguments and a null function are EINVAL, and nothing is started" {
  run "$BIN/with_archive" errors
  [ "$output" = "$(printf 'buffered\nall refused')" ]
}

@test "forkd_run may be called again, and leaves signals, mask and descriptors as they were" {
  run_application twice
  eventually has_workers 2
  eventually logged_times 2 started
  signal TERM
  eventually printed "^returned 0"
  eventually logged_times 5 started
  signal INT
  ends_with 0
  [ "$(grep -c '^returned 0$' out)" -eq 2 ]
  # Of HUP, INT, QUIT, TERM, USR1, USR2, CHLD, ...: i for ignored, h for the caller's own handler.
  printed "^before i . . . h . h . . . term 1 usr1 0 open [0-9]*$"
  [ "$(sed -n 's/^between //p' out)" = "$(sed -n 's/^before //p' out)" ]
  [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^before //p' out)" ]
}

@test "HUP restarts every worker" {
  run_application run
  eventually printed_times 2 "^worker"
  old=$(pid_of 0) old1=$(pid_of 1)
  signal HUP
  eventually is_replaced 0 "$old"
  eventually is_replaced 1 "$old1"
  has_workers 2
}

@test "HUP tries what a worker reads when it sets itself up, and a bad file costs the pool nothing" {
  echo good1 >config
  run_application config
  eventually printed_times 2 "^config good1"
  before=$(living "$master" | sort)
  echo bad >config
  signal HUP
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 1 .* before it was healthy"
  [ "$before" = "$(living "$master" | sort)" ]
  echo good2 >config
  signal HUP
  eventually logged "reload complete"
  printed "^config good2 number 0"
  printed "^config good2 number 1"
  eventually has_workers 2
  stops_with 0
}

@test "children of the application that are no workers are left to it" {
  run_application children
  eventually printed_times 2 "^worker"
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually is_replaced 0 "$old"
  signal TERM
  ends_with 0
  printed "^returned 0$"
  printed "^first 11$"
  printed "^other 12$"
}

@test "a worker that the application itself has reaped is missed and replaced" {
  run_application steals
  eventually printed_times 2 "^worker"
  for round in 1 2 3; do
    old=$(pid_of 0)
    kill -KILL "$old"
    eventually is_replaced 0 "$old"
  done
  has_workers 2
  stops_with 0
}

@test "forkd_run works in a thread of its own" {
  run_application thread
  eventually printed_times 2 "^worker"
  signal TERM
  ends_with 0
  printed "^thread 0$"
}

@test "what another thread of the application forks has no part in the pool, and there is only one pool" {
  run_application forks
  eventually printed_times 2 "^worker"
  touch go
  # Its dispositions are the caller's (who may ignore INT and QUIT), so a signal does what it does elsewhere.
  eventually printed "^child d [di] [di] d d d d d d d "
  eventually printed "^second refused$"
  child=$(living "$master" | grep -v -x -e "$(pid_of 0)" -e "$(pid_of 1)")
  kill -TERM "$child"
  eventually printed "^child $child ended by 15$"
  has_workers 2
  stops_with 0
}

@test "a signal to a process that another thread has just forked ends that, and never the pool" {
  case $LDFLAGS in *thread*) skip "the thread sanitizer delays signals" ;; esac
  run_application strangers
  eventually printed_times 2 "^worker"
  touch go
  eventually printed "^strangers 101$"
  has_workers 2
  logged_times 0 "shutting down"
  stops_with 0
}

@test "a worker function runs alone, without forkd" {
  run "$BIN/with_archive" alone
  [ "${lines[1]}" = "5 tasks, number -1, stop 1" ]
}

@test "an exception, or pthread_exit, in a worker runs nothing of the caller's main" {
  case $LDFLAGS in *thread*) skip "a thread of the thread sanitizer outlives pthread_exit" ;; esac
  [ -x "$BIN/throws" ] || skip "no C++ library for $CXX"
  for way in throw exit; do
    : >log
    : >out
    "$BIN/throws" $way >>out 2>>log 3>&- &
    master=$!
    eventually logged_at_least 2 "worker 0 (pid [0-9]*) started"
    stops_with 0
    never printed caught
    [ "$(cat out)" = "destroyed in $master" ]
    [ $way = exit ] || logged "worker 0 (pid [0-9]*) was ended by signal 6"
  done
}

@test "a worker that exits does not move the offset of the application's standard input" {
  seq 5000 >numbers
  "$BIN/with_archive" reads >>out 2>>log 3>&- <numbers &
  master=$!
  eventually logged_at_least 4 "exited with status 0"
  stops_with 0
  grep -v buffered out | cmp - numbers
}

@test "a variable that the application changes while the pool runs does not reach later workers" {
  run_application variable
  eventually printed_times 2 "^VARIABLE=before$"
  touch go
  eventually printed "^changed$"
  kill -KILL "$(pid_of 0)"
  eventually printed_times 3 "^VARIABLE=before$"
  never printed after
}

@test "workers that the application reaps, one after the other and two at once, are all replaced" {
  run_application steals
  for round in $(seq 20); do
    eventually has_workers 2
    kill -KILL $(living "$master") || :
  done
  eventually has_workers 2
  stops_with 0
}
