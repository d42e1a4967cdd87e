#!/usr/bin/env bats
# Command workers: programs that are executed, and end at SIGTERM.

load helper
load virtual

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

# traced_commands INJECTION [OPTION ...]: forkd with commands that sleep, while strace meddles with a system
# call of the master and of each worker.
traced_commands() {
  rm -f log
  strace -f -o trace -e trace=getppid,setpgid -e inject="$1" "$FORKD" "${@:2}" sleep 1000 >>out 2>>log 3>&- &
  tracer=$!
  # It logs once it has children; no worker has any.
  eventually logged "worker 0 (pid [0-9]*) started"
  master=$(living "$tracer")
}
# Each worker stops before it is executed, at the call that only workers make; until then all signals are
# blocked. Goes on with them until they have been executed.
hold=getppid:signal=SIGSTOP
lets_go() {
  kill -CONT "$1" && is_called "$1" sleep
}

@test "USR1 and USR2 that come before a command is executed were meant for the master, and harm nothing" {
  not_emulated "strace sees the emulator"
  command -v strace >/dev/null || skip "no strace"
  traced_commands $hold
  worker=$(pid_of 0)
  kill -USR1 "$worker"
  kill -USR2 "$worker"
  is_pending USR1
  is_pending USR2
  # It is executed, with default signals.
  eventually lets_go "$worker"
  logged_times 1 started
}
is_pending() { [ $(($(mask ShdPnd "/proc/$worker/status") >> ($(kill -l "$1") - 1) & 1)) -eq 1 ]; }

@test "a command leads its process group from the start, whoever of master and command is slow" {
  not_emulated "strace sees the emulator"
  command -v strace >/dev/null || skip "no strace"
  # The master never does its part;
  strace -o trace -e trace=setpgid -e inject=setpgid:retval=0 \
    "$FORKD" sh -c 'ps -o pgid= -p $$ >group; echo $$ >own; exec sleep 1000' >>out 2>>log 3>&- &
  eventually test -s own
  [ $(($(cat group))) -eq "$(cat own)" ]
  # and the command does not come to its own.
  traced_commands $hold
  leads_group "$(pid_of 0)"
}
leads_group() { [ $(($(ps -o pgid= -p "$1"))) -eq "$1" ]; }

@test "a command has what was in the environment, its number and the sockets, and nothing else" {
  # None that forkd replaces or takes out is there at first.
  env -i PATH="$PATH" FIRST=1 LAST=2 \
    "$FORKD" -b ./socket sh -c 'env >new; mv new environment; exec sleep 1000' >>out 2>>log 3>&- &
  master=$!
  eventually test -e environment
  # (The shell has some of its own.)
  [ "$(grep -v '^\(_\|PWD\|OLDPWD\|SHLVL\)=' environment | sort)" = "$(printf '%s\n' FIRST=1 FORKD_WORKER=0 LAST=2 \
    LISTEN_FDS=1 "LISTEN_PID=$(pid_of 0)" "PATH=$PATH" | sort)" ]
  stops_with 0
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
  logged "critical: .*cannot execute 'no-such-command-anywhere': No such file or directory in PATH$"
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
  logged "cannot execute './job': No such file or directory, or its interpreter is missing"
  run_forkd job
  ends_with 1
  logged "cannot execute 'job': No such file or directory in PATH; for the file here put ./ before it"
  run_forkd 'python3 job.py'
  ends_with 1
  logged "cannot execute 'python3 job.py': No such file or directory in PATH$"
  run_forkd node:18
  ends_with 1
  logged "cannot load node:18: No such file or directory (a colon makes it PATH:SYMBOL; put 'env' before a command)"
}

@test "the master gives up on commands that fail at once and always" {
  run_forkd false
  ends_with 1
  logged_times 5 "exited with status 1"
}

@test "a command that has run for the warm-up time, or ends with 0, was healthy: the master does not give up" {
  # Once: from then on it fails at once.
  run_forkd -w 0.1 -s state sh -c '[ ! -e ran ] || exit 4; until [ -e go ]; do sleep 0.02; done; >ran; exit 4'
  eventually await line state 1 - "^healthy=1"
  touch go
  eventually logged_at_least 5 "exited with status 4"
  # It would be over now.
  eventually starts_of 0 6
  signal KILL
  rm log
  run_forkd true
  eventually starts_of 0 6
  never logged "giving up"
}

@test "a command that disappears later does not end the pool" {
  printf '#!/bin/sh\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -w 0 -n 2 ./job
  # Healthy: its reload is complete.
  eventually has_workers 2
  signal HUP
  eventually logged "reload complete"
  eventually has_workers 2
  mv job hidden
  old=$(pid_of 0)
  kill -KILL "$old"
  eventually logged "error: worker 0 .*could not start: cannot execute './job': No such file"
  never logged critical
  mv hidden job
  eventually has_workers 2
}

