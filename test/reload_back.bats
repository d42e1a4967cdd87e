#!/usr/bin/env bats
# Reloads that are undone: the pool goes back when new code fails under a number, or stands still.

load helper
load virtual
load reload

# turn OPTION ...: a pool of three that goes back. Worker 2 fails when the two others run the new code, and the
# previous code is on trial as worker 1025, as long as the file load.1.1025 is there.
turn() {
  start -n 3 -g 1000 "$@"
  for number in 0 1 2; do eventually is_ready 1 $number; done
  open=$(open_files)
  order task.1.2 wait
  eventually waits task.1.2
  order load.2.2 fail
  order load.1.1025 wait
  reload two
  eventually is_ready 2 0
  eventually is_ready 2 1
  first=$(ready_pid 2 0) second=$(ready_pid 2 1)
  rm task.1.2
  eventually logged "error: reload failed: worker 2 (pid [0-9]*) exited with status 5 after [0-9.]* s; going back to the previous code"
  eventually waits load.1.1025
  logged "info: reload: trying the previous code as worker 1025"
}
# nobody_was_let_go: those that run the new code are still at work.
nobody_was_let_go() {
  kill -0 "$first" && kill -0 "$second" && never printed "^let go 2"
}

@test "code that fails twice in a row under a number is undone, and workers that never left the old code stay" {
  needs_linux "the code is pinned"
  for target in 1 2 4 8; do
    echo "target $target"
    [ -z "$master" ] || stops_with 0
    rm -f out log load.2.*
    start -n $target -w 0
    for number in $(seq 0 $((target - 1))); do eventually is_ready 1 $number; done
    open=$(open_files)
    order load.2.$((target / 2)) fail
    reload two
    eventually logged "info: back on the previous code after [0-9]*\.[0-9]* s\$"
    failed=$(sed -n 's/.*error: reload failed: worker \([0-9]*\) (pid .*; going back to the previous code$/\1/p' log)
    [ "$failed" -eq $((target / 2)) ]
    [ "$(sed '/going back/q' log | grep -c "warning: worker $failed (pid [0-9]*) exited with status 5")" -eq 2 ]
    eventually has_workers "$target"
    eventually has_open "$open"
    printed "^let go 1 $failed\$"
    for number in $(seq 0 $((target - 1))); do
      # (What was let go has its old code again; the new one may have had no time to say anything there.)
      if printed "^let go 1 $number\$"; then
        eventually printed_times 2 "^version 1 number $number\$"
      else
        [ "$(pid_of $number)" = "$(first_pid_of $number)" ]
      fi
    done
    # The new code is tried, found good, and found bad; the one before is tried and found good.
    sed -n 's/.* reload[: ]*\(.*\)/\1/p' log | sed 's/ (pid.*s;/;/' >story
    diff story - <<END
trying the new code as worker 1024
the new code has passed its trial; old workers are replaced as they yield
failed: worker $failed; going back to the previous code
trying the previous code as worker 1025
the previous code has passed its trial; old workers are replaced as they yield
END
  done
  # The next reload is like any other.
  rm load.2.*
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 8
  eventually has_open "$open"
}

@test "code that fails once, or again after it was asked to end, is not undone" {
  needs_linux "the code is pinned"
  start -n 2 -w 0 -g 1000
  eventually is_ready 1 0
  eventually is_ready 1 1
  order task.1.0 wait
  eventually waits task.1.0
  order load.2.1 "fail once"
  reload two
  eventually is_ready 2 1
  for round in 2 3; do
    order load.2.1 "fail once"
    kill -HUP "$(ready_pid 2 1)"
    eventually logged_times $round "worker 1 (pid [0-9]*) exited with status 5"
    eventually is_ready 2 1 $round
  done
  rm task.1.0
  eventually logged "reload complete"
  logged_times 0 "going back\|reload failed"
}

@test "code that fails in its first second under a number is undone, whether it was healthy or not" {
  needs_linux "the code is pinned"
  needs_virtual_time
  # With 0.3 s it was, and had lived for less than a second.
  for warm_up in 0.3 8; do
    anew
    rm -f task.*
    start_virtual -w $warm_up -n 2 -c 3
    eventually is_ready 1 0
    eventually is_ready 1 1
    reload two
    eventually is_ready 2 1024
    # Worker 0 stays, so that the roll is not over.
    order task.1.0 wait
    eventually waits task.1.0
    case $warm_up in 8) time_to 4010 ;; *) time_to 3310 ;; esac
    for round in 1 2; do
      eventually is_ready 2 1 $round
      logged_times 0 "going back"
      failure=$(($(times fork | tail -n 1) + 900))
      time_until $failure
      order task.2.1 "fail once"
      eventually logged_times $round "warning: worker 1 (pid [0-9]*) exited with status 5 after 0\.900 s"
      # After the backoff.
      [ $round = 2 ] || time_to $((failure + 100))
    done
    eventually logged "error: reload failed: worker 1 (pid [0-9]*) exited with status 5 after 0\.900 s; going back to the previous code"
    # The previous code is known: it has passed without the time of -c.
    rm task.1.0
    time_to $((failure + 2900))
    eventually logged "the previous code has passed its trial"
    rm time
    eventually logged "back on the previous code"
    [ "$(pid_of 0)" = "$(first_pid_of 0)" ]
  done
}

