#!/usr/bin/env bats
# Signals to the master and to workers.

load helper

has_child() { [ -n "$(living "$master")" ]; }
target_is() { [ "$(sed -n 's/.*the target is now //p' log | tail -n 1)" = "$1" ]; }

@test "USR1 adds a worker with the next number" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  signal USR1
  eventually has_workers 3
  eventually logged "worker 2 (pid [0-9]*) started"
}

@test "USR2 asks the highest-numbered worker to end" {
  run_forkd -n 3 "$W:steady"
  eventually has_workers 3
  signal USR2
  eventually has_workers 2
  eventually logged "worker 2 (pid [0-9]*) exited with status 0"
}

@test "USR2 never removes the last worker" {
  run_forkd "$W:steady"
  eventually logged started
  signal USR2
  eventually logged "target stays 1"
  has_workers 1
  logged_times 0 exited
}

@test "USR1 adds no worker beyond the 1024th" {
  not_emulated "hundreds of emulators are too many"
  run_forkd -n 1024 -l warning sleep 1000
  eventually has_child
  signal USR1
  eventually logged "target stays 1024"
  eventually has_workers 1024
}

@test "USR1 right after USR2 starts the number again as soon as its old process has ended" {
  run_forkd -n 2 "$W:blocked"
  eventually has_workers 2
  old=$(pid_of 1)
  signal USR2
  eventually target_is 1
  signal USR1
  eventually target_is 2
  # The old process is in a long task: it has the number.
  kill -0 "$old"
  [ "$(pid_of 1)" = "$old" ]
  kill -TERM "$old"
  eventually is_replaced 1 "$old"
  has_workers 2
}

