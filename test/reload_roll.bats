#!/usr/bin/env bats
# The roll of a reload: how old workers are replaced once the new code has passed its trial, and what can
# come between.

load helper
load virtual
load reload

# In these pools a worker is healthy at its first yield.
at_yield="-t 1000 -w 0"

# weakest: how many workers were ready at the worst moment, from when all of a pool of $1 were.
weakest() {
  awk -v target="$1" '
    /^ready/ { ready++ }
    /^let go/ { ready-- }
    ready == target && !full { full = 1; least = target }
    full && ready < least { least = ready }
    END { print full ? least : "never full" }' "$2"
}

# stays_at COUNT TARGET FILE: the pool was never weaker than that. To be asked before it is shut down.
stays_at() {
  local least
  least=$(weakest "$2" "$3")
  echo "weakest: $least of $2"
  [ "$least" -ge "$1" ]
}
are_ready() { await line tally "$2" - "^ready $1"; }
questions="$questions are_ready"

# all_ready COUNT: workers 0 to COUNT - 1 of version 1.
all_ready() {
  local number
  for number in $(seq 0 $(($1 - 1))); do eventually is_ready 1 "$number" || return; done
}

# beside_a_busy_worker OPTION ...: a pool whose worker 0 stays within its task, while the file task.1.0 is
# there, gets version 2.
beside_a_busy_worker() {
  start -g 1000 -w 0 "$@"
  eventually is_ready 1 0
  order task.1.0 wait
  eventually waits task.1.0
  reload two
}

@test "a reload replaces every worker, and an extra one tries the code first" {
  start_one -n 2 -w 0
  eventually runs 1 2
  before=$(living "$master" | tr '\n' ' ')
  open=$(open_files)
  reload two
  eventually runs 2 3
  eventually logged "reload complete after [0-9.]* s: every worker runs the new code"
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  eventually has_workers 2
  new_pids "$before"
  printed '^version 2 number 1024$'
  sed -n 's/.*info: reload:* \(.*\)/\1/p' log | sed 's/after [0-9.]* s/after T/' >story
  diff story - <<'END'
trying the new code as worker 1024
the new code has passed its trial; old workers are replaced as they yield
complete after T: every worker runs the new code
END
  eventually has_open "$open"
}

@test "a reload works for a pool of 1024" {
  not_emulated "hundreds of emulators are too many"
  deploy one
  run_forkd -n 1024 -w 0 -l warning ./code.so:quiet
  eventually has_workers 1024
  before=$(living "$master" | tr '\n' ' ')
  signal HUP
  eventually new_pids "$before"
  eventually has_workers 1024
  signal USR1
  eventually logged "warning: the target stays 1024, the most there can be"
  has_workers 1024
}

@test "a pool of up to seven keeps its full strength" {
  for target in 1 4 7; do
    rm -f tally log
    deploy one
    run_forkd $at_yield -n $target ./code.so:sets_up 100 tally
    eventually are_ready 1 $target
    reload two
    eventually logged "reload complete"
    are_ready 2 $((target + 1))
    stays_at $target $target tally
    stops_with 0
  done
}

@test "a larger pool is replaced a quarter at a time, of which the extra worker stands in for one" {
  start $at_yield -n 16
  all_ready 16
  for number in $(seq 0 15); do order first.2.$number wait; done
  reload two
  for round in 1 2 3 4; do
    eventually printed_times $((4 * round)) "^waits first"
    has_workers 17
    never printed_times $((4 * round + 1)) "^waits first"
    rm -f $(sed -n 's/^waits //p' out)
  done
  eventually logged "reload complete"
  stays_at 13 16 out
}

@test "workers that wait by the stop descriptor are let go a few at a time, the oldest first" {
  deploy one
  # Two at a time; and when one is left, it goes alone.
  run_forkd $at_yield -n 9 ./code.so:sets_up 100 tally 0
  eventually are_ready 1 9
  reload two
  eventually logged "reload complete"
  are_ready 2 10
  stays_at 8 9 tally
  logged_times 19 "started$"
  stops_with 0
  # The oldest one does not always have the lowest number.
  rm -f tally log
  deploy one
  run_forkd $at_yield -n 3 -l debug ./code.so:sets_up 0 tally 0
  eventually are_ready 1 3
  kill -TERM "$(pid_of 0)"
  eventually are_ready 1 4
  reload two
  eventually logged "reload complete"
  sed -n 's/.*worker \([0-9]*\) (pid .*is asked to end$/\1/p' log | head -n 3 | tr '\n' ' ' >sequence
  [ "$(cat sequence)" = "1 2 0 " ]
}