@test "a command is reloaded, too" {
  run_forkd -w 0 -n 2 sh -c 'echo "number $FORKD_WORKER"; exec sleep 1000'
  eventually printed_lines 2
  before=$(living "$master" | tr '\n' ' ')
  signal HUP
  eventually logged "reload complete"
  eventually new_pids "$before"
  eventually has_workers 2
  printed "number 1024"
}

@test "a command that fails leaves the pool as it is" {
  printf '#!/bin/sh\necho up\nexec sleep 1000\n' >job
  chmod +x job
  run_forkd -n 2 ./job
  eventually printed_times 2 up
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

# It ends by itself when forkd has ended.
left_group='$SIG{TERM} = "IGNORE"; $parent = getppid(); setpgrp(0, getpgrp($parent)) or die; $| = 1; print "left\n"; select(undef, undef, undef, 0.05) while getppid() == $parent'

@test "a command that has left its process group is killed all the same" {
  command -v perl >/dev/null || skip "no perl"
  run_forkd -g 0.5 perl -e "$left_group"
  eventually printed left
  old=$(pid_of 0)
  stops_with 3
  gone_or_zombie "$old"
  logged "worker 0 (pid $old) has not ended and is killed"
}

@test "a command that cannot be killed, and whose group is gone, is not waited for" {
  command -v perl >/dev/null && command -v strace >/dev/null || skip "needs perl and strace"
  # TERM and CONT come before that.
  strace -o trace -e trace=kill -e inject=kill:error=EPERM:when=3 \
    "$FORKD" -g 0.5 perl -e "$left_group" >>out 2>>log 3>&- &
  tracer=$!
  eventually printed left
  kill -TERM "$(living "$tracer")"
  master=$tracer
  ends_with 3
  logged "worker 0 (pid [0-9]*) has not ended and cannot be killed: Operation not permitted"
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

# A shell whose job needs its time: TERM ends the shell at once, and the job, which gets it then, when the
# file "over" is there. It says whether its master still lives, and how many workers were started. (If the
# test fails it is nobody's child any more, and ends with the test's folder.)
wrapped='cd . && forkd=$PPID sh ./job.sh; :'
write_job() {
  cat >job.sh <<'END'
trap 'asked=yes; echo asked' TERM
echo ready
until [ -e over ] && [ "$asked" ] || [ ! -e job.sh ]; do sleep 0.02; done
sleep 0.3
kill -0 "$forkd" && echo "end $(grep -c started log)"
END
}

@test "what the leader of a command leaves is awaited: by its successor, and by a shutdown" {
  write_job
  touch over
  run_forkd -g 1000 sh -c "$wrapped"
  eventually printed ready
  kill -KILL "$(pid_of 0)"
  eventually printed_times 2 ready
  printed "^end 1$"
  stops_with 0
  logged "info: worker 0 (pid [0-9]*) was ended by signal 15"
  printed "^end 2$"
}

@test "what the leader of a command leaves is awaited also where forkd may not signal it" {
  needs_virtual_time
  write_job
  touch no_right
  echo 0 >time
  run_virtual -g 1000 sh -c "$wrapped"
  eventually printed ready
  kill -KILL "$(pid_of 0)"
  eventually printed asked
  time_until 1000
  logged_times 1 "started$"
  touch over
  rm time
  eventually logged_times 2 "started$"
  printed "^end 1$"
}

@test "what the leader of a command leaves is killed at the end of the grace period: status 3; with -g 0 never" {
  needs_virtual_time
  write_job
  while IFS='|' read -r options killed status; do
    anew
    rm -f over
    shut_down ready ${options//,/ } sh -c "$wrapped"
    eventually logged "worker 0 (pid [0-9]*) was ended by signal 15"
    if [ $status = 3 ]; then
      rm time
    else
      time_until 20000
      touch over
      rm time
    fi
    ends_with "$status"
    [ "$(times 'kill 9')" = "$killed" ]
  done <<'END'
-g,3|3000|3
-g,0||0
END
  logged_times 0 "is killed"
}
shut_down() {
  echo 0 >time
  run_virtual "${@:2}"
  eventually printed "$1"
  signal TERM
  eventually printed asked
}

@test "what the leader of a command leaves is killed by a second TERM: status 3" {
  write_job
  run_forkd -g 1000 sh -c "$wrapped"
  eventually printed ready
  signal TERM
  eventually printed asked
  pause 0.15
  signal TERM
  ends_with 3
  logged "warning: what worker 0 (pid $(pid_of 0)) has left has not ended and is killed"
}

@test "a zombie that a command leaves in its group holds up no shutdown that kills: status 3" {
  not_emulated "it runs what the tests have built"
  touch stay
  run_forkd -g 1000 "$BIN/with_archive" zombie
  eventually logged "worker 0 (pid [0-9]*) exited with status 0"
  signal TERM
  eventually logged "shutting down"
  pause 0.15
  logged_times 1 " started"
  signal TERM
  ends_with 3
  logged "warning: what worker 0 (pid $(pid_of 0)) has left has not ended and is killed"
}
