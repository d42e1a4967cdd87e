#!/usr/bin/env bats
# NOTIFY_SOCKET: what forkd tells a service manager.

load helper

bats_require_minimum_version 1.5.0

# manager [ADDRESS]: starts a service manager, which writes what it hears to the file heard.
manager() {
  export NOTIFY_SOCKET=${1:-$PWD/notify}
  background "$BIN/notify_sink" "$NOTIFY_SOCKET" >>heard
  manager=$background
  eventually heard listening
}

heard() { grep -q -e "^[0-9]* $1" heard; }
heard_times() { [ "$(grep -c -e "^[0-9]* $2" heard)" -eq "$1" ]; }

# news: all that was heard, without the times in it, but for the first line.
news() { sed -e 1d -e 's/^[0-9]* //' -e 's/MONOTONIC_USEC=[0-9]*/MONOTONIC_USEC=.../' heard; }

# at TEXT: the milliseconds of the clock at which it was heard first.
at() { sed -n "s/^\([0-9]*\) $1.*/\1/p" heard | head -n 1; }

deploy() {
  cp "$1" new
  mv new w.so
}

@test "READY=1 is said once when the pool has come up" {
  manager
  run_forkd -n 3 "$W:steady"
  eventually heard "READY=1"
  signal USR1
  eventually heard "STATUS=4 of 4"
  stops_with 0
  news
  heard_times 1 READY=1
  heard "READY=1 STATUS=3 of 3 workers healthy; last reload: none$"
}

@test "an abstract name does as well as a path" {
  [ "$(uname)" = Linux ] || skip "Linux only"
  manager "@forkd-$$-$BATS_TEST_NUMBER"
  run_forkd "$W:steady"
  eventually heard "READY=1"
}

@test "READY=1 is said for workers that always end with 0 soon" {
  manager
  run_forkd -n 2 "$W:returns" 0
  eventually heard "READY=1 STATUS=2 of 2"
}

@test "READY=1 waits for every worker to be healthy" {
  mkfifo fifo
  manager
  # Each yields when it has read a byte; there is one, so the other is healthy after the warm-up only.
  background sh -c 'printf x >fifo; exec sleep 60 >fifo'
  run_forkd -w 1 -n 2 "$W:reads" "$PWD/fifo"
  eventually printed "task x"
  eventually heard "READY=1"
  cat heard
  [ "$(($(at READY=1) - $(at listening)))" -ge 1000 ]
  heard "READY=1 STATUS=2 of 2 "
}

@test "a command is healthy when it has run for the warm-up time" {
  manager
  run_forkd -w 0.7 sleep 1000
  eventually heard "READY=1 STATUS=1 of 1 "
  [ "$(($(at READY=1) - $(at STATUS=0)))" -ge 600 ]
}

@test "with -w 0 a worker is healthy as soon as it is loaded" {
  manager
  run_forkd -w 0 "$W:never_yields"
  eventually heard "READY=1 STATUS=1 of 1 "
  [ "$(($(at READY=1) - $(at listening)))" -lt 8000 ]
}

@test "with -t a worker is healthy when it has yielded, and not before" {
  manager
  run_forkd -t 5 -w 0.1 "$W:late_once"
  eventually heard READY=1
  [ "$(($(at READY=1) - $(at STATUS=0)))" -ge 900 ]
}

@test "with -t the master does not spin while it waits for a first yield after the warm-up" {
  command -v strace >/dev/null || skip "no strace"
  manager
  strace -o trace -e trace=poll,ppoll "$FORKD" -t 5 -w 0.01 "$W:late_once" >>out 2>>log 3>&- &
  tracer=$!
  eventually heard READY=1
  # A look at a sixteenth of the worker's age makes about eighty in its first second.
  looks=$(grep -c poll trace)
  echo "$looks looks"
  [ "$looks" -lt 300 ]
  kill -TERM "$(living "$tracer")"
}

@test "STATUS says during a roll how many workers run the new code" {
  manager
  deploy "$W"
  run_forkd -n 2 ./w.so:steady
  eventually heard READY=1
  deploy "$W"
  signal HUP
  eventually heard "STATUS=[12] of 2 workers healthy, 1 on the new code; last reload: succeeded"
  eventually heard "STATUS=2 of 2 workers healthy; last reload: succeeded"
}

