#!/usr/bin/env bats
# Command workers: programs that are executed, and end at SIGTERM.

load helper

@test "a command worker is found along PATH and gets its arguments" {
  mkdir bin
  printf '#!/bin/sh\necho "command $* number $FORKD_WORKER"\nexec sleep 100\n' >bin/some-command
  chmod +x bin/some-command
  PATH=$PWD/bin:$PATH run_forkd -n 2 -- some-command a "b c"
  eventually printed '^command a b c number 0$'
  eventually printed '^command a b c number 1$'
  stops_with 0
}

@test "a command starts with the signal dispositions forkd was started with" {
  not_emulated "the host sees the signals of the emulator"
  (
    trap '' USR1 ALRM
    cat /proc/self/status >before
    exec "$FORKD" sh -c 'cat /proc/self/status; exec sleep 1000' >out 2>>log 3>&-
  ) &
  eventually printed SigCgt
  [ "$(mask SigBlk out)" -eq 0 ]
  [ "$(mask SigIgn out)" -eq "$(mask SigIgn before)" ]
  [ "$(mask SigCgt out)" -eq 0 ]
}

@test "a command starts with the signal mask forkd was started with" {
  not_emulated "it runs what the tests have built"
  usr1=$(kill -l USR1)
  "$BIN/with_archive" blocked "$usr1" "$FORKD" cat /proc/self/status >>out 2>>log 3>&- &
  master=$!
  eventually printed SigCgt
  sed '/SigBlk/q' out >first
  [ "$(mask SigBlk first)" -eq $((1 << (usr1 - 1))) ]
}

@test "USR1 and USR2 that come before a command is executed were meant for the master, and harm nothing" {
  not_emulated "strace sees the emulator"
  needs_linux "a worker begins by prctl(2), which is made slow here"
  command -v strace >/dev/null || skip "no strace"
  eventually signalled_in_time
  # It has been executed, with default signals.
  eventually is_called "$(living "$master")" sleep
  logged_times 1 started
}
# Several tries, for it is over in half a second. Until then all signals are blocked.
signalled_in_time() {
  rm -f log
  strace -f -o trace -e trace=prctl -e inject=prctl:delay_enter=500000:when=1 \
    "$FORKD" sleep 1000 >>out 2>>log 3>&- &
  tracer=$!
  eventually logged "worker 0 (pid [0-9]*) started"
  master=$(sed -n 's/^forkd\[\([0-9]*\)].*/\1/p' log | head -n 1)
  worker=$(pid_of 0)
  kill -USR1 "$worker" && kill -USR2 "$worker" && is_pending USR1 && is_pending USR2
}
is_pending() { [ $(($(mask ShdPnd "/proc/$worker/status") >> ($(kill -l "$1") - 1) & 1)) -eq 1 ]; }

@test "a command leads its process group from the start, whoever of master and command is slow" {
  command -v strace >/dev/null || skip "no strace"
  # The command runs before the master has done its part;
  strace -o trace -e trace=setpgid -e inject=setpgid:delay_enter=300000 \
    "$FORKD" sh -c 'ps -o pgid= -p $$ >group; echo $$ >own; exec sleep 1000' >>out 2>>log 3>&- &
  eventually test -s own
  [ "$(tr -d ' ' <group)" = "$(cat own)" ]
  # and the master goes on before the command has. Each process's first call is slow, so it is the
  # second worker.
  rm log
  strace -f -o trace -e trace=setpgid -e inject=setpgid:delay_enter=500000:when=1 \
    "$FORKD" -n 2 sleep 1000 >>out 2>>log 3>&- &
  eventually logged "worker 1 (pid [0-9]*) started"
  [ "$(ps -o pgid= -p "$(pid_of 1)" | tr -d ' ')" = "$(pid_of 1)" ]
}

@test "a command has none of the master's descriptors" {
  run_forkd sh -c 'ls /proc/self/fd >fds; echo listed; exec sleep 100' 4>&- 5>&- 6>&-
  eventually printed listed
  for fd in $(cat fds); do
    # 3 is the folder that ls reads; and what was open where forkd was started may be there.
    [ "$fd" -le 3 ] || [ -e "/proc/$$/fd/$fd" ] || { echo "descriptor $fd"; return 1; }
  done
}

@test "a command that does not exist ends the master with 1 and its name" {
  run_forkd -n 3 no-such-command-anywhere
  ends_with 1
  logged "critical: .*cannot execute 'no-such-command-anywhere': it is not in PATH, or its interpreter is missing$"
}

