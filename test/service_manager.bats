#!/usr/bin/env bats
# NOTIFY_SOCKET: what forkd tells a service manager.
#
# With -w 0 a worker is healthy as soon as it is loaded, with -t as well as soon as it has yielded.

load helper
load virtual
load reload

# manager [ADDRESS]: starts a service manager, which writes what it hears to the file heard.
manager() {
  export NOTIFY_SOCKET=${1:-$PWD/notify}
  background "$BIN/notify_sink" "$NOTIFY_SOCKET" >>heard
  manager=$background
  eventually heard listening
}

# pool NAME ARGUMENT ...: starts a pool with a manager of its own, which writes to heard.NAME.
pool() {
  local name=$1
  shift
  background "$BIN/notify_sink" "$PWD/$name.socket" >>"heard.$name"
  eventually heard_of "$name" listening
  NOTIFY_SOCKET=$PWD/$name.socket "$FORKD" "$@" >>out 2>>"log.$name" 3>&- &
  master=$!
}

heard() { await line heard 1 - "^[0-9]* $1"; }
heard_times() { await line heard "$1" "$1" "^[0-9]* $2"; }
heard_at_least() { await line heard "$1" - "^[0-9]* $2"; }
heard_of() { await line "heard.$1" 1 - "^[0-9]* $2"; }
ended_times() { await line "log.$1" "$2" - "exited with status 0"; }
questions="$questions heard heard_times heard_at_least heard_of ended_times"

# news: all that was heard, without the times in it, but for the first line.
news() { sed -e 1d -e 's/^[0-9]* //' -e 's/MONOTONIC_USEC=[0-9]*/MONOTONIC_USEC=.../' heard; }

# at FILE TEXT: the microseconds of the clock at which it was heard first.
at() { await group first "$1" "^\([0-9]*\) $2"; }

# deafen: the manager reads nothing, and its queue is full; hear: it reads again.
deafen() {
  kill -STOP "$manager"
  eventually is_state "$manager" T
  "$BIN/notify_sink" fill "$NOTIFY_SOCKET"
}
hear() { kill -CONT "$manager"; }

@test "READY=1 is said once when the pool has come up" {
  manager
  # The warm-up is for workers that do not yield.
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
    run_forkd -w 0 "$W:steady"
    eventually heard "READY=1"
    stops_with 0
  done
}

@test "a worker that does not yield is healthy when it has run for the warm-up" {
  pool at_once -w 0 "$W:never_yields"
  eventually heard_of at_once "READY=1 STATUS=1 of 1 "
  pool function -w 2 "$W:never_yields"
  pool command -w 2 sleep 1000
  for name in function command; do
    eventually heard_of "$name" "READY=1 STATUS=1 of 1 "
    [ "$(($(at "heard.$name" READY=1) - $(at "heard.$name" listening)))" -ge 2000000 ]
  done
}

@test "with -t a worker is healthy when it has yielded, and not before; the master does not spin meanwhile" {
  manager
  touch slow
  traced=
  command -v strace >/dev/null && traced="strace -o trace -e trace=poll,ppoll"
  background $traced "$FORKD" -t 1000 -w 0.01 "$BIN/one.so:slow_start" slow >>out 2>>log
  eventually printed "^slow"
  worker=$(pid_of 0)
  eventually lived "$worker" 1
  heard_times 0 READY=1
  rm slow
  eventually heard READY=1
  # A look at a sixteenth of the worker's age makes about eighty in its first second.
  if [ -n "$traced" ]; then
    looks=$(grep -c poll trace)
    echo "$looks looks"
    [ "$looks" -lt 300 ]
  fi
}

