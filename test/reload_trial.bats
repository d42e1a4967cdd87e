#!/usr/bin/env bats
# The trial of a reload: what new code has to show, and what a failed or dropped trial leaves behind.

load helper
load virtual
load reload

@test "bad code of every kind leaves the pool as it is, and starts nothing later" {
  start_one -n 2
  eventually runs 1 2
  open=$(open_files)
  while IFS='|' read -r code reason; do
    echo "$code"
    rm -rf code.so load.2
    case $code in
      nothing) ;;
      folder) mkdir code.so ;;
      fifo) mkfifo code.so ;;
      junk) echo "no shared object" >code.so ;;
      # The ELF header's e_machine, two bytes at 18 (elf(5)).
      foreign)
        cp "$BIN/two.so" code.so
        printf '\377\377' | dd of=code.so bs=1 seek=18 conv=notrunc 2>dd.log
        ;;
      fail | crash | return)
        deploy two
        echo "$code" >load.2
        ;;
      *) deploy "$code" ;;
    esac
    # musl's loader does not look at the machine.
    case $code$CC in foreign*musl*) continue ;; esac
    reload_fails "$reason"
    eventually has_open "$open"
  done <<'END'
nothing|cannot load ./code.so:steady: No such file or directory
folder|cannot load ./code.so:steady: not a regular file
fifo|cannot load ./code.so:steady: not a regular file
junk|worker 1024 (pid [0-9]*) could not start: cannot load ./code.so:steady: 
foreign|worker 1024 (pid [0-9]*) could not start: cannot load ./code.so:steady: 
undefined|worker 1024 .*a_symbol_that_nobody_has
worker|worker 1024 .*no function 'steady' is exported
fail|worker 1024 (pid [0-9]*) exited with status 5 after .* s before it was healthy
crash|worker 1024 (pid [0-9]*) was ended by signal 11 .* before it was healthy
return|worker 1024 (pid [0-9]*) exited with status 0 after .* s before it was healthy
END
  logged_times 0 "could not start.* before it was healthy"
  # One worker each, but for the four that were not even started.
  logged_times "$(grep -c "reload failed: worker" log)" "worker 1024 .*started"
  logged_times 0 "has passed\|going back\|next try"
}


@test "new code passes its trial a second after its first yield, or the warm-up time, and then the time of -c" {
  needs_virtual_time
  while IFS='|' read -r passes failure first options; do
    echo "$options"
    anew
    rm -f first.2 task.2
    start_virtual $options
    eventually is_ready 1 0
    old=$(pids)
    deploy two
    # It fails a moment before it would pass.
    try
    time_until $((passes - 1))
    logged_times 0 "has passed"
    order task.2 fail
    rm -f first.2
    eventually logged "error: reload failed: worker 1024 (pid [0-9]*) exited with status 5 after .* s $failure; the pool keeps its code"
    [ "$(pids)" = "$old" ]
    rm task.2
    # It does not. A yield is seen when the master looks, which may take ten milliseconds.
    try
    time_until $((2 * passes - 2))
    logged_times 0 "has passed"
    time_to $((2 * passes + 9))
    eventually logged "info: reload: the new code has passed its trial; old workers are replaced as they yield"
  done <<'END'
1000|before it was healthy|ready|
300|before it was healthy|ready|-w 0.3
300|before it was healthy|ready|-w 0.3 -t 1000
1000|before it was healthy|ready|-w 1.5 -t 1000
3000|before it was healthy|waits|-w 3
5000|in its trial|ready|-w 0 -c 5
6000|in its trial|ready|-c 5
4300|in its trial|waits|-w 0.3 -c 4
END
}
# try: begins a trial, and returns when the new code has begun its tasks, or before its first yield.
try() {
  [ "$first" = ready ] || order first.2 wait
  : >out
  signal HUP
  eventually printed "^$first .*2"
}

@test "time for which the pool is frozen brings the end of a trial no nearer" {
  needs_virtual_time
  start_virtual
  eventually is_ready 1 0
  order first.2 wait
  reload two
  eventually waits first.2
  time_until 500
  # It begins in a wait of less than 0.2 s.
  echo 60000 >freeze
  time_to 1000
  eventually printed "^time 60[0-9]* stands\$"
  order task.2 fail
  rm first.2
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 5 after 0\.[5-7].* s before it was healthy"
}

