#!/usr/bin/env bats
# The roll: how a reload replaces the old workers once the new code has passed its trial.

load helper

# weakest: how many workers were ready at the worst moment, from when all of a pool of $1 were.
weakest() {
  awk -v target="$1" '
    /^ready/ { ready++ }
    /^let go/ { ready-- }
    ready == target && !full { full = 1; least = target }
    full && ready < least { least = ready }
    END { print full ? least : "never full" }' tally
}

# stays_at COUNT: the pool was never weaker than that. To be asked before it is shut down.
stays_at() {
  local least
  least=$(weakest "$2")
  echo "weakest: $least of $2"
  [ "$least" -ge "$1" ]
}
ready() { [ "$(grep -c "^ready $1" tally)" -ge "$2" ]; }

# roll_beside_a_busy_worker OPTION ...: a pool of version 1, whose worker 0 stays within its task while
# the file "stay" exists, gets version 2.
roll_beside_a_busy_worker() {
  deploy one
  run_forkd -g 1000 "$@" ./code.so:first_busy stay
  eventually runs 1 1
  touch stay
  eventually printed "^busy"
  deploy two
  signal HUP
}

@test "a pool of up to seven keeps its full strength" {
  for target in 1 4 7; do
    rm -f tally log
    deploy one
    run_forkd -n $target ./code.so:sets_up 150 tally
    eventually ready 1 $target
    deploy two
    signal HUP
    eventually logged "reload complete"
    ready 2 $((target + 1))
    stays_at $target $target
    never logged "stands still"
    stops_with 0
  done
}

@test "a larger pool keeps more than three quarters of it, and is replaced a quarter at a time" {
  deploy one
  run_forkd -n 16 ./code.so:sets_up 300 tally
  eventually ready 1 16
  deploy two
  signal HUP
  eventually logged "reload complete"
  eventually ready 2 17
  stays_at 13 16
  # Four at a time are four rounds, not sixteen: each takes as long as the code needs to set itself up.
  took=$(sed -n 's/.*reload complete after \([0-9]*\).*/\1/p' log)
  [ "$took" -lt 5 ]
}

@test "workers that wait by the stop descriptor are let go a few at a time, the oldest first" {
  deploy one
  # Two at a time; and when one is left, it goes alone.
  run_forkd -n 9 ./code.so:sets_up 150 tally 0
  eventually ready 1 9
  deploy two
  signal HUP
  eventually logged "reload complete"
  ready 2 10
  stays_at 8 9
  logged_times 19 "started$"
  stops_with 0
  # The oldest one does not always have the lowest number.
  rm -f tally log
  deploy one
  run_forkd -n 3 -l debug ./code.so:sets_up 0 tally 0
  eventually ready 1 3
  kill -TERM "$(pid_of 0)"
  eventually ready 1 4
  deploy two
  signal HUP
  eventually logged "reload complete"
  sed -n 's/.*worker \([0-9]*\) (pid .*is asked to end$/\1/p' log | head -n 3 | tr '\n' ' ' >order
  [ "$(cat order)" = "1 2 0 " ]
}

@test "a last task may take a while, which is eight seconds with -g 0, before others are let go, too" {
  deploy one
  run_forkd -n 2 -g 0 ./code.so:sets_up 150 tally 1300
  eventually ready 1 2
  deploy two
  signal HUP
  eventually logged "reload complete"
  stays_at 2 2
}

@test "a worker that asks for the stop descriptor in the middle of a roll is asked to end, too" {
  deploy one
  touch stay
  run_forkd -g 1000 ./code.so:polls_late stay
  eventually printed "^busy"
  deploy two
  signal HUP
  eventually logged "reload succeeded"
  rm stay
  eventually logged "reload complete"
}

@test "a worker that was removed before the roll ends when its task does" {
  deploy one
  run_forkd -n 2 -g 1000 ./code.so:first_busy stay 1
  eventually runs 1 2
  touch stay
  eventually printed "^busy"
  signal USR2
  eventually logged "the target is now 1"
  deploy two
  signal HUP
  eventually logged "reload complete"
  rm stay
  eventually logged "worker 1 (pid [0-9]*) exited with status 0"
  eventually has_workers 1
}