@test "a last task holds up the others for the grace period, which is eight seconds with -g 0, and is never cut" {
  needs_virtual_time
  for grace in 0 2; do
    anew
    rm -f last.1
    start_virtual -n 2 -w 0 -g $grace
    all_ready 2
    order last.1 wait
    reload two
    eventually is_ready 2 1024
    time_to 20
    eventually printed "^waits last.1"
    [ $grace != 0 ] || grace=8
    time_until $((grace * 1000 - 10))
    printed_times 1 "^let go 1"
    never printed_times 2 "^let go 1"
    # The master sees within a second that a worker has taken room.
    time_to $((grace * 1000 + 1100))
    eventually printed_times 2 "^let go 1"
    time_until 60000
    logged_times 0 "reload complete\|killed"
    rm last.1
    time_to 70000
    eventually logged "reload complete"
  done
}

@test "a killed worker that lingers does not hold up the roll" {
  needs_virtual_time
  command -v strace >/dev/null || skip "no strace"
  # Worker 0 hangs, survives its SIGABRT, and is let go before its SIGKILL.
  start_virtual -n 3 -w 0 -g 25 -t 50
  all_ready 3
  order task.1.0 stay
  order task.1.1 wait
  order task.1.2 wait
  for number in 0 1 2; do eventually waits task.1.$number; done
  for look in 1 2 3 4 5 6 7; do
    # The others yield meanwhile.
    order task.1 wait
    rm task.1.1 task.1.2
    eventually waits task.1 $((2 * look))
    order task.1.1 wait
    order task.1.2 wait
    rm task.1
    for number in 1 2; do eventually waits task.1.$number $((look + 1)); done
    time_until $((10000 * look))
  done
  eventually logged "worker 0 (pid [0-9]*) has not yielded for 50\.000 s and is aborted"
  reload two
  eventually is_ready 2 1024
  rm task.1.1
  time_to 70100
  eventually is_ready 2 1
  time_to 70200
  order last.1.0 wait
  rm task.1.0
  eventually waits last.1.0
  # A tracer that is stopped keeps what is left of it.
  background strace -o trace -e trace=none -p "$(ready_pid 1 0)" 2>attached
  eventually found "attached\|attach" attached
  never found "not permitted" attached || skip "strace may not attach"
  kill -STOP "$background"
  time_to 100000
  eventually logged "worker 0 (pid [0-9]*) has not ended and is killed"
  rm task.1.2
  eventually is_ready 2 2
  logged_times 0 "worker 0 (pid [0-9]*) was ended"
  kill -CONT "$background"
  rm time
  eventually logged "reload complete"
}

@test "a roll ends also where workers take turns to return 0, and are never all healthy at the same time" {
  run_forkd -n 8 "$W:recycles"
  eventually logged "exited with status 0"
  signal HUP
  eventually logged "reload complete"
}

@test "a roll that makes no step for the grace period says once which numbers it waits for" {
  needs_virtual_time
  start_virtual -n 4 -w 0 -g 5
  all_ready 4
  for number in 0 2; do
    order task.1.$number wait
    eventually waits task.1.$number
  done
  reload two
  eventually is_ready 2 1024
  time_to 1000
  eventually printed_times 2 "^ready 2"
  time_to 2000
  eventually printed_times 3 "^ready 2"
  time_until $(($(times fork | tail -n 1) + 4999))
  logged_times 0 "waits for"
  # It looks once a second.
  time_until 8100
  logged_times 1 "info: reload: waits for the workers with these numbers: 0 2\$"
  time_until 60000
  logged_times 1 "waits for"
  rm task.1.2
  eventually printed "^let go 1 2"
  time_to 61000
  eventually is_ready 2 2
  time_until 75000
  logged_times 1 "info: reload: waits for the workers with these numbers: 0\$"
  logged_times 2 "waits for"
  rm task.1.0
  rm time
  eventually logged "reload complete"
}

@test "an old worker that returns 0 by itself proves nothing of the new code" {
  needs_virtual_time
  start_virtual -n 2 -w 0 -g 1000
  all_ready 2
  order task.1.0 wait
  eventually waits task.1.0
  reload two
  time_to 2000
  eventually is_ready 2 1
  order load.2.0 wait
  order task.1.0 return
  eventually waits load.2.0
  time_until 9000
  logged_times 0 "reload complete"
  rm load.2.0
  rm time
  eventually logged "reload complete"
}

@test "a list of numbers that is too long for a line ends in dots" {
  needs_virtual_time
  echo 0 >time
  run_virtual -n 80 -w 0 -g 5 "$W:never_yields"
  eventually has_workers 80
  signal HUP
  rm time
  eventually logged "info: reload: waits for the workers with these numbers: 0 1 2 3 .* 6[0-9] \.\.\.\$"
  logged_times 0 "waits for.* 79"
}