@test "new code that returns 0 in its trial is healthy: its time goes on, and its next worker may fail, too" {
  needs_virtual_time
  start_virtual -c 5
  eventually is_ready 1 0
  deploy two
  for end in fails passes; do
    base=$(sed -n 's/^time \([0-9]*\) stands/\1/p' out | tail -n 1)
    : >out
    signal HUP
    eventually is_ready 2 1024
    # Before it is healthy.
    time_until $((base + 500))
    order task.2.1024 "return once"
    eventually is_ready 2 1024 2
    # After that.
    time_until $((base + 4000))
    order task.2.1024 "return once"
    eventually is_ready 2 1024 3
    time_until $((base + 5499))
    logged_times 0 "has passed"
    [ $end = passes ] || {
      order task.2.1024 "fail once"
      eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 5 after 1\.499 s in its trial"
    }
  done
  time_to $((base + 5510))
  eventually logged "has passed its trial"
  rm time
  eventually logged "reload complete"
}

@test "code that is not loaded within the longer of grace period and warm-up is killed, in a trial and under any number" {
  needs_linux "the code is pinned"
  needs_virtual_time
  while IFS='|' read -r limit options; do
    echo "$options"
    anew
    rm -f load.*
    start_virtual $options
    eventually is_ready 1 0
    old=$(pids)
    open=$(open_files)
    order load.2 wait
    reload two
    eventually waits load.2
    time_until $((limit - 1))
    logged_times 0 "not loaded"
    # It is looked for when a sixteenth of its time has passed again.
    time_to $((limit + limit / 15))
    within="within $((limit / 1000))\.$(printf %03d $((limit % 1000))) s"
    eventually logged "error: reload failed: worker 1024 (pid [0-9]*) was not loaded $within; the pool keeps its code"
    eventually logged "warning: worker 1024 (pid [0-9]*) was not loaded $within and is killed"
    eventually logged "worker 1024 (pid [0-9]*) was ended by signal 9"
    [ "$(pids)" = "$old" ]
    eventually has_open "$open"
    # Without a reload, too. No other one starts meanwhile.
    order load.1 wait
    kill -KILL "$old"
    eventually logged "warning: worker 0 (pid [0-9]*) was ended by signal 9"
    base=$((limit + limit / 15 + 200))
    time_to $base
    eventually waits load.1
    time_until $((base + 10))
    logged_times 1 "not loaded .* killed"
    time_to $((base + limit + limit / 15))
    eventually logged "warning: worker 0 (pid [0-9]*) was not loaded $within and is killed"
    starts_of 1024 1
    # A shutdown has its own steps.
    time_until $((base + limit + limit / 15 + 300))
    eventually waits load.1 2
    signal TERM
    eventually logged "shutting down"
    case $options in *"-g 0 "*)
      time_until 20000
      logged_times 1 "worker 0 .*killed"
      ;;
    esac
    rm load.1
    ends_with 0
  done <<'END'
300|-g 0.3 -w 0.2
300|-g 0.2 -w 0.3
8000|-g 0 -w 0
END
}

@test "an extra worker that hangs while it is loaded and cannot be killed is said to be so once, and holds up no reload" {
  needs_virtual_time
  start_virtual -w 0
  eventually is_ready 1 0
  order load.2 wait
  touch no_kill
  reload two
  eventually waits load.2
  time_to 20000
  eventually logged "error: worker 1024 (pid [0-9]*) was not loaded within 8\.000 s and cannot be killed: Operation not permitted"
  rm load.2
  signal HUP
  rm time
  eventually logged "reload complete"
  logged_times 1 "cannot be killed"
  rm no_kill
}

@test "an extra worker that is sent a signal while it loads the code has tried nothing: another one does" {
  start
  eventually is_ready 1 0
  order load.2 wait
  order first.2 fail
  reload two
  eventually waits load.2
  first=$(pid_of 1024)
  kill -HUP "$first"
  rm load.2
  eventually logged "info: worker 1024 (pid $first) exited with status 0"
  eventually logged "reload failed: worker 1024 (pid [0-9]*) exited with status 5 .* before it was healthy"
  starts_of 1024 2
  logged_times 0 "has passed"
}