@test "commands are let go one after the other, each when the one before is healthy" {
  cat >job.sh <<'END'
trap 'echo "let go 1" >>tally; exit 0' TERM
echo "ready 1" >>tally
while :; do sleep 0.02; done
END
  run_forkd -n 3 -w 0.5 sh job.sh
  eventually ready 1 3
  old=$(living "$master")
  signal HUP
  eventually logged "reload complete after"
  for pid in $old; do never kill -0 "$pid"; done
  stays_at 3 3
  # A trial and three rounds, of at least the warm-up each.
  took=$(sed -n 's/.*reload complete after \([0-9]*\).*/\1/p' log)
  [ "$took" -ge 2 ]
  eventually has_workers 3
}

@test "a worker that was let go is told so at each further yield, and by the stop descriptor" {
  deploy one
  run_forkd ./code.so:asks_again
  eventually runs 1 1
  deploy two
  signal HUP
  eventually printed "^again 0 readable 1$"
  eventually logged "reload complete"
}

@test "a last task that takes longer than the grace period does not hold up the others" {
  deploy one
  touch stay
  run_forkd -g 0.5 -n 3 ./code.so:first_lingers stay
  eventually runs 1 3
  first=$(pid_of 0)
  deploy two
  signal HUP
  eventually runs 2 3
  eventually is_replaced 1 "$(first_pid_of 1)"
  eventually is_replaced 2 "$(first_pid_of 2)"
  [ "$(pid_of 0)" = "$first" ]
  # Until that has ended, too, the reload is not complete.
  background sleep 0.3
  wait "$background"
  never logged "reload complete"
  rm stay
  eventually logged "reload complete"
  never logged killed
}

@test "code that hangs while it is loaded under a number holds up nothing" {
  start_one -n 2 -g 0.3 -w 0.5
  eventually runs 1 2
  deploy hang_0
  signal HUP
  eventually logged "reload succeeded"
  eventually logged "worker 0 (pid [0-9]*) has not ended and is killed"
  eventually logged_times 1 "error: reload stands still: worker 0 "
  never logged "reload complete"
  deploy two
  signal HUP
  eventually logged "reload complete"
  eventually is_replaced 1 "$(first_pid_of 1)"
  eventually has_workers 2
}

@test "code that fails under a number stands still there, which is said once, and the others keep theirs" {
  deploy one
  run_forkd -n 3 ./code.so:fails_in_two 1
  eventually runs 1 3
  first=$(pid_of 0) third=$(pid_of 2)
  deploy two
  signal HUP
  eventually logged_at_least 4 "worker 1 (pid [0-9]*) exited with status 5"
  logged_times 1 "error: reload stands still: worker 1 (pid [0-9]*) exited with status 5 after .*; the others keep their code"
  # After the second failure.
  [ "$(sed '/stands still/q' log | grep -c 'warning: worker 1 (pid [0-9]*) exited with status 5')" -eq 2 ]
  # Whichever had its turn before worker 1 runs the new code, but not all do.
  never logged "reload complete"
  # That the next reload stands still is said, too.
  deploy two
  signal HUP
  eventually logged_times 2 "reload succeeded"
  eventually logged_times 2 "error: reload stands still: worker 1 "
  # The cure is a reload like any other.
  deploy one
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 3
  logged_times 2 "stands still"
}

@test "failures of the old code are none of the new code, which may fail once" {
  deploy one
  touch fail
  run_forkd -n 2 ./code.so:fails_once_in_two 1
  eventually logged_at_least 2 "worker 1 (pid [0-9]*) exited with status 5"
  deploy two
  signal HUP
  eventually logged "reload complete"
  [ ! -e fail ]
  never logged "stands still"
}

