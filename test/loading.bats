#!/usr/bin/env bats
# Code that cannot be loaded, or does harm while it is: at the start of the pool.

load helper

@test "a file that is missing ends the master with 1 and its path, and nothing is started" {
  run_forkd ./nowhere.so:run
  ends_with 1
  logged "critical: cannot load ./nowhere.so:run: No such file or directory$"
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
  # That a colon may mean something else is said where nothing is there.
  run_forkd folder:run
  ends_with 1
  logged "cannot load folder:run: not a regular file$"
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
  logged "critical: .*cannot load $BIN/undefined.so:steady: .*a_symbol_that_nobody_has"
}

@test "a function that is missing ends the master with 1 and its name" {
  run_forkd "$W:no_such_function"
  ends_with 1
  logged "cannot load $W:no_such_function: .*no_such_function"
}

@test "a function that is missing, or not exported, says what it needs" {
  run_forkd "$W:not_there"
  ends_with 1
  logged "critical: .*no function 'not_there' is exported (in C++ it needs extern \"C\")"
}

@test "a constructor that crashes takes no master down: it gives up" {
  run_forkd "$BIN/ctor_crash.so:steady"
  ends_with 1
  logged "giving up"
}

@test "of a thousand workers that cannot start, the first ones end it" {
  for worker in ./nowhere/job "$BIN/undefined.so:steady"; do
    run_forkd -n 1024 "$worker"
    ends_with 1
    [ "$(grep -c 'started$' log)" -lt 1024 ]
    rm log
  done
}

@test "a file that is replaced while it is loaded runs nothing: another process loads the pool's" {
  needs_linux "the code is pinned"
  # Nobody can know which of the two was loaded.
  deploy replaces
  cp "$BIN/one.so" next.so
  run_forkd ./code.so:steady
  eventually runs 2 1
  never runs 1 1
  starts_of 0 2
  logged "worker 0 (pid $(first_pid_of 0)) exited with status 0"
  # In a trial, too, where that is no failure.
  deploy replaces
  cp "$BIN/one.so" next.so
  : >out
  signal HUP
  eventually logged "reload complete"
  runs 2 2
  never runs 1 1
  starts_of 1024 2
  logged_times 0 "reload failed"
}

@test "the reason why code cannot be loaded is logged whole, however long its path is" {
  name=$(printf '%0200d' 0)
  mkdir "$name"
  cp "$BIN/undefined.so" "$name/code.so"
  run_forkd "./$name/code.so:steady"
  ends_with 1
  logged "cannot load ./$name/code.so:steady: .*a_symbol_that_nobody_has"
}

@test "a pool that cannot be loaded ends with 1 also when one of its workers has to be killed" {
  run_forkd -n 2 -g 0.3 "$BIN/hang_0.so:nothing"
  ends_with 1
  logged "worker 1 .* no function 'nothing'"
  logged "worker 0 .* is killed"
}

@test "a pool that cannot be loaded ends with 1 also when one of its workers cannot be killed" {
  command -v strace >/dev/null || skip "no strace"
  strace -o trace -e trace=kill -e inject=kill:error=EPERM \
    "$FORKD" -n 2 -g 0.3 "$BIN/hang_0.so:nothing" >>out 2>>log 3>&- &
  master=$!
  ends_with 1
  kill -KILL "$(pid_of 0)"
  logged "worker 0 .* cannot be killed"
}

@test "code that is tried after a good reload has to prove itself anew" {
  deploy one
  run_forkd ./code.so:changing
  eventually runs 1 1
  deploy one
  signal HUP
  eventually logged "reload complete"
  eventually logged "worker 1024 .*exited"
  deploy two
  reload_fails "worker 1024 (pid [0-9]*) was ended by signal 11 .* before it was healthy"
}