@test "workers that always end with 0 soon are healthy, also between one process and the next" {
  pool returns -n 2 -t 1000 -w 0.1 "$W:returns" 0
  pool short -n 2 -t 1000 -w 0.1 "$W:one_task" 200
  # Without -t the task may take as long as the warm-up.
  pool long -n 2 "$W:one_task" 1200
  touch quick
  pool quick -t 1000 -w 0.3 "$W:quick_or_stuck" "$PWD/quick"
  for name in returns short long; do
    eventually heard_of "$name" "READY=1 STATUS=2 of 2"
    : >"heard.$name"
    : >"log.$name"
  done
  eventually heard_of quick "READY=1 STATUS=1 of 1"
  eventually ended_times long 2
  for name in returns short; do eventually ended_times "$name" 12; done
  for name in returns short long; do
    echo "$name"
    [ ! -s "heard.$name" ]
  done
  # Not when the next one takes its time.
  rm quick
  eventually heard_of quick "STATUS=0 of 1"
}

@test "workers that yield and end with 0 at once are healthy also between one process and the next" {
  needs_virtual_time
  manager
  echo 0 >time
  run_virtual -n 2 -t 5 -w 0.1 "$W:returns" 0 healthy
  eventually heard "READY=1 STATUS=2 of 2"
  : >heard
  time_until 2000
  logged_at_least 40 "exited with status 0"
  # What comes last has been heard last.
  signal USR1
  eventually heard "STATUS=3 of 3"
  heard_times 0 "STATUS=[01] of"
}

