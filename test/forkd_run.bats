#!/usr/bin/env bats
# forkd_run: the pool in an application of one's own.

load helper
load virtual

application=with_archive
run_application() { FORKD=$BIN/$application run_forkd "$@"; }
run_virtual_application() { FORKD=$BIN/$application run_virtual "$@"; }

# run_traced INJECTION MODE ...: the same, while strace meddles with a system call.
run_traced() {
  strace -f -o trace -e trace="${1%%:*}" -e inject="$1" "$BIN/with_archive" "${@:2}" >>out 2>>log 3>&- &
  master=$!
}

@test "an application in C or C++ runs a pool, linked with the object or the archive; what is in stdio's buffers is printed once" {
  for application in with_object with_archive in_cxx; do
    : >out
    run_application run last-one
    case $application in
      in_cxx)
        eventually printed "in_cxx 42 number 0$"
        eventually printed "in_cxx 42 number 1$"
        stops_with 0
        ;;
      *)
        eventually printed "^worker 0 argc 3 last last-one$"
        eventually printed "^worker 1 argc 3 last last-one$"
        stops_with 0
        [ "$(grep -c buffered out)" -eq 1 ]
        ;;
    esac
  done
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

@test "a pool that never comes up has the status 1" {
  needs_virtual_time
  run_virtual_application fails
  ends_with 1
  logged "giving up"
}

@test "a grace period is in seconds, 0 is the default one, the shortest one is not nothing, and a negative one lasts for ever" {
  needs_virtual_time
  while read -r grace killed; do
    echo "$grace"
    anew
    echo 0 >time
    run_virtual_application grace "$grace"
    eventually printed_times 2 hangs
    signal TERM
    eventually logged "shutting down"
    if [ "$killed" = never ]; then
      time_until 20000
      [ -z "$(times 'kill 9')" ]
    else
      rm time
      ends_with 3
      [ "$(times 'kill 9' | tr '\n' ' ')" = "$killed $killed " ]
    fi
  done <<'END'
0.5 500
0 8000
1e-9 1
-1 never
END
}

@test "timeout and warm-up are in seconds, a warm-up of 0 is the default one, and the shortest time is not nothing" {
  needs_virtual_time
  while read -r timeout warm_up limit; do
    echo "$timeout $warm_up"
    anew
    run_virtual_application timeout "$timeout" "$warm_up"
    eventually logged "worker 0 (pid [0-9]*) has not yielded for $limit s and is aborted"
    eventually logged "worker 0 (pid [0-9]*) was ended by signal 6"
  done <<'END'
0.2 0.3 0\.300
0.5 0.3 0\.500
0.2 0 8\.000
1e-9 1e-9 0\.001
END
}

@test "bad options, bad arguments and a null function are EINVAL, and nothing is started; the outermost options are taken" {
  run "$BIN/with_archive" errors
  echo "$output"
  [ "$output" = "$(printf 'buffered\nall refused')" ]
  run_application limits
  ends_with 0
  printed "^all taken$"
}

@test "each level of the log is that of its pool alone" {
  run_application levels 7 6 4 3 2 0
  ends_with 0
  levels=$(awk '/^level/ { level = $2 } /^forkd/ { print level, $2 }' log | sort -u | tr '\n' ';')
  [ "$levels" = "0 info:;6 info:;7 debug:;7 info:;" ]
}

@test "a pool knows nothing of those before it in the same process" {
  needs_virtual_time
  run_virtual_application pools
  ends_with 0
  # One was killed by a second signal, one took its time after the first, two gave up.
  [ "$(grep -v -e buffered -e hangs -e time out | tr '\n' ' ')" = "killed 3 lingers 0 fails 1 fails 1 stops 0 " ]
  starts=$(awk '/: forkd / { print n; n = 0 } /started$/ { n++ } END { print n }' log | tr '\n' ' ')
  [ "$starts" = " 1 1 5 5 1 " ]
}

@test "forkd_run may be called again, and leaves signals, mask and descriptors as they were; the manager is told of each pool" {
  background "$BIN/notify_sink" notify >>heard
  eventually grep -q listening heard
  NOTIFY_SOCKET=$PWD/notify run_application twice
  eventually grep -q READY=1 heard
  signal HUP
  eventually logged "reload complete"
  signal TERM
  eventually printed "^returned 0"
  eventually grep -q "READY=1 STATUS=3 of 3 workers healthy; last reload: none" heard
  signal INT
  ends_with 0
  [ "$(grep -c STOPPING=1 heard)" -eq 2 ]
  [ "$(grep -c '^returned 0$' out)" -eq 2 ]
  # Of HUP, INT, QUIT, TERM, USR1, USR2, CHLD, ...: i for ignored, h for the caller's own handler, and
  # the flags.
  printed "^before i[0-9]* .* h[0-9]* .* h[0-9]* .* term 1 usr1 0 open [0-9]*$"
  [ "$(sed -n 's/^between //p' out)" = "$(sed -n 's/^before //p' out)" ]
  [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^before //p' out)" ]
}

@test "many pools in one process leave no memory behind" {
  [ -r /proc/self/statm ] || skip "no /proc"
  case $LDFLAGS in *sanitize*) skip "a sanitizer keeps memory" ;; esac
  run_application leaks
  ends_with 0
  [ "$(sed -n 's/^grown by \(.*\) KiB$/\1/p' out)" -lt 500 ]
}

