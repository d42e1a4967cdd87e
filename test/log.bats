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

@test "a time is given to the millisecond" {
  run_forkd "$W:returns" 1
  ends_with 1
  [ "$(grep -c ' after ' log)" -ge 5 ]
  never grep -v ' after [0-9]*\.[0-9][0-9][0-9] s\|runs\|started\|giving up' log
}

# something_of_each LEVEL: a pool with events of all levels but the highest, down to LEVEL.
something_of_each() {
  : >log
  case $1 in default) start_one ;; *) start_one -l "$1" ;; esac
  eventually has_workers 1
  kill -KILL "$(living "$master")"
  eventually logged_or_less_important "$1" "was ended by signal 9"
  eventually has_workers 1
  echo junk >next.so
  mv next.so code.so
  signal HUP
  eventually logged "reload failed"
  stops_with 0
}
logged_or_less_important() { [ "$1" = error ] || logged "$2"; }

@test "a level leaves out what is less important, and nothing else" {
  for level in "debug debug error info warning" "info error info warning" "default error info warning" "warning error warning" "error error"; do
    something_of_each "${level%% *}"
    [ "$(sed 's/^forkd\[[0-9]*\]: \([a-z]*\): .*/\1/' log | sort -u | tr '\n' ' ')" = "${level#* } " ]
  done
  run_forkd -l critical ./nowhere.so:run
  ends_with 1
  [ "$(tail -n +2 log)" = "forkd[$master]: critical: cannot load ./nowhere.so:run: No such file or directory" ]
}

@test "no control character in a name breaks a line, and other characters stay" {
  run_forkd $'./a\tb\n\033\177 ~é.so:run'
  ends_with 1
  logged_times 2 "^forkd\[$master\]: .* ./a?b??? ~é.so:run\(, workers\|: No such file\)"
  [ "$(wc -l <log)" -eq 2 ]
  rm log
  run_forkd $'no\nsuch\rcommand'
  ends_with 1
  logged "cannot execute 'no?such?command'"
  never grep -v "^forkd\[$master\]: " log
}

