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
  kill -KILL "$(sed -n 's/.*worker 0 (pid \([0-9]*\)) started/\1/p' log)"
  eventually logged "^<4>worker 0 "
}

@test "a JOURNAL_STREAM that is not standard error changes nothing" {
  JOURNAL_STREAM=1:2 run_forkd "$W:steady"
  eventually logged "^forkd\[$master\]: info: worker 0 (pid [0-9]*) started$"
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
