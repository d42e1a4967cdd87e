#!/usr/bin/env bats
# Signals to the master and to workers.

load helper
load virtual

target_is() { [ "$(sed -n 's/.*the target is now //p' log | tail -n 1)" = "$1" ]; }

@test "USR1 adds a worker with the next number, USR2 asks the highest-numbered one to end, but never the last" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  signal USR1
  eventually has_workers 3
  eventually logged "worker 2 (pid [0-9]*) started"
  signal USR2
  eventually logged "worker 2 (pid [0-9]*) exited with status 0"
  eventually has_workers 2
  signal USR2
  eventually logged "worker 1 (pid [0-9]*) exited with status 0"
  signal USR2
  eventually logged "target stays 1"
  has_workers 1
  logged_times 2 exited
}

@test "USR1 adds no worker beyond the 1024th" {
  not_emulated "hundreds of emulators are too many"
  run_forkd -n 1024 "$W:never_yields"
  eventually logged started
  signal USR1
  eventually logged "target stays 1024"
  eventually has_workers 1024
}

@test "USR1 right after USR2 starts the number again as soon as its old process has ended" {
  run_forkd -n 2 "$W:first_yields" "$PWD/over"
  eventually printed_times 2 ready
  old=$(pid_of 1)
  signal USR2
  eventually target_is 1
  signal USR1
  eventually target_is 2
  # The old process is in a long task: it has the number.
  kill -0 "$old"
  [ "$(pid_of 1)" = "$old" ]
  touch over
  eventually is_replaced 1 "$old"
  logged "worker 1 (pid $old) exited with status 0"
}

@test "USR2 for a worker that is about to start, or waits in backoff, leaves no worker behind" {
  run_forkd -w 0 -n 3 "$W:crashes_without" exists
  eventually logged_at_least 6 "exited with status 1"
  signal USR2
  eventually target_is 2
  touch exists
  eventually has_workers 2
  signal USR1
  eventually has_workers 3
}

@test "INT, QUIT and TERM each shut the pool down with status 0" {
  for name in INT QUIT TERM; do
    run_forkd -n 2 "$W:steady"
    eventually has_workers 2
    signal $name
    ends_with 0
  done
}

@test "no task is ever cut in half by USR1, USR2, HUP and TERM, to the master or to every process of the pool" {
  run_forkd -w 0 -n 3 "$W:tasks" tally
  eventually test -s tally
  # As pkill sends it; a worker may just have ended.
  for round in 1 2 3; do kill -HUP "$master" $(living "$master") || :; done
  eventually logged "reload complete"
  eventually has_workers 3
  for name in USR1 USR2 HUP USR1 USR2 USR2 HUP USR1 HUP; do signal $name; done
  # How many of these were pending together, and so became one, nobody can know.
  eventually logged_at_least 2 "reload complete"
  stops_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
  logged_times 0 "ended by signal"
}

@test "no signal is lost however fast they come" {
  run_forkd -n 1 "$W:steady"
  eventually logged started
  # The kernel merges equal signals that are pending together; different ones it does not. So each
  # of these is acknowledged by its effect before the next one of its kind.
  for round in 1 2 3 4 5 6; do
    signal USR1
    eventually logged_times $round "target is now 2"
    signal USR2
    eventually logged_times $round "target is now 1"
  done
}

# taken_together SIGNAL ...: the master, which is stopped, finds them all when it goes on. (The kernel
# merges those that are equal.)
taken_together() {
  kill -STOP "$master"
  eventually is_state "$master" T
  for name; do signal "$name"; done
  kill -CONT "$master"
}

@test "signals that are taken together act in the order USR1, USR2, HUP, each of them once" {
  deploy one
  run_forkd -w 0 ./code.so:steady
  eventually logged started
  taken_together HUP USR2 USR1 HUP USR2 USR1
  eventually logged "reload complete"
  [ "$(sed -n 's/^.*: the target is now \(.\)$/\1/p; s/^.*: reload: trying .*/R/p' log | tr -d '\n')" = 21R ]
  logged_times 0 "target stays"
  # Of those that are taken together with a shutdown only that one acts, and all that ask for it are one.
  : >log
  taken_together USR1 HUP USR2 INT TERM
  ends_with 0
  logged_times 1 "shutting down"
  logged_times 0 "target\|reload: trying"
}

# strace has stopped so many processes. (That they are traced hides the T.)
stops() { [ "$(grep -c -e 'stopped by SIGSTOP' trace)" -ge "$1" ]; }
# held_after LINES: the master has written so many lines and is stopped.
held_after() { eventually stops "$1" && logged_times "$1" ""; }

@test "each of several equal signals counts, when they come while the master is at work; a child that stops is none" {
  not_emulated "strace sees the emulator"
  command -v strace >/dev/null || skip "no strace"
  # After each line the master is stopped.
  strace -o trace -P "$PWD/log" -e trace=write -e inject=write:signal=STOP "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  held_after 1
  master=$(sed -n 's/^forkd\[\([0-9]*\)].*/\1/p' log)
  kill -CONT "$master"
  held_after 2
  logged "worker 0 (pid [0-9]*) started"
  worker=$(pid_of 0)
  # Whatever it is about to do next, none is lost.
  for lines in 3 4 5; do
    signal USR1
    kill -CONT "$master"
    held_after $lines
  done
  for lines in 6 7 8; do
    kill -CONT "$master"
    held_after $lines
  done
  logged "target is now 4"
  logged_times 4 started
  kill -CONT "$master"
  kill -STOP "$worker"
  eventually is_state "$worker" T
  signal USR1
  held_after 9
  [ "$(grep -c SIGCHLD trace)" -eq 0 ]
}