@test "code that hangs while it is loaded under a number, or is aborted before its first yield there, is undone" {
  needs_linux "the code is pinned"
  needs_virtual_time
  for way in load first; do
    anew
    rm -f load.* first.*
    # With a timeout the others have to yield, which they do in real time.
    case $way in
      load) start_virtual -n 2 -g 10 -w 3 ;;
      first) start_virtual -n 2 -g 20 -w 3 -t 20 ;;
    esac
    eventually is_ready 1 0
    eventually is_ready 1 1
    order $way.2.1 wait
    reload two
    eventually is_ready 2 1024
    rm time
    eventually logged "back on the previous code"
    case $way in
      load) logged_at_least 2 "worker 1 (pid [0-9]*) was not loaded within 10\.000 s and is killed" ;;
      first) logged_at_least 2 "worker 1 (pid [0-9]*) has not yielded for 20\.000 s and is aborted" ;;
    esac
    logged "reload failed: worker 1 (pid [0-9]*) was ended by signal .* s; going back to the previous code"
    eventually has_workers 2
  done
}

@test "code that fails as the extra worker of the roll is undone" {
  needs_linux "the code is pinned"
  start -n 2 -w 0 -g 1000
  eventually is_ready 1 0
  eventually is_ready 1 1
  order task.1.0 wait
  eventually waits task.1.0
  reload two
  eventually is_ready 2 1
  order load.2.1024 fail
  kill -KILL "$(pid_of 1024)"
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 5 after .*; going back to the previous code"
  rm task.1.0
  eventually logged "back on the previous code"
  eventually has_workers 2
  [ "$(pid_of 0)" = "$(first_pid_of 0)" ]
}

@test "a number that waits out a backoff of the failed code starts at once on the previous code" {
  needs_linux "the code is pinned"
  needs_virtual_time
  start_virtual -w 0
  eventually is_ready 1 0
  order load.2.0 fail
  reload two
  # No number starts more than ten times a second: it starts at 100, 200 and 300 ms. With the backoff after its
  # second failure the last of these would be at 400 ms.
  time_to 100
  eventually logged_times 1 "warning: worker 0 (pid [0-9]*) exited with status 5"
  time_to 200
  eventually logged "going back"
  time_until 299
  starts_of 0 3
  time_to 300
  eventually is_ready 1 0 2
  rm time
  eventually logged "back on the previous code after 0\.1[0-9]* s"
}

@test "on the way back nobody is let go until the previous code has passed its trial; USR1, USR2 and deaths keep their effect" {
  needs_linux "the code is pinned"
  turn -w 0
  # Worker 2 was started on the previous code at once.
  eventually is_ready 1 2 2
  old=$(pid_of 1024)
  kill -KILL "$old"
  eventually is_replaced 1024 "$old"
  eventually is_ready 1 1024
  signal USR1
  eventually is_ready 1 3
  signal USR2
  eventually logged "worker 3 (pid [0-9]*) exited with status 0"
  kill -KILL "$(pid_of 2)"
  eventually is_ready 1 2 3
  # A death of the trial's worker in an orderly way is none.
  kill -HUP "$(pid_of 1025)"
  nobody_was_let_go
  logged_times 0 "back on"
  rm load.1.1025
  eventually logged "back on the previous code"
  eventually has_workers 3
  eventually has_open "$open"
  is_ready 1 0
  eventually is_ready 1 0 2
  eventually is_ready 1 1 2
  logged_times 1 "going back"
  stops_with 0
}

@test "on the way back HUP tries the file that is there: when it fails the way back begins anew, when it passes it is the pool's" {
  needs_linux "the code is pinned"
  turn -w 0
  signal HUP
  eventually logged "reload: the trial of worker 1025 is dropped"
  eventually logged_times 2 "reload: trying the new code as worker"
  # It is the same file, and passes its trial. Its failures turn the pool back once more.
  eventually logged_times 2 "going back to the previous code"
  eventually logged_times 2 "reload: trying the previous code as worker"
  # One that fails leaves the pool on its way.
  deploy ctor_crash
  signal HUP
  eventually logged "reload failed: worker [0-9]* (pid [0-9]*) was ended by signal 11"
  rm load.1.1025
  eventually logged "back on the previous code"
  eventually has_workers 3
  eventually has_open "$open"
  # A good one ends it.
  order load.1.1024 wait
  order load.1.1025 wait
  reload two
  eventually logged_times 3 "going back to the previous code"
  rm load.2.2
  signal HUP
  eventually logged "reload complete"
  rm load.1.1024 load.1.1025
  eventually has_workers 3
  eventually has_open "$open"
  is_ready 2 2
}

