#!/usr/bin/env bats
# forkd_run: the pool in an application of one's own.

load helper

run_application() {
  "$BIN/$application" "$@" >>out 2>>log 3>&- &
  master=$!
}
application=with_archive

# run_traced INJECTION MODE ...: the same, while strace meddles with a system call.
run_traced() {
  strace -f -o trace -e trace="${1%%:*}" -e inject="$1" "$BIN/with_archive" "${@:2}" >>out 2>>log 3>&- &
  master=$!
}

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
  eventually printed_times 2 hangs
  stops_with 3
}

@test "the timeout works as in the tool" {
  run_application timeout
  eventually logged "worker 0 (pid [0-9]*) was ended by signal 6"
}

@test "bad options, bad arguments and a null function are EINVAL, and nothing is started" {
  run "$BIN/with_archive" errors
  echo "$output"
  [ "$output" = "$(printf 'buffered\nall refused')" ]
}

@test "the outermost options are taken, also after an error" {
  run_application limits
  ends_with 0
  printed "^all taken$"
}

@test "times of less than a millisecond are not nothing, which would mean never or for ever" {
  run_application tiny
  eventually logged_at_least 2 "was ended by signal 6"
  run_application grace 1e-9
  eventually logged_at_least 2 "worker 1 (pid [0-9]*) started"
  stops_with 3
}

@test "a grace period of 0 is the default one, and a negative one lasts for ever" {
  run_application grace -1
  for_ever=$master
  run_application grace 0
  eventually printed_times 4 hangs
  # The one that might end sooner is asked first.
  kill -TERM "$for_ever"
  eventually logged_times 1 "shutting down"
  stops_with 3
  logged_times 2 "is killed"
  kill -0 "$for_ever"
  kill -KILL $(living "$for_ever")
}

@test "the warm-up works as in the tool" {
  run_application warm-up
  eventually has_workers 2
  signal HUP
  eventually logged "reload complete"
  # By default it would be eight seconds for the trial alone.
  [ "$(sed -n 's/.*reload complete after \([0-9]*\)\..*/\1/p' log)" -lt 8 ]
}

@test "each level of the log is that of its pool alone" {
  run_application levels 7 6 4 3 2 0
  ends_with 0
  levels=$(awk '/^level/ { level = $2 } /^forkd/ { print level, $2 }' log | sort -u | tr '\n' ';')
  [ "$levels" = "0 info:;6 info:;7 debug:;7 info:;" ]
}

@test "a pool knows nothing of those before it in the same process" {
  run_application pools
  ends_with 0
  # One was killed by a second signal, one took its time after the first, two gave up.
  [ "$(grep -v -e buffered -e hangs out | tr '\n' ' ')" = "killed 3 lingers 0 fails 1 fails 1 stops 0 " ]
  starts=$(awk '/: forkd / { print n; n = 0 } /started$/ { n++ } END { print n }' log | tr '\n' ' ')
  [ "$starts" = " 1 1 5 5 1 " ]
}