@test "a worker that asks for the stop descriptor in the middle of a roll is asked to end, too" {
  deploy one
  touch stay
  run_forkd -w 0 -g 1000 ./code.so:polls_late stay
  eventually printed "^busy"
  reload two
  eventually logged "has passed its trial"
  rm stay
  eventually logged "reload complete"
}

@test "a worker that was removed before the roll ends when its task does" {
  start -w 0 -n 2 -g 1000
  all_ready 2
  order task.1.1 wait
  eventually waits task.1.1
  signal USR2
  eventually logged "the target is now 1"
  reload two
  eventually logged "reload complete"
  rm task.1.1
  eventually logged "worker 1 (pid [0-9]*) exited with status 0"
  eventually has_workers 1
}

@test "commands are let go one after the other, each when the one before is healthy" {
  needs_virtual_time
  echo 0 >time
  run_virtual -n 3 -w 0.5 -l debug sh -c 'echo up; exec sleep 1000'
  eventually printed_times 3 "^up"
  signal HUP
  # The extra one comes first.
  for count in 0 1 2; do
    eventually printed_times $((4 + count)) "^up"
    eventually logged_at_least $((4 + count)) "started$"
    time_until $(($(times fork | tail -n 1) + 499))
    logged_times $count "is asked to end"
    time_to $(($(times fork | tail -n 1) + 510))
    eventually logged "worker $count (pid [0-9]*) is asked to end"
    eventually logged "worker $count (pid [0-9]*) was ended by signal 15"
  done
  rm time
  eventually logged "reload complete"
  eventually has_workers 3
}

@test "a worker that was let go is told so at each further yield, and by the stop descriptor" {
  deploy one
  run_forkd -w 0 ./code.so:asks_again
  eventually runs 1 1
  reload two
  eventually printed "^again 0 readable 1$"
  eventually logged "reload complete"
}

@test "the death of an old worker is no failure of the new code, whatever it has done before" {
  start $at_yield -n 2 -g 1000
  all_ready 2
  # Worker 0 was never healthy; worker 1 is in the way of the end of the roll.
  order task.1.1 wait
  eventually waits task.1.1
  order first.1.0 wait
  kill -KILL "$(ready_pid 1 0)"
  eventually waits first.1.0
  reload two
  eventually logged "has passed its trial"
  order load.2.0 "fail once"
  kill -KILL "$(pid_of 0)"
  eventually logged "worker 0 (pid [0-9]*) exited with status 5"
  eventually is_ready 2 0
  rm task.1.1
  eventually logged "reload complete"
  logged_times 0 "going back"
}

@test "workers that wait out a backoff start at once on the new code, which has failed nowhere yet" {
  needs_virtual_time
  start_virtual -n 2 -w 0
  all_ready 2
  order load.1.1 fail
  kill -KILL "$(ready_pid 1 1)"
  at=0
  for failures in 1 2 3 4 5 6; do
    time_to $at
    eventually logged_times $failures "warning: worker 1 (pid [0-9]*) .* after"
    at=$((at + 100 * 2 ** (failures - 1)))
  done
  # The next one would start at 6.3 s.
  order load.2.1 "fail once"
  reload two
  eventually is_ready 2 1024
  time_to 3300
  eventually logged "warning: worker 1 (pid [0-9]*) exited with status 5 after 0\.[01]"
  eventually logged_times 7 "warning: worker 1 (pid [0-9]*) .* after"
  rm time
  eventually logged "reload complete"
  [ ! -e load.2.1 ]
  logged_times 0 "going back"
}

@test "code that returns 0 at once is replaced by code that takes its time, which is waited for" {
  order first.1 return
  start $at_yield -n 2
  eventually logged_at_least 4 "exited with status 0"
  order first.2.0 wait
  reload two
  eventually waits first.2.0
  eventually is_ready 2 1
  logged_times 0 "reload complete"
  rm first.2.0
  eventually logged "reload complete"
}

@test "commands that do one task and return 0 are rolled out, too" {
  run_forkd -w 1000 -n 2 sh -c 'while [ ! -e go ]; do sleep 0.05; done; exit 0'
  eventually has_workers 2
  signal HUP
  eventually has_workers 3
  touch go
  eventually logged "reload complete"
}

@test "deaths, USR1 and USR2 during a roll: whoever starts runs the new code, and the target survives" {
  beside_a_busy_worker -n 2
  eventually is_ready 2 1
  # A worker that is sent a signal itself, the extra worker.
  kill -HUP "$(ready_pid 2 1)"
  eventually is_ready 2 1 2
  kill -KILL "$(ready_pid 2 1024)"
  eventually is_ready 2 1024 2
  signal USR1
  eventually logged "the target is now 3"
  eventually is_ready 2 2
  signal USR1
  eventually logged "the target is now 4"
  signal USR2
  eventually logged_times 2 "the target is now 3"
  eventually has_workers 4
  never logged "reload complete"
  # An old worker is replaced at once.
  kill -KILL "$(ready_pid 1 0)"
  eventually logged "reload complete"
  eventually has_workers 3
  eventually is_ready 2 0
  never runs 1 3
}