@test "a pool that finds no memory returns 1 and the reason, and leaves nothing behind" {
  [ -r /proc/self/statm ] || skip "no /proc"
  case $LDFLAGS in *sanitize*) skip "a sanitizer needs memory" ;; esac
  run_application memory-limit
  ends_with 0
  logged "critical: cannot make shared memory: "
  [ "$(sed -n 's/^returned //p' out | tr '\n' ' ')" = "1 0 " ]
  [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^before //p' out)" ]
}

@test "the caller's environment is as before when forkd_run returns, also where it has none" {
  for mode in environment no-environment; do
    rm -f out
    ONE=1 NOTIFY_SOCKET=/nowhere TWO='2 2' run_application $mode
    ends_with 0
    grep '^before ' out | sed 's/^before //' | sort >before
    grep '^after ' out | sed 's/^after //' | sort | diff before -
    case $mode in
      no-*)
        [ ! -s before ]
        [ "$(sed -n 's/^worker //p' out)" = "FORKD_WORKER=0" ]
        ;;
      *)
        { grep -v '^NOTIFY_SOCKET' before; echo FORKD_WORKER=0; } | sort >expected
        sed -n 's/^worker //p' out | sort | diff expected -
        ;;
    esac
  done
}

@test "a worker starts with the caller's mask, but for the signals that mean something to it" {
  hup=1 int=2 quit=3 term=15 alrm=14
  numbers="$hup $int $quit $alrm $term $(kill -l USR1) $(kill -l USR2)"
  run_application mask $numbers
  ends_with 0
  printed "^worker blocks $alrm$"
  printed "^caller blocks $(echo $numbers | tr ' ' '\n' | sort -n | tr '\n' ' ' | sed 's/ $//')$"
}

@test "a worker has the descriptors of the caller and none of the master's" {
  # A log in a pipe and a service manager need one more each.
  mkfifo pipe
  background cat pipe >>log
  NOTIFY_SOCKET=$PWD/nowhere "$BIN/with_archive" state >>out 2>pipe 3>&- &
  master=$!
  ends_with 0
  printed "^caller .* open"
  [ "$(sed -n 's/^worker.* open //p' out)" = "$(sed -n 's/^caller.* open //p' out)" ]
  [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^caller //p' out)" ]
}

@test "a signal that cannot be handled is an error, and leaves everything as it was" {
  command -v strace >/dev/null || skip "no strace"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  # The state is read by ten calls before: the first signal, the third and the last.
  for call in 11 13 20; do
    rm -f out
    run_traced rt_sigaction:error=EPERM:when=$call refused
    ends_with 0
    printed "^returned -1: Operation not permitted$"
    [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^before //p' out)" ]
    printed "^returned 0$"
  done
}

@test "a pool that a worker's child runs knows nothing of the pool around it" {
  run_application nested
  eventually printed "^inner pool 0$"
  inner=$(sed -n 's/^\(forkd.*\): info: shutting down/\1/p' log)
  [ "$inner" != "forkd[$master]" ]
  [ "$(grep -F "$inner" log | grep -c "started$")" -eq 1 ]
  stops_with 0
}

@test "a signal that comes when a pool has just ended is not one to the next" {
  command -v strace >/dev/null || skip "no strace"
  # With the end of the last worker, when the master has already looked which signals have come. (It looks
  # once for children when it begins.)
  run_traced waitid:signal=SIGTERM:when=2 levels 6 6
  ends_with 0
  logged_times 2 "started$"
  logged_times 2 "exited with status 0"
}

@test "the stop descriptors of workers and of their application have nothing to do with each other; threads get the same" {
  run_application stop
  ends_with 0
  printed "^returned 0$"
  printed "^readable 0$"
  command -v strace >/dev/null || skip "no strace"
  # Both are within it at the same time.
  run_traced pipe2:delay_enter=300000 stop-threads
  ends_with 0
  printed "^same 1$"
}

@test "the master's descriptors never take the places of 0, 1 and 2, where the application has none" {
  [ -e "/proc/$$/fd" ] || skip "no /proc"
  "$BIN/with_archive" run <&- >&- 2>&- 3>&- &
  master=$!
  eventually has_workers 2
  for fd in 0 1 2; do never test -e "/proc/$master/fd/$fd"; done
  stops_with 0
}

@test "getopt begins anew in a worker, wherever the application is in its own arguments" {
  run_application options -abc
  eventually printed "^worker finds abc$"
}

@test "in ps a worker has the application's name and its number, as far as there is room" {
  needs_linux "a process has its name"
  [ "$(uname)" = Linux ] || skip "Linux only"
  cp "$BIN/with_archive" a-very-long-name
  "./a-very-long-name" run >>out 2>>log 3>&- &
  master=$!
  eventually has_workers 2
  eventually is_called "$(pid_of 1)" a-very-long-n-1
}

@test "children of the application that are no workers are left to it, and where it does not want to wait they leave no zombies" {
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
  for way in "" no-wait; do
    rm -f log
    run_application silent $way
    eventually has_workers 2
    eventually no_others
    stops_with 0
  done
}
no_others() { [ "$(children "$master" | wc -l)" -eq 2 ]; }

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

@test "what the application forks when its pool has ended is a child like any other" {
  run_application later
  ends_with 0
  printed "^child "
  [ "$(sed -n 's/^child //p' out)" = "$(sed -n 's/^parent //p' out)" ]
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
  # What was read ahead from a pipe, which has no offset, is not lost.
  rm out log
  mkfifo pipe
  "$BIN/with_archive" reads >>out 2>>log 3>&- <pipe &
  master=$!
  cat numbers >pipe
  eventually logged_at_least 4 "exited with status 0"
  stops_with 0
  grep -v buffered out | cmp - numbers
}