@test "a number whose worker has ended is healthy no longer, whatever it did before" {
  # Ended with 0 when it had yielded for more than a second.
  pool old -w 1000 "$W:pauses_while" "$PWD/pause"
  eventually has_workers 1
  old=$(living "$master")
  # Killed when it was young.
  manager
  run_forkd -t 1000 -w 0 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually heard "READY=1"
  touch slow
  : >heard
  kill -KILL "$(pid_of 0)"
  eventually heard "STATUS=0 of 1"
  rm slow
  eventually heard "STATUS=1 of 1"
  eventually heard_of old "READY=1"
  eventually lived "$old" 2
  : >heard.old
  touch pause
  eventually heard_of old "STATUS=0 of 1"
  rm pause
  eventually heard_of old "STATUS=1 of 1"
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

@test "READY=1 is not said while a worker fails, and a reload says nothing then; STATUS follows the workers" {
  manager
  order load.1.1 fail
  order load.1.1025 wait
  start -t 1000 -w 0 -n 2
  eventually logged "worker 1 .* exited with status 5"
  eventually heard "STATUS=1 of 2"
  signal HUP
  eventually heard "STATUS=. of 2 workers healthy, . on the previous code; last reload: back: worker 1 .* exited with status 5"
  heard_times 0 READY=1
  rm load.1.1
  eventually heard "READY=1"
  heard_times 0 RELOADING=1
  rm load.1.1025
  eventually logged "back on the previous code"
  order load.1.1 fail
  : >heard
  kill -KILL "$(pid_of 1)"
  eventually heard "STATUS=1 of 2 workers healthy"
  : >heard
  rm load.1.1
  eventually heard "STATUS=2 of 2 workers healthy"
}

@test "STATUS follows the pool as it grows, shrinks and loses a worker" {
  manager
  run_forkd -t 1000 -w 0 "$BIN/one.so:slow_start" "$PWD/slow"
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

@test "STATUS says during a roll how many workers run the new code, and STOPPING=1 does not" {
  manager
  touch stay
  deploy one
  run_forkd -w 0 -n 2 ./code.so:first_busy stay
  eventually heard READY=1
  eventually printed "^busy"
  deploy two
  signal HUP
  eventually heard "STATUS=2 of 2 workers healthy, 1 on the new code; last reload: roll$"
  signal TERM
  eventually heard "STOPPING=1 STATUS=2 of 2 workers healthy; last reload: roll$"
  rm stay
  ends_with 0
  # The extra worker is none of them.
  heard_times 0 ".*3 of 2"
}

@test "a reload says RELOADING=1 with the time, and READY=1 when its trial is over" {
  manager
  run_forkd -t 1000 -w 0 -n 2 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually heard READY=1
  touch slow
  "$BIN/notify_sink" hup "$master" >hups
  eventually heard RELOADING=1
  rm slow
  eventually heard_times 2 READY=1
  news | grep -v '^STATUS' | sed 1d >later
  cat later
  [ "$(sed -n 1p later)" = "RELOADING=1 MONOTONIC_USEC=... STATUS=2 of 2 workers healthy; last reload: trial" ]
  [[ $(sed -n 2p later) == "READY=1 STATUS="?" of 2 workers healthy, "?" on the new code; last reload: roll" ]]
  for i in 2 3 4 5; do
    eventually logged_times $((i - 1)) "reload complete"
    "$BIN/notify_sink" hup "$master" >>hups
    eventually heard_times "$i" RELOADING=1
  done
  # The time lies between the signal and the message, and counts microseconds.
  sed -n 's/^\([0-9]*\) RELOADING=1 MONOTONIC_USEC=\([0-9]*\) .*/\1 \2/p' heard | paste -d ' ' hups - >times
  awk '{ print; if (!($1 <= $3 && $3 <= $2)) bad = 1; if ($3 % 1000) exact = 1 } END { exit bad || !exact }' times
}

@test "HUP during a roll says RELOADING=1 and READY=1 again, and no more" {
  manager
  touch stay
  deploy one
  run_forkd -w 0 ./code.so:first_busy stay
  eventually heard READY=1
  eventually printed "^busy"
  deploy two
  signal HUP
  eventually heard_times 2 READY=1
  signal HUP
  eventually heard_times 3 READY=1
  heard_times 2 RELOADING=1
  rm stay
  eventually logged "reload complete"
}

@test "HUP during a trial says RELOADING=1 again, and READY=1 not before the trial is over" {
  manager
  deploy one
  run_forkd -t 1000 -w 0 ./code.so:slow_start slow
  eventually heard READY=1
  touch slow
  deploy two
  signal HUP
  eventually printed "^slow 1024"
  signal HUP
  eventually logged "info: reload: the trial of worker 1024 is dropped$"
  eventually heard_times 2 RELOADING=1
  heard_times 1 READY=1
  rm slow
  eventually logged "reload complete"
  eventually heard "STATUS=1 of 1 workers healthy; last reload: complete$"
  heard_times 2 READY=1
  # The master has looked many times meanwhile. It says nothing twice.
  [ -z "$(news | sed 's/ MONOTONIC_USEC=[.]*//' | grep -v RELOADING | uniq -d)" ]
}

@test "a reload that fails says READY=1, too, and why; a newline in a name is no news of its own" {
  manager
  folder='./a
STOPPING=1'
  mkdir "$folder"
  cp "$W" "$folder/w.so"
  run_forkd -w 0 -n 2 "$folder/w.so:steady"
  eventually heard READY=1
  for broken in undefined ctor_crash none; do
    : >heard
    rm "$folder/w.so"
    why="worker 1024 "
    case $broken in
      none) why="cannot load ./a?STOPPING=1/w.so:steady: No such file" ;;
      *) cp "$BIN/$broken.so" "$folder/w.so" ;;
    esac
    signal HUP
    eventually heard "READY=1"
    news
    heard "RELOADING=1 MONOTONIC_USEC=[0-9]* STATUS=2 of 2"
    heard "READY=1 STATUS=2 of 2 workers healthy; last reload: failed: $why"
  done
  cp "$W" "$folder/w.so"
  signal HUP
  eventually heard "READY=1 STATUS=. of 2 workers healthy, 0 on the new code; last reload: roll"
}