@test "on the way back HUP for a file that is not there leaves the pool on its way" {
  needs_linux "the code is pinned"
  turn -w 0
  rm code.so
  signal HUP
  eventually logged "reload failed: cannot load ./code.so:obeys: No such file or directory; the pool keeps its code"
  eventually logged_times 2 "reload: trying the previous code as worker"
  rm load.1.1025
  eventually logged "back on the previous code"
  logged_times 0 "stands still"
}

@test "TERM on the way back ends the pool in an orderly way" {
  needs_linux "the code is pinned"
  turn -w 0
  signal TERM
  eventually logged "shutting down"
  rm load.1.1025
  ends_with 0
  logged_times 0 "back on\|stands still"
}

@test "when the previous code does not run any more the pool stands still, until the next reload" {
  needs_linux "the code is pinned"
  turn -w 0
  eventually is_ready 1 2 2
  third=$(ready_pid 1 2)
  order load.1.1025 fail
  eventually logged "error: reload stands still: cannot go back: worker 1025 (pid [0-9]*) exited with status 5 after .* s before it was healthy; workers stay"
  # The new code is the pool's again; and nothing is tried or let go.
  old=$(pid_of 1024)
  kill -KILL "$old"
  eventually is_replaced 1024 "$old"
  signal USR1
  eventually is_ready 2 3
  nobody_was_let_go
  # Nor is the one on the previous code, although it yields.
  yields=$(grep -c "^waits task.1.2" out)
  order task.1.2 wait
  eventually waits task.1.2 $((yields + 1))
  kill -0 "$third"
  rm task.1.2
  logged_times 1 "trying the previous code"
  logged_times 1 "stands still"
  logged_times 1 "going back"
  eventually has_open "$open"
  rm load.2.2
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 4
  eventually has_open "$open"
}

@test "the previous code that fails twice in a row under a number on the way back stands still" {
  needs_linux "the code is pinned"
  turn -w 0
  order load.1.0 fail
  rm load.1.1025
  eventually logged "error: reload stands still: worker 0 (pid [0-9]*) exited with status 5 after .* s; the workers that are left stay"
  logged_times 1 "going back"
  rm load.1.0 load.2.2
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 3
  eventually has_open "$open"
}

@test "fork that fails on the way back is tried again" {
  needs_linux "the code is pinned"
  needs_virtual_time
  start_virtual -w 0
  eventually is_ready 1 0
  order load.2.0 fail
  reload two
  time_to 100
  eventually logged "worker 0 (pid [0-9]*) exited with status 5"
  # Now the next start fails, which is no failure of the code; and so do those on the way back.
  touch no_fork
  time_to 250
  eventually logged "error: cannot fork: .*; next try in 0\.100 s"
  rm no_fork
  order load.2.0 wait
  time_to 10000
  eventually waits load.2.0
  eventually starts_of 0 3
  touch no_fork
  order load.2.0 fail
  eventually logged "going back to the previous code"
  rm time
  eventually logged_at_least 4 "error: cannot fork"
  rm no_fork
  eventually logged "back on the previous code"
  logged_times 1 "reload failed"
}

@test "commands, and functions of a program, have no code to go back to: the reload stands still" {
  needs_virtual_time
  for kind in command function; do
    anew
    echo 0 >time
    echo good >config
    if [ $kind = command ]; then
      printf 'read word <config\necho "config $word"\n[ $word = good ] || exit 1\nexec sleep 1000\n' >job
      run_virtual -n 2 -w 1 sh job
    else
      LD_PRELOAD=$BIN/warp.so "$BIN/with_object" config >>out 2>>log 3>&- &
      master=$!
    fi
    eventually printed_times 2 "^config good"
    signal HUP
    eventually printed_times 3 "^config good"
    echo bad >config
    time_to 20000
    eventually logged "error: reload stands still: worker [01] (pid [0-9]*) exited with status 1 after .* s; the workers that are left stay"
    [ "$(sed '/stands still/q' log | grep -c "warning: worker [01] (pid [0-9]*) exited with status 1")" -eq 2 ]
    eventually logged_at_least 3 "warning: worker [01] (pid [0-9]*) exited with status 1"
    logged_times 1 "stands still"
    logged_times 0 "going back\|reload failed\|the previous code"
    eventually has_workers 2
    echo good >config
    signal HUP
    rm time
    eventually logged "reload complete"
  done
}
