#!/usr/bin/env bats
# Workers that end: replaced at once, later, or never.

load helper

# starts_of NUMBER COUNT: whether that worker was started so often.
starts_of() { [ "$(grep -c "worker $1 (pid [0-9]*) started" log)" -ge "$2" ]; }

@test "a worker that is killed is replaced" {
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  old=$(pid_of 1)
  kill -KILL "$old"
  eventually is_replaced 1 "$old"
  logged "worker 1 (pid $old) was ended by signal 9 (Killed) after 0\.[0-9]* s"
  has_workers 2
}

@test "a worker that returns 0 is replaced at once, but no number starts more than ten times a second" {
  run_forkd "$W:returns" 0
  eventually starts_of 0 12
  # 12 starts are 11 pauses of a tenth of a second: the 12th cannot have come before 1.1 s.
  lived=$(ps -o etimes= -p "$master")
  [ "$lived" -ge 1 ]
  logged_times 0 warning
}

@test "failures in the first second are delayed by 0.1 s, doubling" {
  command -v strace >/dev/null || skip "no strace"
  strace -f -ttt -e trace=clone,clone3,fork,vfork -e signal=none -o trace "$FORKD" "$W:returns" 1 healthy >>out 2>>log 3>&- &
  background=$!
  eventually starts_of 0 6
  kill -TERM "$(children "$background")"
  wait "$background" || :
  # The gaps between the forks of the master: 0.1, 0.2, 0.4, 0.8, 1.6 s.
  awk '/= [0-9]+$/ && /clone|fork/ { print $2 }' trace | awk '
    NR > 1 { gap = $1 - last; want = 0.1 * 2 ^ (NR - 2); print gap, want; if (gap < want - 0.005) bad = 1 }
    { last = $1 }
    END { exit bad || NR < 6 }'
}

@test "the master gives up with 1 when no worker was ever healthy and each failed five times in a row" {
  run_forkd -n 2 "$W:returns" 3
  ends_with 1
  logged "critical: .*giving up"
  starts_of 0 5
  starts_of 1 5
}

@test "a failure before a worker was healthy counts, however late it comes" {
  run_forkd sh -c 'sleep 1.1; exit 4'
  ends_with 1
  logged_times 5 "exited with status 4 after 1\.[0-9]* s"
  logged "critical: .*giving up"
}

@test "a command that has run for the warm-up time was healthy: the master does not give up" {
  run_forkd -w 0.2 sh -c 'sleep 0.3; exit 4'
  eventually logged_at_least 6 "exited with status 4"
  kill -0 "$master"
}

@test "the master does not give up once a worker was healthy" {
  run_forkd "$W:returns" 3 healthy
  eventually starts_of 0 6
  kill -0 "$master"
  logged_times 0 critical
}

@test "the master does not give up on commands that end with 0" {
  run_forkd true
  eventually starts_of 0 8
  kill -0 "$master"
}

@test "a command that fails at once and always makes the master give up" {
  run_forkd false
  ends_with 1
  logged_times 5 "exited with status 1"
}

@test "a file that is missing ends the master with 1 and its path, and nothing is started" {
  run_forkd ./nowhere.so:run
  ends_with 1
  logged "critical: cannot load ./nowhere.so:run: No such file or directory"
  logged_times 0 started
}

@test "a folder or a FIFO in the place of the file ends the master with 1" {
  mkdir folder
  mkfifo fifo
  for path in folder fifo; do
    run_forkd ./$path:run
    ends_with 1
    logged "cannot load ./$path:run: not a regular file"
  done
}

@test "a file that is no shared object ends the master with 1 and the loader's message" {
  echo junk >junk.so
  run_forkd -n 3 ./junk.so:run
  ends_with 1
  logged "critical: .*cannot load ./junk.so:run: "
  logged_times 1 "cannot load"
}

@test "an undefined symbol in the file is found when it is loaded, not when it is called" {
  run_forkd "$BIN/undefined.so:steady"
  ends_with 1
  logged "a_symbol_that_nobody_has"
}

@test "a function that is missing ends the master with 1 and its name" {
  run_forkd "$W:no_such_function"
  ends_with 1
  logged "cannot load $W:no_such_function: .*no_such_function"
}

@test "a constructor that crashes takes no master down: it gives up" {
  run_forkd "$BIN/ctor_crash.so:steady"
  ends_with 1
  logged "giving up"
}

