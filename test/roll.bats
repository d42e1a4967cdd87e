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
  # Four at a time, not one: the extra worker stands in for one of them.
  [ "$(weakest 16)" -le 14 ]
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
  start_one -n 2 -g 0.3 -w 2
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
  run_forkd -n 2 -t 1000 -g 1 -w 1 ./code.so:first_silent fail
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

@test "code that returns 0 at once is replaced by code that takes its time, which is waited for" {
  deploy one
  run_forkd -n 2 ./code.so:quick_in_one 700 tally
  eventually logged_at_least 4 "exited with status 0"
  deploy two
  signal HUP
  eventually logged "reload complete"
  ready 2 3
}