@test "HUP drops a trial that is under way, eight times in a row also while the code is loaded; then no number is left" {
  start -n 2 -w 0 -g 1000 -l debug
  eventually is_ready 1 0
  eventually is_ready 1 1
  old=$(pids)
  open=$(open_files)
  deploy two
  order load.2 wait
  for count in 1 2 3 4 5 6 7 8; do
    signal HUP
    eventually waits load.2 $count
    logged "info: reload: trying the new code as worker $((1023 + count))\$"
    logged_times $((count - 1)) "info: reload: the trial of worker [0-9]* is dropped\$"
    logged_times $((count - 1)) "worker 10[0-9]* .* is asked to end"
    eventually has_open $((open + 1))
  done
  signal HUP
  eventually logged "error: reload failed: all extra numbers have workers of earlier reloads; the pool keeps its code"
  logged "reload: the trial of worker 1031 is dropped"
  eventually has_open "$open"
  # The first that is free is taken.
  kill -KILL "$(pid_of 1027)" "$(pid_of 1029)"
  eventually logged_times 2 "worker 10.. .*ended by signal 9"
  signal HUP
  eventually waits load.2 9
  logged_times 2 "trying the new code as worker 1027"
  logged_times 1 "worker 1029 .*started"
  [ "$(living "$master" | wc -l)" -eq 9 ]
  for pid in $old; do kill -0 "$pid"; done
  # Of all these workers only the last one's code is tried.
  rm load.2
  eventually logged "reload complete"
  eventually has_workers 2
  logged_at_least 6 "info: worker 10.. (pid [0-9]*) exited with status 0"
  is_ready 2 1027
  logged_times 1 "has passed"
  logged_times 1 "reload failed"
  eventually has_open "$open"
}

@test "the worker of a dropped trial may finish its first task, and is killed if it hangs while it is loaded, without harm to others" {
  needs_virtual_time
  start_virtual -t 1000 -l debug
  eventually is_ready 1 0
  order load.2.1024 wait
  reload two
  eventually waits load.2.1024
  order first.2.1025 wait
  signal HUP
  eventually waits first.2.1025
  time_to 9000
  eventually logged "worker 1024 (pid [0-9]*) was not loaded within 8\.000 s and is killed"
  eventually logged "worker 1024 (pid [0-9]*) was ended by signal 9"
  logged_times 0 "reload failed"
  # The next one has its number, and passes while 1025 is still there.
  rm load.2.1024
  signal HUP
  eventually is_ready 2 1024
  time_to 20000
  eventually logged "reload complete"
  time_until 40000
  logged_times 1 killed
  logged_times 1 "worker 1025 (pid [0-9]*) is asked to end"
  rm first.2.1025
  eventually logged "info: worker 1025 (pid [0-9]*) exited with status 0"
  eventually has_workers 1
}

@test "a reload of the very file that the pool runs goes on, and the log says so" {
  said="info: reload: ./code.so is the very file that the pool runs already"
  start -w 0
  eventually is_ready 1 0
  signal HUP
  eventually logged "reload complete"
  logged_times 1 "$said"
  # It is no other one because its content or its time is, but because it takes the place of the first.
  mv code.so old.so
  for change in "cp old.so code.so" "touch -d 2001-01-01 code.so" "ln -f old.so code.so"; do
    times=$(grep -c "reload complete" log)
    $change
    signal HUP
    eventually logged_times $((times + 1)) "reload complete"
  done
  logged_times 2 "$said"
  # Nor is that known of commands.
  anew
  run_forkd -w 0 sleep 1000
  eventually has_workers 1
  signal HUP
  eventually logged "reload: trying"
  logged_times 0 "very file"
}

@test "USR1, USR2 and crashes during a trial keep their effect" {
  needs_linux "the code is pinned"
  start -n 3 -w 0 -g 1000
  for number in 0 1 2; do eventually is_ready 1 $number; done
  order load.2 wait
  reload two
  eventually waits load.2
  signal USR1
  eventually has_workers 5
  signal USR2
  eventually has_workers 4
  signal USR2
  eventually has_workers 3
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually is_replaced 0 "$old"
  eventually has_workers 3
  kill -KILL "$(pid_of 1024)"
  eventually logged "reload failed: worker 1024 (pid [0-9]*) was ended by signal 9 .* before it was healthy"
  has_workers 2
}