@test "STATUS follows the workers, as they crash and come back" {
  manager
  touch file
  run_forkd -n 2 "$W:second_crashes_without" "$PWD/file"
  eventually heard "READY=1"
  rm file
  kill -KILL "$(pid_of 1)"
  eventually heard "STATUS=1 of 2 workers healthy"
  : >heard
  touch file
  eventually heard "STATUS=2 of 2 workers healthy"
}

@test "a message that finds the manager's queue full is sent when there is room" {
  manager
  kill -STOP "$manager"
  eventually is_state "$manager" T
  # More messages than a queue holds; what they say changes each time.
  "$BIN/notify_sink" "$NOTIFY_SOCKET" fill
  run_forkd "$W:steady"
  eventually logged started
  signal HUP
  eventually logged "reload complete"
  kill -CONT "$manager"
  eventually heard "READY=1 STATUS=1 of 1"
}

@test "READY=1 is not said while workers fail" {
  manager
  run_forkd -n 2 "$W:second_crashes_without" "$PWD/file"
  eventually logged "worker 1 .* exited with status 1"
  heard_times 0 READY=1
  touch file
  eventually heard "READY=1"
}

@test "a pool that never comes up says STOPPING=1 without READY=1" {
  manager
  run_forkd -n 2 "$BIN/undefined.so:steady"
  ends_with 1
  eventually heard STOPPING=1
  heard_times 0 READY=1
}

@test "a reload says RELOADING=1 with the time, and READY=1 when it is over" {
  manager
  run_forkd -n 2 "$W:steady"
  eventually heard READY=1
  signal HUP
  eventually heard_times 2 READY=1
  stops_with 0
  news
  news | grep -v '^STATUS' | sed 1d >later
  [ "$(sed -n 1p later)" = "RELOADING=1 MONOTONIC_USEC=... STATUS=2 of 2 workers healthy; last reload: none" ]
  [[ $(sed -n 2p later) == "READY=1 STATUS="?" of 2 workers healthy, "?" on the new code; last reload: succeeded" ]]
  # The time is that of the clock by which the message came, and lies between its neighbours.
  usec=$(sed -n 's/.*MONOTONIC_USEC=\([0-9]*\).*/\1/p' heard)
  [ "$((usec / 1000))" -ge "$(at READY=1)" ]
  [ "$((usec / 1000))" -le "$(at RELOADING=1)" ]
}

@test "HUP during a roll of the same file says RELOADING=1 and READY=1, and no more" {
  manager
  touch stay
  cp "$BIN/one.so" w.so
  run_forkd ./w.so:first_busy stay
  eventually heard READY=1
  deploy "$BIN/two.so"
  signal HUP
  eventually heard_times 2 READY=1
  signal HUP
  eventually heard_times 3 READY=1
  heard_times 2 RELOADING=1
  logged_times 1 "reload: trying"
  rm stay
  eventually logged "reload complete"
}

@test "a reload that fails says READY=1, too, and that it has failed" {
  manager
  deploy "$W"
  run_forkd -n 2 ./w.so:steady
  eventually heard READY=1
  for broken in "$BIN/undefined.so" "$BIN/ctor_crash.so"; do
    : >heard
    deploy "$broken"
    signal HUP
    eventually heard "READY=1"
    news
    heard "RELOADING=1 MONOTONIC_USEC=[0-9]* STATUS=2 of 2"
    heard "READY=1 STATUS=2 of 2 workers healthy; last reload: failed: worker 1024 "
  done
  deploy "$W"
  signal HUP
  eventually heard "READY=1 STATUS=. of 2 workers healthy, 0 on the new code; last reload: succeeded"
  heard "RELOADING=1 MONOTONIC_USEC=[0-9]* STATUS=2 of 2 workers healthy; last reload: failed"
}

@test "STATUS follows the pool as it grows, shrinks and loses a worker" {
  manager
  run_forkd "$W:steady"
  eventually heard READY=1
  signal USR1
  eventually heard "STATUS=2 of 2 workers healthy"
  heard "STATUS=1 of 2 workers healthy"
  signal USR2
  eventually heard "STATUS=1 of 1 workers healthy"
  : >heard
  kill -KILL "$(pid_of 0)"
  eventually heard "STATUS=1 of 1 workers healthy"
}