# "reload complete" is logged in the turn of the master that tries to send what is due then. After it
# only a message that waits for room wakes the master.
@test "what finds the manager's queue full is sent when there is room, in its order, unless it is out of date" {
  needs_linux "the code is pinned"
  manager
  deafen
  deploy one
  run_forkd -t 1000 -w 0 ./code.so:slow_start slow
  eventually logged started
  signal HUP
  eventually logged_times 1 "worker 1024 .* exited"
  hear
  eventually heard "READY=1 STATUS=1 of 1"
  deafen
  : >heard
  signal HUP
  eventually logged_times 2 "worker 1024 .* exited"
  # A trial that is not over takes the place of the reload that is.
  touch slow
  deploy two
  signal HUP
  eventually printed "^slow 1024"
  hear
  eventually heard RELOADING=1
  rm slow
  eventually logged_times 3 "reload complete"
  eventually heard "STATUS=1 of 1 workers healthy; last reload: complete$"
  heard_times 1 RELOADING=1
  heard_times 1 READY=1
  deafen
  rm code.so
  signal HUP
  eventually logged "reload failed"
  hear
  eventually heard_times 2 READY=1
  heard_times 2 RELOADING=1
  news | grep -v '^full' | tail -n 2 >last
  cat last
  sed -n 1p last | grep -q '^RELOADING=1'
  sed -n 2p last | grep -q '^READY=1 STATUS=1 of 1 workers healthy; last reload: failed: cannot load'
  # STATUS alone. And a manager that does not listen stalls nobody.
  signal USR1
  eventually heard "STATUS=2 of 2"
  deafen
  : >heard
  signal USR2
  eventually logged "worker 1 .* exited"
  hear
  eventually heard "STATUS=1 of 1"
  deafen
  stops_with 0
}

@test "a queue without memory is full for a moment, too" {
  command -v strace >/dev/null || skip "no strace"
  manager
  # The first message is STATUS, the second READY=1.
  touch slow
  background strace -o trace -e trace=sendto -e inject=sendto:error=ENOBUFS:when=2 \
    "$FORKD" -t 1000 -w 0 "$BIN/one.so:slow_start" slow >>out 2>>log
  eventually heard "STATUS=0 of 1"
  rm slow
  eventually heard READY=1
  grep READY=1.*INJECTED trace
}

@test "STOPPING=1 that finds the queue full is sent when there is room, and nothing else" {
  manager
  run_forkd -w 0 -g 1000 "$W:hangs"
  eventually heard READY=1
  deafen
  signal HUP
  # The roll waits for worker 0 then.
  eventually printed_times 2 hangs
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
  run_forkd -w 0.7 -g 1000 "$BIN/one.so:slow_start" "$PWD/slow"
  eventually printed "^slow 0"
  signal TERM
  eventually lived "$(pid_of 0)" 1
  hear
  eventually heard STOPPING=1
  heard_times 0 READY=1
}

@test "STOPPING=1 is said once, and is the last word, also of a pool that never came up" {
  manager
  # One ends at once, the other when it is killed.
  run_forkd -w 0 -g 0.5 -n 2 "$W:first_hangs"
  eventually heard READY=1
  signal TERM
  ends_with 3
  run_forkd -n 2 "$BIN/undefined.so:steady"
  ends_with 1
  eventually heard_times 2 STOPPING=1
  news
  heard_times 1 READY=1
  [[ $(news | tail -n 1) == STOPPING=1* ]]
  [ -z "$(news | grep -A 1 STOPPING=1 | grep -v 'STOPPING=1\|STATUS=0 of 2')" ]
}

@test "NOTIFY_SOCKET is not passed to workers" {
  manager
  run_forkd "$W:environment" NOTIFY_SOCKET
  run_forkd sh -c 'echo "command ${NOTIFY_SOCKET-(unset)}"; exec sleep 60'
  eventually printed '^NOTIFY_SOCKET=(unset) '
  eventually printed '^command (unset)$'
}

@test "without NOTIFY_SOCKET nobody is told and nothing is missed" {
  unset NOTIFY_SOCKET
  run_forkd -l debug "$W:steady"
  eventually logged started
  stops_with 0
  logged_times 0 notify
}

