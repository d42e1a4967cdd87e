#!/usr/bin/env bats
# Code that cannot be loaded, or does harm while it is: at the start of the pool.

load helper
load virtual

@test "a worker that cannot be loaded ends the master with 1, and one critical line with the path and the reason" {
  echo junk >junk.so
  mkdir folder "$(printf '%0200d' 0)"
  mkfifo fifo
  long=./$(printf '%0200d' 0)/code.so
  cp "$BIN/undefined.so" "$long"
  while IFS='|' read -r worker reason starts; do
    echo "$worker"
    rm -f log
    run_forkd -n 3 "$worker"
    ends_with 1
    logged_times 1 "critical: .*cannot load $worker: $reason"
    logged_times 1 "critical\|could not start\|cannot load"
    logged_times 0 "giving up"
    [ "$starts" = any ] || logged_times 0 started
  done <<END
./nowhere.so:run|No such file or directory\$|0
./folder:run|not a regular file\$|0
./fifo:run|not a regular file\$|0
folder:run|not a regular file\$|0
./junk.so:run|.|any
$BIN/undefined.so:steady|.*a_symbol_that_nobody_has|any
$long:steady|.*a_symbol_that_nobody_has|any
$W:not_there|no function 'not_there' is exported (in C++ it needs extern "C")\$|any
END
}

@test "a constructor that crashes takes no master down: it gives up" {
  needs_virtual_time
  run_virtual "$BIN/ctor_crash.so:steady"
  ends_with 1
  logged_times 5 "ended by signal 11"
  logged "giving up"
}

@test "of a thousand workers that cannot start, the first ones end it" {
  for worker in ./nowhere/job "$BIN/undefined.so:steady"; do
    run_forkd -n 1024 "$worker"
    ends_with 1
    never starts_of 1023 1
    rm log
  done
}

@test "a file that is replaced while it is loaded runs nothing: another process loads the pool's" {
  needs_linux "the code is pinned"
  # Nobody can know which of the two was loaded.
  deploy replaces
  cp "$BIN/one.so" next.so
  run_forkd -w 0 ./code.so:steady
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

@test "a pool that cannot be loaded ends with 1 also when it has to kill a worker, or cannot" {
  needs_virtual_time
  # Worker 0 hangs while it is loaded.
  for way in signal grace immune; do
    echo $way
    anew
    rm -f no_kill
    echo 0 >time
    run_virtual -n 2 -g 1 "$BIN/hang_0.so:nothing"
    eventually logged "critical: worker 1 .* no function 'nothing'"
    old=$(pid_of 0)
    case $way in
      signal)
        # The first one is none to shut down, since the pool ends already.
        signal TERM
        time_until 500
        logged_times 0 "killed"
        signal TERM
        ;;
      grace) rm time ;;
      immune)
        touch no_kill
        rm time
        ;;
    esac
    ends_with 1
    case $way in
      immune) logged "worker 0 .* cannot be killed" ;;
      *) logged "worker 0 .* has not ended and is killed" ;;
    esac
    kill -KILL "$old" 2>/dev/null || :
    logged_times 0 "shutting down"
  done
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

@test "code that changes the folder, the root or the user while it is loaded runs, at the start and in a trial" {
  mkdir empty private
  chmod 700 private
  cp "$BIN/moves.so" private/code.so
  kinds="folder root user"
  [ "$(id -u)" -eq 0 ] || kinds=folder
  for kind in $kinds; do
    rm -f out log
    # The new root hides an absolute path, the new folder hides others, and the new user may not enter it.
    path=$PWD/private/code.so
    [ $kind != folder ] || path=private/code.so
    MOVES=$kind run_forkd -w 0 "$path:steady"
    eventually printed runs
    signal HUP
    eventually logged "reload complete"
    stops_with 0
  done
}

@test "a worker is killed that is not loaded within the grace period or the warm-up, whichever is longer, but not in a shutdown" {
  needs_virtual_time
  while read -r options limit; do
    anew
    run_virtual ${options//,/ } "$BIN/ctor_hang.so:steady"
    eventually logged "warning: worker 0 (pid [0-9]*) was not loaded within $((limit / 1000)).000 s and is killed"
    # (It is looked at after a sixteenth of its age.)
    between "$limit" $((limit + 200)) "$(times 'kill 9' | head -n 1)"
    # That is a failure like any other.
    ends_with 1
  done <<'END'
-g,2,-w,1 2000
-g,1,-w,3 3000
-g,0,-w,1 8000
END
  anew
  echo 0 >time
  run_virtual -g 0 -w 1 "$BIN/ctor_hang.so:steady"
  worker=$(pid_of 0)
  signal TERM
  eventually logged "shutting down"
  time_until 30000
  [ -z "$(times 'kill 9')" ]
  kill -KILL "$worker"
  ends_with 0
}