@test "the service manager is told of each pool as of the first one" {
  background "$BIN/notify_sink" notify >>heard
  eventually grep -q listening heard
  NOTIFY_SOCKET=$PWD/notify run_application twice
  eventually grep -q READY=1 heard
  signal HUP
  eventually logged "reload complete"
  signal TERM
  eventually grep -q "READY=1 STATUS=3 of 3 workers healthy; last reload: none" heard
  signal TERM
  ends_with 0
  [ "$(grep -c STOPPING=1 heard)" -eq 2 ]
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
  logged "critical: cannot make the environment: "
  [ "$(sed -n 's/^returned //p' out | tr '\n' ' ')" = "1 1 0 " ]
  [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^before //p' out)" ]
}

@test "an application without any environment runs a pool" {
  run_application no-environment
  ends_with 0
  [ "$(grep -v buffered out)" = "FORKD_WORKER=0" ]
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
  # The state is read by ten calls before.
  run_traced rt_sigaction:error=EPERM:when=13 refused
  ends_with 0
  printed "^returned -1: Operation not permitted$"
  [ "$(sed -n 's/^after //p' out)" = "$(sed -n 's/^before //p' out)" ]
  printed "^returned 0$"
}

@test "a signal that comes when a pool has just ended is not one to the next" {
  command -v strace >/dev/null || skip "no strace"
  # With the end of the last worker, when the master has already looked which signals have come.
  run_traced waitid:signal=SIGTERM:when=1 levels 6 6
  ends_with 0
  logged_times 2 "started$"
  logged_times 2 "exited with status 0"
}

@test "the stop descriptors of workers and of their application have nothing to do with each other" {
  run_application stop
  ends_with 0
  printed "^returned 0$"
  printed "^readable 0$"
}

@test "threads that ask for the stop descriptor at the same time get the same" {
  command -v strace >/dev/null || skip "no strace"
  run_traced pipe2:delay_enter=300000 stop-threads
  ends_with 0
  printed "^same 1$"
}

@test "a command that another thread executes meanwhile has none of the master's descriptors" {
  [ -e "/proc/$$/fd" ] || skip "no /proc"
  mkfifo pipe
  background cat pipe >>log
  (
    for fd in 3 4 5 6 7 8 9; do eval "exec $fd>&-"; done
    NOTIFY_SOCKET=$PWD/nowhere exec "$BIN/with_archive" spawns sh -c '
      for fd in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$fd ] || echo open $fd; done; echo executed' >>out 2>pipe
  ) &
  master=$!
  eventually printed_times 2 "^worker"
  touch go
  eventually printed "^executed$"
  never printed "^open"
  stops_with 0
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

@test "children of an application that does not want to wait for them leave no zombies" {
  for way in "" no-wait; do
    rm -f log
    run_application silent $way
    eventually has_workers 2
    eventually no_others
    stops_with 0
  done
}
no_others() { [ "$(children "$master" | wc -l)" -eq 2 ]; }

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
  eventually has_workers 2
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
  logged "worker 0 (pid [0-9]*) has ended after [0-9.]* s or less, and the application has reaped it"
  stops_with 0
}

@test "a trial that fails is not passed because the application has reaped its worker" {
  echo good1 >config
  run_application steals config
  eventually printed_times 2 "^config good1"
  echo bad >config
  # The application is not always faster.
  failures=0
  while [ $((failures += 1)) -lt 50 ] && ! logged "reload failed: .*reaped"; do
    signal HUP
    eventually logged_at_least $failures "reload failed: worker 1024"
  done
  logged "reload failed: worker 1024 (pid [0-9]*) has ended after .*, and the application has reaped it before it was healthy"
  never logged "reload succeeded"
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
  # Its dispositions are the caller's (who may ignore some), so a signal does what it does elsewhere;
  # and USR2 has the handler that the application has set meanwhile.
  eventually printed "^later"
  sed -n 's/^start //p' out | awk '{ $6 = "h"; print }' >expected
  sed -n 's/^child //p' out | sed -n 1p | diff expected -
  printed "^child yields 1 number -1 stop 0$"
  printed "^child's own pool 0$"
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

@test "what the application forks when its pool has ended is a child like any other" {
  run_application later
  ends_with 0
  printed "^child d"
  [ "$(sed -n 's/^child //p' out)" = "$(sed -n 's/^parent //p' out)" ]
}

@test "what is forked at the moment when a pool begins can have one of its own, too" {
  command -v strace >/dev/null || skip "no strace"
  # The pool's thread is slow to find out which process it is.
  run_traced getpid:delay_enter=500000:when=1 early
  eventually printed "^child 0$"
  eventually logged "worker 1 (pid [0-9]*) started"
  kill -TERM "$(sed -n 's/^forkd\[\([0-9]*\)].*/\1/p' log | head -n 1)"
  eventually logged "worker 1 .*exited with status 0"
}

@test "a signal handler that is slow harms neither what is forked meanwhile nor files opened later" {
  case $LDFLAGS in *thread*) skip "the thread sanitizer delays signals" ;; esac
  command -v strace >/dev/null || skip "no strace"
  for thread in "" pool; do
    rm -f go file out
    run_traced write:delay_enter=400000:when=1 slow-handler $thread
    ends_with 0
    printed "^pool 0 child 0 file 0$"
  done
}

@test "what is forked while workers start and signals come can have a pool of its own" {
  case $LDFLAGS in *thread*) skip "the thread sanitizer delays signals" ;; esac
  run_application storm
  ends_with 0
  printed "^40 good children, pool 0$"
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