@test "TERM during a trial ends the pool in an orderly way" {
  needs_virtual_time
  start_virtual -n 2 -g 2
  eventually is_ready 1 0
  eventually is_ready 1 1
  order load.2 stay
  reload two
  eventually waits load.2
  signal TERM
  eventually has_workers 1
  rm time
  ends_with 3
  logged "worker 0 (pid [0-9]*) exited with status 0"
  logged "worker 1024 (pid [0-9]*) has not ended and is killed"
  # Dropped is not failed.
  logged_times 0 "reload failed"
}

@test "commands: one that cannot be executed or fails in the warm-up has failed, HUP drops a trial, and 0 passes it" {
  printf '#!/bin/sh\necho up\nexec sleep 1000\n' >job
  chmod +x job
  cp job old
  run_forkd -w 1000 -n 2 ./job
  eventually printed_times 2 "^up"
  rm job
  reload_fails "worker 1024 (pid [0-9]*) could not start: cannot execute './job': No such file or directory"
  printf '#!/bin/sh\nexit 3\n' >old && mv old job && chmod +x job
  reload_fails "worker 1024 (pid [0-9]*) exited with status 3 after [0-9.]* s before it was healthy"
  printf '#!/bin/sh\n[ ! -e go ] || exit 0\nexec sleep 1000\n' >job
  signal HUP
  eventually logged_times 3 "worker 1024 (pid [0-9]*) started"
  dropped=$(pid_of 1024)
  signal HUP
  eventually logged "reload: trying the new code as worker 1025"
  eventually logged "info: worker 1024 (pid $dropped) "
  touch go
  signal HUP
  eventually starts_of 1024 4
  eventually logged "info: worker 1024 (pid $(pid_of 1024)) exited with status 0"
  eventually logged "the new code has passed its trial"
  logged_times 2 "reload failed"
}

@test "what an extra worker has shown in the reload before proves nothing in the next" {
  # They return 0 at once, and so does the extra one, which waits for its next start when the roll ends.
  order first.1 return
  start -w 1000
  eventually starts_of 0 2
  signal HUP
  eventually logged "reload complete"
  # (On a slow machine it may run just then, and another number is tried.)
  order load.2 wait
  reload two
  eventually waits load.2
  logged_times 1 "has passed its trial"
  rm load.2
}

@test "a command is tried for as long as its execution may fail, even with -w 0" {
  needs_virtual_time
  echo 0 >time
  run_virtual -w 0 sh -c 'echo up; exec sleep 1000'
  eventually printed_times 1 "^up"
  signal HUP
  eventually printed_times 2 "^up"
  time_until 99
  logged_times 0 "has passed"
  time_to 110
  eventually logged "has passed"
}

@test "fork that fails ends the reload, also when it fails for the pool, but not the trial of a worker that runs" {
  needs_virtual_time
  start_virtual -w 1000 -t 1000
  eventually is_ready 1 0
  touch no_fork
  reload two
  eventually logged "error: reload failed: cannot fork: Resource temporarily unavailable; the pool keeps its code"
  # It is no failure of the pool, which would delay its next fork.
  logged_times 0 "next try"
  kill -KILL "$(ready_pid 1 0)"
  eventually logged "worker 0 (pid [0-9]*) was ended by signal 9"
  time_to 300
  eventually logged "cannot fork: Resource temporarily unavailable; next try in 0\.100 s"
  signal HUP
  eventually logged_times 2 "reload failed: cannot fork"
  rm no_fork
  order first.2.1024 wait
  time_to 1000
  signal HUP
  eventually waits first.2.1024
  touch no_fork
  signal USR1
  eventually logged_at_least 2 "cannot fork: .*; next try in"
  rm no_fork first.2.1024
  rm time
  eventually logged "reload complete"
  logged_times 2 "reload failed"
}

@test "new code that hangs in its trial has failed when it is aborted, not when it ends" {
  start -w 0 -t 1 -c 1000 -g 1000
  eventually is_ready 1 0
  order task.2.1024 stay
  reload two
  eventually logged "error: reload failed: worker 1024 (pid [0-9]*) has not yielded for 1\.000 s; the pool keeps its code"
  eventually logged "error: worker 1024 (pid [0-9]*) has not yielded for 1\.000 s and is aborted"
  kill -0 "$(pid_of 1024)"
}
