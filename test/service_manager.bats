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

# deafen: the manager reads nothing, and its queue is full; hear: it reads again.
deafen() {
  kill -STOP "$manager"
  eventually is_state "$manager" T
  "$BIN/notify_sink" "$NOTIFY_SOCKET" fill
}
hear() { kill -CONT "$manager"; }

deploy() {
  cp "$1" new
  mv new w.so
}

@test "READY=1 is said once when the pool has come up" {
  manager
  # At once: the warm-up is for workers that do not yield.
  run_forkd -w 1000 -n 3 "$W:steady"
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
  # The second one is as long as a name can be.
  for name in "forkd-$$-$BATS_TEST_NUMBER" "$(printf '%0106d' "$$")"; do
    rm -f heard
    manager "@$name"
    run_forkd "$W:steady"
    eventually heard "READY=1"
    stops_with 0
  done
}

@test "workers that always end with 0 soon are healthy, also between one process and the next" {
  manager
  for job in "returns 0" "returns 0 healthy" "one_task 200"; do
    : >heard
    : >log
    run_forkd -n 2 -t 5 -w 0.1 "$W:"$job
    eventually heard "READY=1 STATUS=2 of 2"
    : >heard
    eventually logged_at_least 12 "worker [01] (pid [0-9]*) exited with status 0"
    news
    heard_times 0 STATUS
    stops_with 0
  done
  # Without -t the task may take as long as the warm-up.
  run_forkd "$W:one_task" 1200
  eventually heard "READY=1 STATUS=1 of 1"
  : >heard
  : >log
  eventually logged_at_least 2 "exited with status 0"
  heard_times 0 STATUS
}

@test "a number whose worker has ended is healthy no longer, whatever it did before" {
  manager
  # Killed when it was young.
  run_forkd -w 1000 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually heard "READY=1"
  touch slow
  : >heard
  kill -KILL "$(pid_of 0)"
  eventually heard "STATUS=0 of 1"
  rm slow
  eventually heard "STATUS=1 of 1"
  stops_with 0
  # Ended with 0 when it had yielded for more than a second.
  : >heard
  : >log
  run_forkd -w 1000 "$W:pauses_while" "$PWD/pause"
  eventually heard "READY=1"
  eventually lived "$(pid_of 0)" 2
  : >heard
  touch pause
  eventually heard "STATUS=0 of 1"
  rm pause
  eventually heard "STATUS=1 of 1"
}

@test "a number that was removed and is added again is not healthy for what it did before" {
  manager
  touch quick
  run_forkd -w 1000 -n 2 "$W:quick_or_stuck" "$PWD/quick"
  eventually heard "READY=1"
  signal USR2
  eventually heard "STATUS=1 of 1"
  rm quick
  : >heard
  signal USR1
  eventually heard "STATUS=1 of 2"
}

@test "code that takes its time to be loaded is not killed while no reload is under way" {
  manager
  run_forkd -g 0.1 -w 0.1 "$BIN/ctor_slow.so:steady"
  eventually logged "exited with status 0"
  never logged killed
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
  touch stay
  deploy "$BIN/one.so"
  run_forkd -n 2 ./w.so:first_busy stay
  eventually heard READY=1
  eventually printed "^busy"
  deploy "$BIN/two.so"
  signal HUP
  eventually heard "STATUS=2 of 2 workers healthy, 1 on the new code; last reload: succeeded$"
  rm stay
  eventually heard "STATUS=2 of 2 workers healthy; last reload: succeeded$"
  # The extra worker is none of them.
  never grep "3 of 2" heard
}