@test "HUP, INT, QUIT and TERM to a worker end it at its next yield, and it is replaced at once; USR1 and USR2 do nothing" {
  run_forkd -n 6 -l debug "$W:steady"
  eventually has_workers 6
  signals_mean_what_they_shall
  logged_times 0 "warning"
}

@test "signals to workers that have just been forked mean what they mean later" {
  command -v strace >/dev/null || skip "no strace"
  needs_linux "its first system call is known"
  # Each worker is stopped before it has handlers of its own.
  strace -f -o trace -e trace=prctl -e inject=prctl:signal=STOP:when=1 "$FORKD" -g 1000 -n 6 "$W:steady" >>out 2>>log 3>&- &
  eventually logged_times 6 "started$"
  eventually stops 6
  signals_mean_what_they_shall
  logged_times 0 "warning"
}

signals_mean_what_they_shall() {
  local number=0 name pids=
  for name in HUP INT QUIT TERM USR1 USR2; do
    pids="$pids $(pid_of $number)"
    kill -s $name "$(pid_of $number)"
    number=$((number + 1))
  done
  kill -CONT $pids
  set -- $pids
  for number in 0 1 2 3; do
    eventually logged "info: worker $number (pid $1) exited with status 0"
    eventually is_replaced $number "$1"
    shift
  done
  eventually is_state "$1" S
  eventually is_state "$2" S
  [ "$1 $2" = "$(pid_of 4) $(pid_of 5)" ]
}

# The byte comes when the signal has had its effect: a read that finds it there is not interrupted.
has_taken_signals() { [ ! -r "/proc/$1/status" ] || [ "$(mask ShdPnd "/proc/$1/status")" -eq 0 ]; }

term_interrupts() {
  kill -TERM "$(pid_of 0)" 2>/dev/null || :
  printed "read failed: Interrupted system call"
}

# A byte is a task for one of the readers, whichever is first.
feed_until_ended() {
  printf 'a' >&8
  logged "worker 1 (pid [0-9]*) exited with status 0"
}

@test "HUP, INT, QUIT and a request by USR2 leave a worker's blocking read alone, TERM interrupts it" {
  mkfifo fifo
  exec 8<>fifo
  run_forkd -n 2 "$W:reads" fifo
  eventually printed_times 2 reading
  signal USR2
  eventually logged "target is now 1"
  eventually feed_until_ended
  for name in HUP INT QUIT; do
    # Within its read.
    first=$(pid_of 0)
    eventually is_state "$first" S
    tasks=$(grep -c "task a" out || :)
    kill -s $name "$first"
    eventually has_taken_signals "$first"
    eventually feed_until_replaced 0 "$first"
    eventually printed_times $((tasks + 1)) "task a"
    eventually printed "^reading"
  done
  never printed "read failed"
  second=$(pid_of 0)
  # Not once: one may come when it does not read yet, and a byte that is left then ends it.
  eventually term_interrupts
  eventually is_replaced 0 "$second"
  exec 8>&-
}
feed_until_replaced() {
  printf 'a' >&8
  is_replaced "$@"
}

@test "USR1 and USR2 to every process of the pool, as pkill sends them, harm no worker" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  before="$(pid_of 0) $(pid_of 1)"
  kill -USR1 "$master" $before
  eventually has_workers 3
  kill -USR2 "$master" $before
  eventually has_workers 2
  [ "$before" = "$(pid_of 0) $(pid_of 1)" ]
}

@test "forkd handles its signals also where the caller ignored or blocked them, and SIGPIPE, SIGXFSZ and SIGTTOU never harm it" {
  (
    trap '' HUP INT QUIT TERM USR1 USR2 CHLD
    exec "$FORKD" "$W:steady" >>out 2>>log 3>&-
  ) &
  master=$!
  eventually logged started
  for name in PIPE XFSZ TTOU; do signal $name; done
  signal USR1
  eventually has_workers 2
  old=$(pid_of 0)
  kill -HUP "$old"
  eventually is_replaced 0 "$old"
  signal INT
  ends_with 0
}

# As many USR2 as it takes to come down to one, whatever the kernel has merged.
down_to_one() {
  for i in $(seq 50); do signal USR2; done
  has_workers 1
}

@test "signals from several senders at once leave a pool of the right size" {
  # It runs handlers later, with all signals blocked, and where two of these overlap they stay blocked.
  case $LDFLAGS in *-fsanitize=thread*) skip "the thread sanitizer may leave all signals blocked" ;; esac
  run_forkd -n 4 -l warning "$W:steady"
  eventually has_workers 4
  for sender in 1 2 3; do
    (for i in $(seq 200); do
      kill -USR1 "$master"
      kill -USR2 "$master"
      kill -CHLD "$master"
    done) 3>&- &
    senders="$senders $!"
  done
  wait $senders
  eventually down_to_one
  # Any USR2 that is still under way would take the next USR1 back.
  eventually has_taken_signals "$master"
  eventually is_state "$master" S
  for n in 2 3 4; do
    signal USR1
    eventually has_workers $n
  done
}