@test "a NOTIFY_SOCKET that leads nowhere harms nothing, and one that cannot be one is logged" {
  masters=
  long="/$(printf '%0200d' 0)"
  for address in "$PWD/nobody" "$PWD" /dev/null @nobody relative '' @ / "$long" vsock:2:1; do
    NOTIFY_SOCKET=$address run_forkd -w 0 "$W:environment" NOTIFY_SOCKET
    masters="$masters $master"
  done
  eventually printed_times 10 'NOTIFY_SOCKET=(unset)'
  kill -HUP $masters
  kill -USR1 $masters
  for master in $masters; do eventually has_workers 2; done
  kill -TERM $masters
  for master in $masters; do ends_with 0; done
  for address in relative "$long" '' vsock:2:1; do logged_times 1 "warning: NOTIFY_SOCKET is '$address'"; done
  logged_times 4 "warning: NOTIFY_SOCKET"
  # The others are no news for the log, unless it is told everything.
  logged_times 0 "cannot notify"
}

@test "a service manager that comes back is told again" {
  manager
  run_forkd -w 0 "$W:steady"
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

@test "WATCHDOG=1 is said twice in the time that the manager asks for, also while workers set themselves up" {
  manager
  touch slow
  background sh -c 'WATCHDOG_USEC=200000 WATCHDOG_PID=$$ exec "$@" 2>>log' - "$FORKD" -t 1000 -w 0 "$BIN/one.so:slow_start" slow
  eventually heard_at_least 6 WATCHDOG=1
  heard_times 0 READY=1
  # They may be late, but never early, and not all of them are late.
  sixth=$(sed -n 's/^\([0-9]*\) WATCHDOG=1.*/\1/p' heard | sed -n 6p)
  [ "$((sixth - $(at heard listening)))" -ge 500000 ]
  eventually close_together
  rm slow
  eventually heard READY=1
}
close_together() { awk '/WATCHDOG/ { if (last && $1 - last < 190000) found = 1; last = $1 } END { exit !found }' heard; }

@test "WATCHDOG=1 that finds the queue full is sent when there is room, long before the next one is due" {
  manager
  deafen
  WATCHDOG_USEC=2000000000 run_forkd "$W:steady"
  eventually logged started
  hear
  eventually heard WATCHDOG=1
}

@test "a WATCHDOG_USEC that is meant for another process, or makes no sense, is left alone" {
  manager
  # The first one would be said before READY=1.
  for variables in "WATCHDOG_USEC=20000 WATCHDOG_PID=1" WATCHDOG_USEC= WATCHDOG_USEC=-5 WATCHDOG_USEC=x WATCHDOG_USEC=1; do
    background env $variables "$FORKD" -w 0 "$W:steady" 2>>log
  done
  eventually heard_times 5 READY=1
  heard_times 0 WATCHDOG
}

@test "WATCHDOG=1 is said in its time also while many workers start and each fork takes long" {
  needs_virtual_time
  manager
  # Time passes in fork alone: four seconds of it.
  echo 0 >time
  echo 100 >slow_fork
  WATCHDOG_USEC=1000000 run_virtual -n 40 "$W:steady"
  eventually logged "worker 39 (pid [0-9]*) started"
  eventually heard_at_least 7 WATCHDOG=1
}

@test "no number whose worker ends with 0 at once is healthy while fork fails" {
  needs_virtual_time
  manager
  echo 1000 >time
  run_virtual -n 2 "$W:returns" 0
  eventually heard "READY=1 STATUS=2 of 2"
  # Both are to start at the same moment: only one of them tries.
  eventually printed "^time 1000 stands$"
  : >heard
  touch no_fork
  rm time
  eventually heard "STATUS=0 of 2"
  : >heard
  rm no_fork
  eventually heard "STATUS=2 of 2"
}