@test "a shutdown during a roll says STOPPING=1 and no more of the new code" {
  manager
  touch stay
  deploy "$BIN/one.so"
  run_forkd ./w.so:first_busy stay
  eventually heard READY=1
  eventually printed "^busy"
  deploy "$BIN/two.so"
  signal HUP
  eventually heard_times 2 READY=1
  signal TERM
  eventually heard "STOPPING=1 STATUS=1 of 1 workers healthy; last reload: succeeded$"
  rm stay
  ends_with 0
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

@test "READY=1 that finds the manager's queue full is sent when there is room" {
  manager
  deafen
  run_forkd "$W:steady"
  eventually logged started
  signal HUP
  eventually logged "reload complete"
  hear
  eventually heard "READY=1 STATUS=1 of 1"
}

@test "RELOADING=1 and READY=1 that find the queue full are sent in this order, and what is out of date is not" {
  manager
  deploy "$BIN/one.so"
  run_forkd ./w.so:slow_start slow
  eventually heard READY=1
  deafen
  signal HUP
  eventually logged_times 1 "reload complete"
  # A trial that is not over takes the place of the reload that is.
  touch slow
  deploy "$BIN/two.so"
  signal HUP
  eventually printed "^slow 1024"
  hear
  eventually heard RELOADING=1
  rm slow
  eventually logged_times 2 "reload complete"
  eventually heard "STATUS=1 of 1 workers healthy; last reload: succeeded$"
  heard_times 1 RELOADING=1
  heard_times 2 READY=1
  deafen
  rm w.so
  signal HUP
  eventually logged "reload failed"
  hear
  eventually heard_times 3 READY=1
  heard_times 2 RELOADING=1
  news | grep -v '^full' | tail -n 2 >last
  grep -n . last
  sed -n 1p last | grep -q '^RELOADING=1'
  sed -n 2p last | grep -q '^READY=1 STATUS=1 of 1 workers healthy; last reload: failed: cannot load'
}

@test "STOPPING=1 that finds the queue full is sent when there is room, and nothing else" {
  manager
  run_forkd -g 1000 "$W:hangs"
  eventually heard READY=1
  deafen
  signal HUP
  eventually logged "reload succeeded"
  signal TERM
  eventually logged "shutting down"
  hear
  eventually heard STOPPING=1
  news | grep -v '^full'
  heard_times 0 RELOADING=1
  heard_times 1 READY=1
}

@test "a worker that becomes healthy during the shutdown makes no READY=1" {
  manager
  deafen
  touch slow
  run_forkd -w 2 -g 1000 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually printed "^slow 0"
  signal TERM
  eventually lived "$(pid_of 0)" 4
  hear
  eventually heard STOPPING=1
  heard_times 0 READY=1
}

@test "STATUS that finds the queue full is sent when there is room" {
  manager
  run_forkd "$W:steady"
  eventually heard READY=1
  deafen
  signal USR1
  eventually logged_times 2 "started"
  background sleep 0.3
  wait "$background"
  hear
  eventually heard "STATUS=2 of 2 workers healthy"
}

@test "WATCHDOG=1 that finds the queue full is sent when there is room, long before the next one is due" {
  manager
  deafen
  WATCHDOG_USEC=2000000000 run_forkd "$W:steady"
  eventually logged started
  hear
  eventually heard WATCHDOG=1
}

@test "READY=1 is not said while workers fail" {
  manager
  run_forkd -n 2 "$W:second_crashes_without" "$PWD/file"
  eventually logged "worker 1 .* exited with status 1"
  heard_times 0 READY=1
  touch file
  eventually heard "READY=1"
}

@test "a reload before the pool has come up says neither RELOADING=1 nor READY=1" {
  manager
  run_forkd -n 2 "$W:second_crashes_without" "$PWD/file"
  eventually logged "worker 1 .* exited with status 1"
  signal HUP
  eventually heard "STATUS=. of 2 workers healthy, . on the new code; last reload: succeeded"
  signal HUP
  eventually logged "already under way\|reload: trying.*as worker 1025"
  heard_times 0 READY=1
  touch file
  eventually heard "READY=1"
  heard_times 0 RELOADING=1
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
  run_forkd -n 2 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually heard READY=1
  touch slow
  signal HUP
  eventually heard RELOADING=1
  rm slow
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

@test "HUP during a trial of the same file says RELOADING=1, and READY=1 not before the trial is over" {
  manager
  deploy "$BIN/one.so"
  run_forkd ./w.so:slow_start slow
  eventually heard READY=1
  touch slow
  deploy "$BIN/two.so"
  signal HUP
  eventually printed "^slow 1024"
  signal HUP
  eventually heard_times 2 RELOADING=1
  logged_times 1 "already under way, and the file is the same"
  rm slow
  eventually logged "reload complete"
  eventually heard "STATUS=1 of 1 workers healthy; last reload: succeeded$"
  heard_times 2 READY=1
  # The master has looked many times meanwhile. It says nothing twice.
  [ -z "$(news | sed 's/ MONOTONIC_USEC=[.]*//' | grep -v RELOADING | uniq -d)" ]
}

@test "a name with a newline in it is no news of its own" {
  manager
  folder='a
STOPPING=1'
  mkdir "$folder"
  cp "$W" "$folder/w.so"
  run_forkd "./$folder/w.so:steady"
  eventually heard READY=1
  rm "$folder/w.so"
  signal HUP
  eventually heard "READY=1 STATUS=1 of 1 workers healthy; last reload: failed: cannot load ./a?STOPPING=1/w.so:steady: No such file"
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
}

@test "STATUS follows the pool as it grows, shrinks and loses a worker" {
  manager
  run_forkd "$BIN/one.so:slow_start" "$PWD/slow"
  eventually heard READY=1
  touch slow
  signal USR1
  eventually heard "STATUS=1 of 2 workers healthy"
  rm slow
  eventually heard "STATUS=2 of 2 workers healthy"
  signal USR2
  eventually heard "STATUS=1 of 1 workers healthy"
  : >heard
  signal USR2
  eventually logged "warning: the target stays 1, the least there can be"
  heard_times 0 STATUS
  kill -KILL "$(pid_of 0)"
  eventually heard "STATUS=1 of 1 workers healthy"
}

@test "STOPPING=1 is said once, and is the last word" {
  manager
  # One ends at once, the other when it is killed.
  run_forkd -g 0.5 -n 2 "$W:first_hangs"
  eventually heard READY=1
  signal TERM
  eventually heard STOPPING=1
  ends_with 3
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
  # The first one is no news for the log, unless it is told everything.
  logged_times 0 "cannot notify"
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
  # 5 intervals of 0.2 s; they may be late, but never early, and not all of them are late.
  sed -n 's/^\([0-9]*\) WATCHDOG=1.*/\1/p' heard | head -n 6 >when
  [ "$(($(tail -n 1 when) - $(head -n 1 when)))" -ge 990 ]
  awk 'NR > 1 && $1 - last < 380 { found = 1 } { last = $1 } END { exit !found }' when
  stops_with 0
}

@test "WATCHDOG=1 is said while workers set themselves up, if it is meant for the master's pid" {
  manager
  background sh -c 'WATCHDOG_USEC=400000 WATCHDOG_PID=$$ exec "$@" 2>>log' sh "$FORKD" "$W:late_once"
  master=$background
  eventually heard READY=1
  sed '/READY=1/q' heard >before
  [ "$(grep -c WATCHDOG=1 before)" -ge 3 ]
}
heard_at_least() { [ "$(grep -c -e "^[0-9]* $2" heard)" -ge "$1" ]; }

@test "a number whose worker returned 0 at once is healthy no longer when its next one takes its time" {
  manager
  touch quick
  run_forkd -t 1000 -w 0.3 "$W:quick_or_stuck" "$PWD/quick"
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