@test "a command that may not be executed ends the master with 1 and the reason" {
  echo 'exit 0' >plain
  run_forkd ./plain
  ends_with 1
  logged "cannot execute './plain': Permission denied"
  mkdir bin
  mv plain bin/plain-command
  rm log
  PATH=$PWD/bin:$PATH run_forkd plain-command
  ends_with 1
  logged "cannot execute 'plain-command': Permission denied"
}

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

@test "a command that fails at once and always makes the master give up" {
  run_forkd false
  ends_with 1
  logged_times 5 "exited with status 1"
}

@test "a command that has run for the warm-up time was healthy: the master does not give up" {
  run_forkd -w 0.2 sh -c 'sleep 0.3; exit 4'
  eventually logged_at_least 6 "exited with status 4"
  kill -0 "$master"
}

@test "the master does not give up on commands that end with 0" {
  run_forkd true
  eventually starts_of 0 8
  kill -0 "$master"
}

@test "a command that disappears later does not end the pool" {
  printf '#!/bin/sh\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -w 1 -n 2 ./job
  # Healthy: a second after its exec.
  eventually lived "$(pid_of 1)" 2
  mv job hidden
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually logged "error: worker 0 .*could not start: cannot execute './job': No such file"
  never logged critical
  mv hidden job
  eventually starts_of 0 3
  eventually has_workers 2
}

@test "a command is reloaded, too" {
  run_forkd -w 0.3 -n 2 sh -c 'echo "number $FORKD_WORKER"; exec sleep 1000'
  eventually printed_lines 2
  before=$(living "$master" | tr '\n' ' ')
  signal HUP
  eventually logged "reload succeeded"
  eventually new_pids "$before"
  eventually has_workers 2
  printed "number 1024"
}

@test "a command that fails leaves the pool as it is" {
  printf '#!/bin/sh\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -n 2 ./job
  eventually has_workers 2
  printf '#!/bin/sh\nexit 5\n' >next
  chmod +x next
  mv next job
  reload_fails "worker 1024 .* exited with status 5 after .* before it was healthy"
  rm job
  reload_fails "cannot execute './job': No such file or directory"
}

@test "a stopped command sees TERM" {
  run_forkd sleep 1000
  eventually has_workers 1
  pid=$(pid_of 0)
  kill -STOP "$pid"
  eventually is_state "$pid" T
  stops_with 0
  logged "ended by signal 15"
}

@test "what a command has started ends with it" {
  run_forkd sh -c 'sleep 777 & echo $! >>children; wait'
  eventually test -s children
  # It crashes: its successor starts, and what it has left behind gets TERM.
  kill -KILL "$(pid_of 0)"
  eventually gone_or_zombie "$(head -n 1 children)"
  eventually has_lines 2 children
  stops_with 0
  eventually gone_or_zombie "$(tail -n 1 children)"
}
has_lines() { [ "$(wc -l <"$2")" -ge "$1" ]; }

@test "a command that has to be killed is killed with what it has started" {
  run_forkd -g 0.5 sh -c 'trap "" TERM; sleep 777 & echo $! >child; while :; do sleep 1; done'
  eventually test -s child
  stops_with 3
  eventually gone_or_zombie "$(cat child)"
}

@test "a command that has left its process group is killed all the same" {
  command -v perl >/dev/null || skip "no perl"
  run_forkd -g 0.5 perl -e '$SIG{TERM} = "IGNORE"; setpgrp(0, getpgrp(getppid())) or die; print "left\n"; $| = 1; print "."; sleep 1 while 1'
  eventually printed left
  old=$(pid_of 0)
  stops_with 3
  gone_or_zombie "$old"
}

@test "a command that was asked to end before gets TERM again at the shutdown" {
  run_forkd -n 2 -g 30 sh -c 'n=0; trap "n=\$((n + 1)); echo term >>terms; [ \$n -lt \$((1 + FORKD_WORKER)) ] || exit 0" TERM
    echo ready >>ready; while :; do sleep 0.05; done'
  eventually has_lines 2 ready
  signal USR2
  eventually test -s terms
  stops_with 0
  [ "$(wc -l <terms)" -eq 3 ]
}

@test "when the master dies by SIGKILL commands end, too" {
  needs_linux "the kernel tells workers that the master has died"
  run_forkd -n 2 sleep 1000
  eventually has_workers 2
  pids=$(living "$master")
  signal KILL
  for pid in $pids; do eventually gone_or_zombie "$pid"; done
}