@test "a line that is too long is cut, and ends where the next one begins" {
  run_forkd "./$(printf '%04000d' 0):run"
  ends_with 1
  [ "$(wc -l <log)" -eq 2 ]
  never grep -v "^forkd\[$master\]: [a-z]*: .*0000000000" log
  [ "$(awk '{ print (length >= 1000 && length < 1280) }' log | sort -u)" = 1 ]
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

# The last line of such a file may be cut; what comes then is lost, until there is room again.
@test "each line is written, or cut by the limit of the file, or counted once" {
  background sh -c 'ulimit -f 1 && exec "$0" "$1"' "$FORKD" "$W:steady" 2>>log
  master=$background
  eventually logged started
  for n in $(seq 2 24); do
    signal USR1
    eventually has_workers "$n"
  done
  # Each line is longer than 40 bytes, and at most 1024 of them are in the file.
  cp log first
  : >log
  signal USR1
  eventually logged "worker 24 (pid [0-9]*) started"
  signal USR2
  eventually logged "target is now 24"
  cut=0
  if [ -n "$(tail -c 1 first)" ]; then
    cut=1
    [ -z "$(head -n 1 log)" ]
  fi
  [ "$(grep -c '^$' log || :)" -eq "$cut" ]
  logged_times 1 "^forkd\[$master\]: warning: [1-9][0-9]* log lines were dropped$"
  dropped=$(sed -n 's/.* \([0-9]*\) log lines were dropped/\1/p' log)
  # That it runs, that 25 workers have started, and 25 targets.
  whole=$(cat first log | grep -c '^forkd.* \(runs .*: 1\|started\|is now [0-9]*\)$')
  echo "$whole whole, $cut cut, $dropped dropped"
  [ $((whole + cut + dropped)) -eq 51 ]
  stops_with 0
}

@test "a single line that is lost is counted, too" {
  command -v strace >/dev/null || skip "no strace"
  for how in error=EAGAIN retval=0; do
    rm -f log
    strace -o trace -e trace=write -e inject="write:$how:when=1" "$FORKD" "$W:returns" 1 >>out 2>>log 3>&- &
    background=$!
    wait "$background" || :
    head -n 1 log | grep "^forkd\[[0-9]*\]: warning: 1 log lines were dropped$"
    sed -n 2p log | grep "^forkd\[[0-9]*\]: info: worker 0 (pid [0-9]*) started$"
    logged_times 1 dropped
    logged_times 0 '^$'
  done
}

# slow_log MODE [COMMAND ...]: where the log would block, this does.
slow_log() {
  local mode=$1 status=0
  shift
  background "$@" "$BIN/slow_log" "$mode" >reason
  eventually gone_or_zombie "$background" || return
  wait "$background" || status=$?
  cat reason
  return "$status"
}

@test "a pipe, a socket and a terminal that nobody reads hold nobody up, and the count is told" {
  for kind in pipe socket terminal; do slow_log $kind; done
}

@test "a write that blocks is cut short, and leaves SIGALRM and its timer to the application" {
  slow_log alarm
  command -v strace >/dev/null || return 0
  # The timer expires before the write has begun, and again before it is stopped.
  slow_log alarm strace -f -o trace -e trace=write,setitimer -e inject=write,setitimer:delay_enter=20000
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

@test "what keeps the master from coming up is said at -l critical, too" {
  run_forkd -l critical "$BIN/undefined.so:steady"
  ends_with 1
  logged_times 1 "critical: worker 0 .*could not start: cannot load "
  run_forkd -l critical no-such-command
  ends_with 1
  logged_times 1 "critical: .*cannot execute 'no-such-command'"
}

@test "under journald a line begins with its priority" {
  : >log
  JOURNAL_STREAM=$(stat -c %d:%i log) run_forkd "$W:steady"
  eventually logged "^<6>worker 0 (pid [0-9]*) started$"
  never logged "forkd\["
  stops_with 0
  JOURNAL_STREAM=$(stat -c %d:%i log) something_of_each debug
  [ "$(sed 's/^\(<.>\)[a-z].*/\1/' log | sort -u | tr '\n' ' ')" = "<3> <4> <6> <7> " ]
  JOURNAL_STREAM=$(stat -c %d:%i log) run_forkd ./nowhere.so:run
  ends_with 1
  logged "^<2>cannot load"
}

@test "a JOURNAL_STREAM that is not standard error changes nothing" {
  : >log
  for stream in 1:2 '' "$(stat -c %d:%i log)0" "0$(stat -c %d:%i log)" "$(stat -c %d: log)" "$(stat -c 1%d:%i log)" "$(stat -c %d:1%i log)"; do
    JOURNAL_STREAM=$stream run_forkd ./nowhere.so:run
    ends_with 1
    never grep -v "^forkd\[[0-9]*\]: [a-z]*: " log
  done
}

@test "a line that went out in part is ended before the next one" {
  command -v strace >/dev/null || skip "no strace"
  # The first line: five bytes of it are out, as far as the master knows.
  strace -o trace -e trace=write -e inject=write:retval=5:when=1 "$FORKD" -n 2 "$W:returns" 1 >>out 2>>log 3>&- &
  background=$!
  wait "$background" || :
  # The line is not there, and the one after it begins with the newline.
  [ -z "$(head -n 1 log)" ]
  [ "$(grep -c '^$' log)" -eq 1 ]
}

@test "a log that poll(2) takes for no open file, as macOS does with terminals, is written all the same" {
  case $CPPFLAGS in *-DFORKD_PORTABLE*) ;; *) skip "only a portable build asks poll here" ;; esac
  # What is written over: descriptor 2, POLLOUT, POLLNVAL.
  invalid=inject=poll:retval=1:poke_exit=@arg1=0200000004002000:when=1
  strace -e "$invalid" true 2>/dev/null || skip "no strace that can change what a call returns"
  strace -o trace -e trace=poll -e "$invalid" "$FORKD" no-such-command 2>&1 >>out | cat >log
  grep -q POLLNVAL trace
  logged "info: forkd .* runs no-such-command"
  never logged dropped
}

@test "a pipe that another user made, and that is full, does not stall the master" {
  command -v setpriv >/dev/null && [ "$(id -u)" -eq 0 ] || skip "needs root and setpriv"
  command -v strace >/dev/null || skip "no strace"
  mkfifo -m 600 pipe
  exec 8<>pipe
  public=$(mktemp -d)
  cp "$FORKD" "$public/forkd"
  chmod -R a+rx "$public"
  # Each write of the master comes a while after poll(2) has said that there is room.
  strace -o trace -e trace=write -e inject=write:delay_enter=500000 setpriv --reuid=65534 --clear-groups \
    "$public/forkd" -g 0.5 sh -c 'while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; done' >>out 2>pipe 3>&- 8>&- &
  tracer=$!
  eventually has_a_child_of_its_own "$tracer"
  master=$(living "$tracer")
  worker=$(living "$master")
  eventually is_state "$worker" S
  kill -STOP "$worker"
  # Two pages are free; when the master has seen that, the worker takes them.
  dd bs=4096 count=2 <&8 >/dev/null 2>&1
  kill -USR1 "$master"
  background sleep 0.25
  wait "$background"
  kill -CONT "$worker"
  background sleep 0.5
  wait "$background"
  kill -TERM "$master"
  eventually gone_or_zombie "$tracer"
  exec 8>&-
  rm -r "$public"
}
has_a_child_of_its_own() { [ -n "$(living "$1")" ] && [ -n "$(living "$(living "$1")")" ]; }