@test "an old worker that never became healthy is not said to hold up the roll, a new one is" {
  deploy one
  run_forkd -n 2 -t 1000 -g 0.3 -w 0.3 ./code.so:first_silent fail
  eventually runs 1 2
  deploy two
  signal HUP
  eventually logged "reload succeeded"
  eventually lived "$(first_pid_of 0)" 2
  never logged "stands still"
  # Its death is no failure of the new code, which fails once and then does not yield either.
  touch fail
  kill -KILL "$(pid_of 0)"
  eventually logged "worker 0 (pid [0-9]*) exited with status 5"
  eventually logged "error: reload stands still: worker 0 (pid [0-9]*) does not become healthy; the others keep their code"
  logged_times 1 "stands still"
  logged "stands still: worker 0 (pid $(pid_of 0)) "
}
lived() { [ "$(ps -o etimes= -p "$1")" -ge "$2" ]; }

@test "code that returns 0 at once is replaced by code that takes its time, which is waited for" {
  deploy one
  run_forkd -n 2 ./code.so:quick_in_one 700 tally
  eventually logged_at_least 4 "exited with status 0"
  deploy two
  signal HUP
  eventually logged "reload complete"
  ready 2 3
}

@test "an old worker that dies during the roll is replaced at once on the new code" {
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  runs 2 2
  kill -KILL "$(pid_of 0)"
  eventually logged "reload complete"
  eventually has_workers 2
  eventually runs 2 3
}

@test "the extra worker of a roll that dies is replaced on the pool's code" {
  roll_beside_a_busy_worker
  eventually logged "reload succeeded"
  kill -KILL "$(pid_of 1024)"
  eventually runs 2 2
  eventually has_workers 2
  rm stay
  eventually logged "reload complete"
  eventually has_workers 1
}

@test "USR1 and USR2 work during a roll, and the target that they set survives" {
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  signal USR1
  eventually logged "the target is now 3"
  eventually runs 2 3
  signal USR1
  eventually logged "the target is now 4"
  signal USR2
  eventually logged_times 2 "the target is now 3"
  eventually has_workers 4
  rm stay
  eventually logged "reload complete"
  eventually has_workers 3
  never runs 1 3
}

@test "HUP during a roll does nothing new while the file is the same" {
  roll_beside_a_busy_worker
  eventually logged "reload succeeded"
  signal HUP
  eventually logged "already under way, and the file is the same"
  rm stay
  eventually logged "reload complete"
  logged_times 1 "reload: trying"
}

@test "a file is another one if its inode, its size or its time is, down to fractions of a second" {
  roll_beside_a_busy_worker
  trials=1
  for change in "touch -d 2001-01-01T00:00:01.5Z code.so" "touch -d 2001-01-01T00:00:02.5Z code.so" \
    "touch -d 2001-01-01T00:00:02.25Z code.so" "grow code.so" "copy code.so"; do
    eventually logged_times $trials "reload succeeded"
    echo "$change"
    $change
    signal HUP
    trials=$((trials + 1))
    eventually logged_times $trials "reload: trying"
  done
  eventually logged_times $trials "reload succeeded"
  signal HUP
  eventually logged "already under way, and the file is the same"
}
# Another size at the same time; and another file of the same size and time.
grow() {
  touch -r "$1" time
  printf x >>"$1"
  touch -r time "$1"
}
copy() { cp -p "$1" "$1.new" && mv "$1.new" "$1"; }

@test "a rollback of a pool of one is tried beside the extra worker, while the task goes on" {
  roll_beside_a_busy_worker -l debug
  busy=$(pid_of 0)
  eventually logged "reload succeeded"
  deploy one
  signal HUP
  eventually logged "reload: trying the new code as worker 1025"
  eventually logged_times 2 "reload succeeded"
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  # At once, and not when there is room.
  logged "worker 1024 (pid [0-9]*) is asked to end"
  [ "$(pid_of 0)" = "$busy" ]
  has_workers 2
  rm stay
  eventually logged "reload complete"
  eventually is_replaced 0 "$busy"
  eventually has_workers 1
}

@test "a trial that fails during a roll leaves the roll as it is" {
  needs_linux "the code is pinned"
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  deploy ctor_crash
  signal HUP
  eventually logged "reload failed: worker 1025 "
  kill -KILL "$(pid_of 1024)" "$(pid_of 1)"
  eventually runs 2 4
  rm stay
  eventually logged "reload complete"
  eventually has_workers 2
  never runs 1 3
}