@test "STOPPING=1 is said once, and is the last word" {
  manager
  run_forkd -n 2 "$W:steady"
  eventually heard READY=1
  signal TERM
  eventually heard STOPPING=1
  ends_with 0
  news
  heard_times 1 STOPPING=1
  [[ $(news | tail -n 1) == STOPPING=1* ]]
}

@test "NOTIFY_SOCKET is not passed to workers" {
  manager
  run_forkd "$W:environment" NOTIFY_SOCKET
  eventually printed '^NOTIFY_SOCKET=(unset) '
  stops_with 0
  run_forkd sh -c 'echo "command ${NOTIFY_SOCKET-(unset)}"; exec sleep 60'
  eventually printed '^command (unset)$'
}

@test "without NOTIFY_SOCKET nobody is told and nothing is missed" {
  unset NOTIFY_SOCKET
  run_forkd -l debug "$W:steady"
  eventually logged started
  stops_with 0
  logged_times 0 notify
}

@test "a NOTIFY_SOCKET that leads nowhere harms nothing" {
  for address in "$PWD/nobody" "$PWD" /dev/null @nobody relative '' @ / "/$(printf '%0200d' 0)" vsock:2:1; do
    echo "with '$address'"
    : >out
    NOTIFY_SOCKET=$address run_forkd "$W:environment" NOTIFY_SOCKET
    eventually printed 'NOTIFY_SOCKET=(unset)'
    signal HUP
    signal USR1
    eventually has_workers 2
    stops_with 0
  done
}

@test "a NOTIFY_SOCKET that cannot be one is logged" {
  for address in relative "/$(printf '%0200d' 0)"; do
    : >log
    NOTIFY_SOCKET=$address run_forkd "$W:steady"
    eventually logged "warning: NOTIFY_SOCKET is '$address'"
    stops_with 0
  done
}

@test "a service manager that does not listen never stalls the pool" {
  manager
  kill -STOP "$manager"
  eventually is_state "$manager" T
  run_forkd "$W:steady"
  eventually logged started
  # More messages than a socket's queue holds.
  for i in $(seq 15); do
    signal USR1
    eventually logged_times "$i" "the target is now 2"
    signal USR2
    eventually logged_times "$i" "the target is now 1"
  done
  stops_with 0
}

@test "a service manager that comes back is told again" {
  manager
  run_forkd "$W:steady"
  eventually heard READY=1
  kill -KILL "$manager"
  wait "$manager" || :
  rm notify heard
  signal USR1
  eventually has_workers 2
  manager
  signal HUP
  eventually heard "READY=1 STATUS="
}

@test "WATCHDOG=1 is said twice in the time that the manager asks for" {
  manager
  WATCHDOG_USEC=400000 run_forkd "$W:steady"
  eventually heard_at_least 6 WATCHDOG=1
  # 5 intervals of 0.2 s; they may be late, but never early.
  sed -n 's/^\([0-9]*\) WATCHDOG=1.*/\1/p' heard | head -n 6 >when
  [ "$(($(tail -n 1 when) - $(head -n 1 when)))" -ge 990 ]
  stops_with 0
}
heard_at_least() { [ "$(grep -c -e "^[0-9]* $2" heard)" -ge "$1" ]; }

@test "a number whose worker returned 0 at once is healthy no longer when its next one takes its time" {
  manager
  touch quick
  run_forkd -w 1.5 "$W:quick_or_silent" "$PWD/quick"
  eventually heard "READY=1 STATUS=1 of 1"
  : >heard
  rm quick
  eventually heard "STATUS=0 of 1"
}

@test "a WATCHDOG_USEC that is meant for another process, or makes no sense, is left alone" {
  manager
  for variables in "WATCHDOG_USEC=20000 WATCHDOG_PID=1" WATCHDOG_USEC= WATCHDOG_USEC=-5 WATCHDOG_USEC=x; do
    : >heard
    background env $variables "$FORKD" "$W:steady" 2>>log
    master=$background
    eventually heard READY=1
    background sleep 0.2
    wait "$background"
    stops_with 0
    heard_times 0 WATCHDOG
  done
}