@test "nobody is let go while the extra worker has died and the next one is not healthy" {
  start -n 2 -g 1000 -w 0
  all_ready 2
  for number in 0 1; do
    order task.1.$number wait
    eventually waits task.1.$number
  done
  reload two
  eventually logged "has passed its trial"
  order load.2.1024 wait
  kill -KILL "$(ready_pid 2 1024)"
  eventually waits load.2.1024
  # Worker 1 yields, and comes to its next task.
  order task.1 wait
  rm task.1.1
  eventually waits task.1
  never printed "^let go"
  rm task.1 task.1.0 load.2.1024
  eventually logged "reload complete"
}

@test "the extra worker stays until every number has a worker on the new code, and the roll waits for a long task" {
  beside_a_busy_worker -n 3
  eventually is_ready 2 1
  eventually is_ready 2 2
  has_workers 4
  [ "$(pid_of 0)" = "$(ready_pid 1 0)" ]
  never logged "reload complete"
  rm task.1.0
  eventually logged "reload complete"
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  eventually has_workers 3
  starts_of 1024 1
  never starts_of 1024 2
}

@test "a rollback of a pool of one is tried beside the extra worker, while the task goes on" {
  beside_a_busy_worker -l debug
  eventually logged "has passed its trial"
  open=$(open_files)
  deploy one
  order load.1 wait
  signal HUP
  eventually logged "reload: trying the new code as worker 1025"
  eventually waits load.1
  # The extra worker goes on until the other code has passed its trial, too: then it is asked at once.
  logged_times 0 "worker 1024 .* is asked to end"
  has_workers 3
  rm load.1
  eventually logged_times 2 "has passed its trial"
  eventually logged "worker 1024 (pid [0-9]*) exited with status 0"
  logged "worker 1024 (pid [0-9]*) is asked to end"
  [ "$(pid_of 0)" = "$(ready_pid 1 0)" ]
  has_workers 2
  eventually has_open "$open"
  rm task.1.0
  eventually logged "reload complete"
  eventually is_ready 1 0 2
  eventually has_workers 1
}

@test "a trial that fails during a roll leaves the roll as it is, and one that is dropped, too" {
  needs_linux "the code is pinned"
  beside_a_busy_worker -n 2
  eventually is_ready 2 1
  open=$(open_files)
  deploy ctor_crash
  signal HUP
  eventually logged "reload failed: worker 1025 "
  deploy ctor_hang
  signal HUP
  eventually starts_of 1025 2
  deploy ctor_crash
  signal HUP
  eventually logged "reload: the trial of worker 1025 is dropped"
  eventually logged "reload failed: worker 1026 "
  eventually has_open "$open"
  kill -KILL "$(pid_of 1024)" "$(pid_of 1)" "$(pid_of 1025)"
  eventually is_ready 2 1 2
  eventually is_ready 2 1024 2
  never logged "reload complete"
  rm task.1.0
  eventually logged "reload complete"
  eventually has_workers 2
  never runs 1 3
}

@test "the code that ran before a roll is what a second reload during the roll goes back to" {
  needs_linux "the code is pinned"
  # Nobody knows yet whether the code of the first roll is any good.
  beside_a_busy_worker -n 2
  eventually is_ready 2 1
  order load.2.1 fail
  touch code.so
  reload two
  eventually logged "going back to the previous code"
  eventually is_ready 1 1 2
  rm task.1.0
  eventually logged "back on the previous code"
  eventually has_workers 2
  is_ready 1 1 2
}

@test "TERM during a roll ends the pool in an orderly way" {
  beside_a_busy_worker -n 2
  eventually logged "has passed its trial"
  signal TERM
  eventually logged "shutting down"
  rm task.1.0
  ends_with 0
  never logged "reload complete"
}

@test "many reloads, every tenth of them broken, lose no task and do none twice" {
  deploy one
  run_forkd -n 4 -w 0 ./code.so:counts tally
  eventually test -s tally
  for round in $(seq 20); do
    if [ $((round % 10)) -eq 0 ]; then deploy ctor_crash; else deploy two; fi
    signal HUP
    eventually logged_times "$round" "has passed its trial\|reload failed"
  done
  stops_with 0
  logged_times 2 "reload failed"
  awk '{ seen[$1 " " $2]++ } END { for (task in seen) if (seen[task] != 2) { print task, seen[task]; bad = 1 } exit bad }' tally
}