@test "a command that does not exist ends the master with 1 and its name" {
  run_forkd -n 3 no-such-command-anywhere
  ends_with 1
  logged "critical: .*cannot execute 'no-such-command-anywhere': it is not in PATH"
}

@test "a command that may not be executed ends the master with 1 and the reason" {
  echo 'exit 0' >plain
  run_forkd ./plain
  ends_with 1
  logged "cannot execute './plain': Permission denied"
}

@test "of a thousand workers that cannot start, the first ones end it" {
  for worker in ./nowhere/job "$BIN/undefined.so:steady"; do
    run_forkd -n 1024 "$worker"
    ends_with 1
    [ "$(grep -c 'started$' log)" -lt 1024 ]
    rm log
  done
}

@test "a command that disappears later does not end the pool" {
  printf '#!/bin/sh\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -w 1 -n 2 ./job
  # Healthy: a second after its exec.
  eventually older_than_a_second
  mv job hidden
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually logged "worker 0 .*could not start: cannot execute './job': No such file"
  mv hidden job
  eventually starts_of 0 3
  eventually has_workers 2
}
older_than_a_second() { [ -n "$(pid_of 1)" ] && [ "$(ps -o etimes= -p "$(pid_of 1)")" -ge 2 ]; }

@test "a worker that failed and works again later is not punished for ever" {
  run_forkd "$W:crashes_without" exists healthy
  eventually starts_of 0 3
  touch exists
  eventually starts_of 0 4
  eventually has_workers 1
}

@test "the end of every worker is seen when all die at the same moment" {
  run_forkd -n 50 "$W:steady"
  eventually has_workers 50
  kill -STOP "$master"
  eventually is_state "$master" T
  kill -KILL $(children "$master")
  kill -CONT "$master"
  eventually logged_times 50 "ended by signal 9"
  eventually logged_times 100 "started"
  eventually has_workers 50
}

@test "workers killed one after the other leave the pool at exactly its target" {
  run_forkd -n 20 -l warning "$W:steady"
  for i in $(seq 100); do
    kill -KILL $(living "$master" | head -n 1) 2>/dev/null || :
  done
  eventually has_workers 20
  [ "$(children "$master" | wc -l)" -eq 20 ]
}

@test "fork that fails is logged, delayed, and no failure of a worker" {
  command -v strace >/dev/null || skip "no strace"
  # Every fork but the first fails, until strace lets go of the master.
  strace -e trace=clone,clone3,fork -e inject=clone,clone3,fork:error=EAGAIN:when=2+ -o trace \
    "$FORKD" -n 3 "$W:steady" >>out 2>>log 3>&- &
  background=$!
  eventually logged "error: cannot fork: Resource temporarily unavailable; next try in 0.200 s"
  master=$(children "$background")
  has_workers 1
  kill -INT "$background" 2>/dev/null
  kill -KILL "$background"
  eventually has_workers 3
  eventually logged_times 3 started
  signal TERM
  eventually gone_or_zombie "$master"
}

@test "a function that is missing, or not exported, says what it needs" {
  run_forkd "$W:not_there"
  ends_with 1
  logged "critical: .*no function 'not_there' is exported (in C++ it needs extern \"C\")"
}

@test "a command that goes missing later is an error, not the end, and logged as one" {
  printf '#!/bin/sh\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -w 0.2 ./job
  eventually lives_for_a_second
  rm job
  signal USR1
  eventually logged "error: worker 1 (pid [0-9]*) could not start"
  never logged critical
}
lives_for_a_second() { [ -n "$(pid_of 0)" ] && [ "$(ps -o etimes= -p "$(pid_of 0)")" -ge 1 ]; }

@test "a command that cannot be found, or has no interpreter, says what it needs" {
  printf '#!/no/such/interpreter\n' >job
  chmod +x job
  run_forkd ./job
  ends_with 1
  logged "cannot execute './job': its interpreter is missing"
  run_forkd job
  ends_with 1
  logged "cannot execute 'job': it is not in PATH, or its interpreter is missing; for the file here: ./job"
  run_forkd 'python3 job.py'
  ends_with 1
  logged "cannot execute 'python3 job.py': it is not in PATH"
  run_forkd node:18
  ends_with 1
  logged "cannot load node:18: No such file or directory (a colon makes it PATH:SYMBOL; for a command: env node:18)"
}