@test "a trial during a roll waits for the worker of the trial that it takes the place of" {
  roll_beside_a_busy_worker
  eventually logged "reload succeeded"
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1025 (pid [0-9]*) started"
  deploy one
  signal HUP
  # The other extra worker is the one that helps in the roll.
  eventually logged "reload: waits for worker 1025 (pid $(pid_of 1025)) of an earlier reload to end"
  kill -KILL "$(pid_of 1025)"
  eventually logged_times 2 "reload succeeded"
  logged_times 0 "reload failed"
  rm stay
  eventually logged "reload complete"
  eventually has_workers 1
}

@test "two dropped trials that hang while they are loaded hold up no later reload" {
  start_one -g 0.3 -w 0.5
  eventually runs 1 1
  for name in ctor_hang ctor_hang two; do
    deploy $name
    signal HUP
    background sleep 0.1
    wait "$background"
  done
  eventually logged "reload complete"
  eventually has_workers 1
  runs 2 2
}

@test "the worker of a dropped trial that hangs while it is loaded is killed, though the reload is over" {
  start_one -g 1 -w 1
  eventually runs 1 1
  deploy ctor_hang
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  deploy two
  signal HUP
  eventually logged "reload complete"
  eventually logged "worker 1024 (pid [0-9]*) has not ended and is killed"
  eventually has_workers 1
}

@test "code that does one long task and returns 0 is rolled out, too" {
  run_forkd -n 2 sh -c 'sleep 1.5; exit 0'
  eventually has_workers 2
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 2
}

@test "an extra worker that fails again and again holds up the roll, which is said once" {
  deploy one
  run_forkd -n 2 ./code.so:fails_while_in_two 1024
  eventually runs 1 2
  deploy two
  touch fail
  signal HUP
  eventually logged_times 1 "error: reload stands still: worker 1024 (pid [0-9]*) exited with status 5"
  # With one number or the extra worker vacant, none of the others is let go.
  eventually logged_at_least 4 "worker 1024 (pid [0-9]*) exited with status 5"
  never logged "reload complete"
  rm fail
  eventually logged "reload complete"
}

@test "a command that cannot be executed does not pass its trial, however slow that is, with -w 0" {
  command -v strace >/dev/null || skip "no strace"
  printf '#!/bin/sh\necho up >>ups\nexec sleep 1000\n' >job
  chmod +x job
  strace -f -o trace -e trace=execve -e inject=execve:delay_enter=30000 "$FORKD" -w 0 -n 2 ./job >>out 2>>log 3>&- &
  tracer=$!
  eventually are_up 2
  master=$(living "$tracer" | head -n 1)
  rm job
  signal HUP
  eventually logged "reload failed: .*cannot execute"
  signal TERM
  eventually gone_or_zombie "$tracer"
}

are_up() { [ -e ups ] && [ "$(wc -l <ups)" -eq "$1" ]; }

@test "a pool that is frozen during a trial does not take that for the warm-up" {
  echo 'exec sleep 1000' >job.sh
  run_forkd -w 2 sh job.sh
  eventually has_workers 1
  echo 'sleep 0.8; exit 3' >job.sh
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) started"
  frozen=$(tree "$master")
  kill -STOP $frozen
  background sleep 2.5
  wait "$background"
  kill -CONT $frozen
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 3"
}

@test "TERM during a roll ends the pool in an orderly way" {
  roll_beside_a_busy_worker -n 2
  eventually logged "reload succeeded"
  signal TERM
  rm stay
  ends_with 0
  never logged "reload complete"
}

@test "a worker that is sent a signal itself during a roll comes back on the new code" {
  roll_beside_a_busy_worker -n 2
  eventually is_replaced 1 "$(first_pid_of 1)"
  kill -HUP "$(pid_of 0)" "$(pid_of 1)"
  rm stay
  eventually logged "reload complete"
  eventually has_workers 2
}