@test "USR2 for a worker that is about to start, or waits in backoff, leaves no worker behind" {
  run_forkd -n 3 "$W:crashes_without" exists healthy
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

@test "no task is ever cut in half by USR1, USR2, HUP and TERM" {
  run_forkd -n 4 "$W:tasks" tally
  eventually test -s tally
  for name in USR1 USR2 HUP USR1 USR2 USR2 HUP USR1 HUP; do signal $name; done
  eventually logged "reload succeeded"
  stops_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
  logged_times 0 "ended by signal"
}

@test "no signal is lost however fast they come" {
  run_forkd -n 1 "$W:steady"
  eventually logged started
  # The kernel merges equal signals that are pending together; different ones it does not. So each
  # of these is acknowledged by its effect before the next one of its kind.
  for round in 1 2 3 4 5 6 7 8 9 10; do
    signal USR1
    eventually target_is 2
    signal USR2
    eventually target_is 1
  done
  logged_times 10 "target is now 2"
  logged_times 10 "target is now 1"
}

@test "USR1 acts before USR2 when both are taken together" {
  run_forkd -n 1 "$W:steady"
  eventually logged started
  kill -STOP "$master"
  eventually is_state "$master" T
  signal USR2
  signal USR1
  kill -CONT "$master"
  eventually logged "target is now 1"
  logged_times 0 "target stays 1"
}

# taken_together SIGNAL ...: the master, which is stopped, finds them all when it goes on.
taken_together() {
  kill -STOP "$master"
  eventually is_state "$master" T
  for name; do signal "$name"; done
  kill -CONT "$master"
}

@test "signals that are taken together act in the order USR1, USR2, HUP, each of them once" {
  deploy one
  run_forkd -n 2 ./code.so:steady
  eventually logged_times 2 started
  # The kernel merges those that are equal.
  taken_together HUP USR2 USR1 HUP USR2 USR1
  eventually logged "reload complete"
  [ "$(sed -n 's/^.*: the target is now \(.\)$/\1/p; s/^.*: reload: trying .*/R/p' log | tr -d '\n')" = 32R ]
  logged_times 0 "already"
}

@test "what is taken together with a shutdown is ignored" {
  run_forkd -n 2 "$W:steady"
  eventually logged_times 2 started
  taken_together USR1 HUP USR2 TERM
  ends_with 0
  logged_times 1 "shutting down"
  logged_times 0 "target\|reload"
}

@test "each of several equal signals counts, when they come while the master is at work" {
  command -v strace >/dev/null || skip "no strace"
  # After each line the master is held up for a while.
  strace -o trace -e trace=write -e inject=write:delay_exit=300000 "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  tracer=$!
  eventually logged "worker 0 (pid [0-9]*) started"
  master=$(living "$tracer")
  signal USR1
  eventually logged "target is now 2"
  signal USR1
  eventually logged "worker 1 (pid [0-9]*) started"
  signal USR1
  eventually target_is 4
  signal TERM
  eventually gone_or_zombie "$tracer"
}

@test "a signal disturbs nothing in the master: errno, a read, a pipe that is full" {
  not_emulated "it runs what the tests have built"
  "$BIN/handlers"
}

@test "what an application has set up for its signals is as before at the end, and when there was no begin" {
  not_emulated "it runs what the tests have built"
  "$BIN/handlers" restore
  command -v strace >/dev/null && [ -z "$LDFLAGS" ] || return 0
  strace -o trace -e trace=rt_sigaction "$BIN/handlers" restore
  calls=$(grep -n '^rt_sigaction([A-Z0-9]*, {[^}]*SA_NOCLDSTOP[^}]*}, {' trace | cut -d: -f1)
  [ "$(echo "$calls" | wc -l)" -ge 10 ]
  for call in $(echo "$calls" | sed -n '1p;2p;$p'); do
    run strace -o trace -e trace=rt_sigaction -e inject=rt_sigaction:error=EINVAL:when="$call" "$BIN/handlers" restore
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$output" = "Invalid argument" ]
  done
}

@test "HUP, INT, QUIT and TERM to a worker itself end it at its next yield, and it is replaced at once" {
  run_forkd -n 1 -l debug "$W:steady"
  for name in HUP INT QUIT TERM; do
    eventually has_workers 1
    old=$(pid_of 0)
    kill -s $name "$old"
    eventually is_replaced 0 "$old"
    logged "worker 0 (pid $old) exited with status 0"
  done
}

term_interrupts() {
  kill -TERM "$1" 2>/dev/null || :
  printed "read failed: Interrupted system call"
}

# The byte comes when the signal has had its effect: a read that finds it there is not interrupted.
has_taken_signals() { [ ! -r "/proc/$1/status" ] || [ "$(mask ShdPnd "/proc/$1/status")" -eq 0 ]; }

@test "HUP, INT and QUIT leave a worker's blocking read alone, TERM interrupts it" {
  mkfifo fifo
  run_forkd "$W:reads" fifo
  exec 8<>fifo
  count=0
  for name in HUP INT QUIT; do
    count=$((count + 1))
    eventually printed_times $count reading
    first=$(pid_of 0)
    eventually is_state "$first" S
    kill -s $name "$first"
    eventually has_taken_signals "$first"
    printf 'a' >&8
    eventually printed_times $count "task a"
    eventually is_replaced 0 "$first"
  done
  never printed "read failed"
  second=$(pid_of 0)
  eventually printed_times 4 reading
  # Not once: the first one may come when it has said that it reads, but does not yet.
  eventually term_interrupts "$second"
  eventually is_replaced 0 "$second"
  exec 8>&-
}

@test "a request by USR2 or HUP does not interrupt a worker's system call" {
  mkfifo fifo
  run_forkd -n 2 "$W:reads" fifo
  eventually printed_times 2 reading
  exec 8<>fifo
  signal USR2
  eventually target_is 1
  eventually feed_until_ended
  never printed "read failed"
  exec 8>&-
}

# A byte is a task for one of the two readers, whichever is first.
feed_until_ended() {
  printf 'a' >&8
  logged "worker 1 (pid [0-9]*) exited with status 0"
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

@test "HUP to every process of the pool, as pkill sends it, loses no worker and no task" {
  run_forkd -n 3 "$W:tasks" tally
  eventually test -s tally
  for round in 1 2 3; do kill -HUP "$master" $(living "$master"); done
  eventually logged "reload succeeded"
  eventually has_workers 3
  stops_with 0
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
}

@test "forkd handles its signals also where the caller ignored or blocked them" {
  (
    trap '' HUP INT QUIT TERM USR1 USR2 CHLD
    exec "$FORKD" "$W:steady" >>out 2>>log 3>&-
  ) &
  master=$!
  eventually logged started
  signal USR1
  eventually has_workers 2
  old=$(pid_of 0)
  kill -HUP "$old"
  eventually is_replaced 0 "$old"
  signal INT
  ends_with 0
}

@test "neither SIGPIPE nor SIGXFSZ nor SIGTTOU ends or stops the master" {
  run_forkd "$W:steady"
  eventually logged started
  signal PIPE
  signal XFSZ
  signal TTOU
  signal USR1
  eventually has_workers 2
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
  for n in 2 3 4; do
    signal USR1
    eventually has_workers $n
  done
}
