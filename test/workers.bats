#!/usr/bin/env bats
# What a worker gets, and what the three functions do in it.

load helper

@test "the example prints ping in every worker" {
  run_forkd -n 2 "$BIN/worker.so:run"
  eventually printed_lines 2
  [ "$(sort -u out)" = ping ]
}

@test "a function worker gets the specification and the arguments as main does" {
  run_forkd "$W:arguments" one 'two words' ''
  eventually printed "^worker 0: \[$W:arguments\] \[one\] \[two words\] \[\] end$"
}

@test "the last colon separates the path from the symbol" {
  mkdir a:b
  cp "$W" a:b/
  run_forkd a:b/workers.so:steady
  eventually logged "worker 0 (pid [0-9]*) started"
  stops_with 0
}

@test "a path without a slash is a file here, not one of a library search path" {
  cp "$W" local.so
  mkdir other
  cp "$BIN/undefined.so" other/local.so
  LD_LIBRARY_PATH=$PWD/other run_forkd local.so:arguments
  eventually printed "worker 0: \[local.so:arguments\] end"
}

@test "worker numbers are dense, and the successor of a worker has its number" {
  run_forkd -n 3 "$W:environment" FORKD_WORKER
  eventually printed_lines 3
  [ "$(cut -d' ' -f1 out | sort | tr '\n' ' ')" = "FORKD_WORKER=0 FORKD_WORKER=1 FORKD_WORKER=2 " ]
  old=$(pid_of 1)
  kill -KILL "$old"
  eventually is_replaced 1 "$old"
  eventually printed "FORKD_WORKER=1 pid=$(pid_of 1)$"
}

@test "returning ends a worker as exit does: destructors, atexit and stdio's buffers" {
  run_forkd "$W:leaves_by_return"
  eventually printed atexit
  printed buffered
  eventually logged "exited with status 0"
}

@test "a value that is returned is the exit status" {
  run_forkd "$W:returns" 7 healthy
  eventually logged "worker 0 (pid [0-9]*) exited with status 7"
}

@test "a worker starts with the signal mask and the dispositions forkd was started with" {
  not_emulated "the host sees the signals of the emulator"
  # HUP, INT, QUIT and TERM are caught, and USR1 and USR2 ignored; all else is as it was.
  caught=$((0x4007)) ignored=$((0xa00))
  for trapped in "" "USR1 ALRM PIPE TERM"; do
    (
      for name in $trapped; do trap '' "$name"; done
      cat /proc/self/status >before
      exec "$FORKD" "$W:dispositions" >now 2>>log 3>&-
    ) &
    eventually grep -q -s SigCgt now
    [ "$(mask SigIgn now)" -eq $((($(mask SigIgn before) & ~caught) | ignored)) ]
    [ "$(mask SigCgt now)" -eq "$caught" ]
    [ "$(mask SigBlk now)" -eq 0 ]
    rm now
  done
}

@test "a worker has none of the master's descriptors, at the start, in a trial and during one" {
  needs_linux "the code is pinned"
  deploy workers
  # A log in a pipe and a service manager need one more each.
  mkfifo pipe
  background cat pipe >>log
  (
    for fd in 3 4 5 6 7 8 9; do eval "exec $fd>&-"; done
    NOTIFY_SOCKET=$PWD/nowhere exec "$FORKD" ./code.so:descriptors >>out 2>pipe
  ) &
  master=$!
  eventually printed_lines 1
  deploy workers
  signal HUP
  eventually logged "reload complete"
  eventually printed_lines 3
  # Moved, not removed: the worker that is added meanwhile finds it by its name.
  mv code.so old.so
  deploy ctor_hang
  signal HUP
  eventually logged_times 2 "worker 1024 (pid [0-9]*) started"
  signal USR1
  eventually printed_lines 4
  # What the shell keeps open lies above.
  cat out
  [ "$(sed 's/ [1-9][0-9].*//' out | sort -u)" = "open: 0 1 2" ]
}

@test "a worker's environment is that of forkd, but for what says something about this worker" {
  not_emulated "the emulator needs an environment"
  for sockets in "" "-b ./socket"; do
    rm -f log
    : >out
    background env -i FIRST=1 FORKD_WORKER=7 SECOND=2 NOTIFY_SOCKET=/nowhere LISTEN_PID=1 LISTEN_FDS=5 \
      FORKD_WORKERS=3 NOTIFY_SOCKETS=4 EMPTY= "$FORKD" $sockets "$W:prints_environment" >>out 2>>log
    master=$background
    eventually printed "^pid "
    # In the same order.
    {
      printf '%s\n' FIRST=1 SECOND=2
      [ -z "$sockets" ] || echo LISTEN_FDS=1
      printf '%s\n' FORKD_WORKERS=3 NOTIFY_SOCKETS=4 EMPTY= FORKD_WORKER=0
      [ -z "$sockets" ] || echo "LISTEN_PID=$(pid_of 0)"
      echo "pid $(pid_of 0)"
    } >expected
    diff expected out
    stops_with 0
  done
}

@test "a worker starts with the mask that forkd was started with, but for what means something to it" {
  not_emulated "it runs what the tests have built"
  alrm=14
  for number in $alrm 15; do
    : >out
    "$BIN/with_archive" blocked $number "$FORKD" "$W:dispositions" >>out 2>>log 3>&- &
    master=$!
    eventually printed SigCgt
    [ "$(mask SigBlk out)" -eq $((number == alrm ? 1 << (alrm - 1) : 0)) ]
    stops_with 0
  done
}

@test "with 0, 1 and 2 closed a worker does not write into its own files" {
  "$FORKD" "$W:descriptors" <&- >&- 2>&- 3>&- &
  pid=$!
  eventually has_child "$pid"
  child=$(living "$pid")
  eventually has_only_null_open "$child"
  kill -TERM "$pid"
  wait "$pid"
}
has_child() { [ -n "$(living "$1")" ]; }
has_only_null_open() { [ "$(readlink "/proc/$1/fd/2")" = /dev/null ]; }

@test "the stop descriptor becomes readable at a request, and stays so" {
  run_forkd "$W:polls"
  eventually printed polling
  stops_with 0
  printed '^stop 1 1 0$'
}

@test "the stop descriptor is readable at once when the request came before it was asked for" {
  run_forkd "$W:asks_too_late"
  eventually printed "^readable 1$"
}

@test "without a descriptor to be had there is no stop descriptor; later there is, the same at each call" {
  run_forkd "$W:asks_without_descriptors"
  eventually printed "^without -1 EMFILE$"
  eventually printed "^with 1 again 1 more 2 closed on exec 2 blocks 0$"
  eventually printed "^readable 1$"
}

@test "a request leaves the worker's errno alone" {
  run_forkd "$W:keeps_errno"
  eventually printed "^errno 0$"
}

@test "a worker that has not asked for the stop descriptor gets no signal, whatever its predecessor did" {
  run_forkd -n 2 -l debug "$W:only_first_asks" "$PWD/asked"
  eventually test -e asked
  kill -KILL "$(pid_of 1)"
  eventually printed next
  eventually starts_of 1 2
  signal USR2
  eventually logged "the target is now 1"
  signal USR1
  # By now it would have had the signal.
  eventually logged "the target is now 2"
  kill -TERM "$(pid_of 1)"
  eventually starts_of 1 3
  never printed hup
}

@test "the stop descriptor becomes readable when the worker itself gets a signal" {
  run_forkd "$W:polls"
  eventually printed polling
  old=$(pid_of 0)
  kill -HUP "$old"
  eventually is_replaced 0 "$old"
  printed '^stop 1 1 0$'
}

@test "the stop descriptor is readable when a yield says 0, also where the signal is blocked" {
  run_forkd "$W:blocks_hup"
  eventually printed "^polling"
  stops_with 0
  printed "^stop 1"
}

@test "hundreds of workers that wait by the stop descriptor all see a request made at once" {
  not_emulated "hundreds of emulators are too many"
  run_forkd -n 300 "$W:polls"
  # The request may come before, while or after a worker asks for its descriptor.
  eventually printed polling
  stops_with 0
  [ "$(grep -c '^stop 1 1 0$' out)" -eq "$(grep -c polling out)" ]
}

@test "threads may yield at the same time" {
  run_forkd "$W:threads"
  eventually printed "threads yield"
  stops_with 0
  printed "threads done"
}

@test "a child of a worker is no worker: it yields 1, has no number, and signals end it alone" {
  for name in HUP INT QUIT TERM USR1 USR2; do
    : >out
    : >log
    run_forkd "$W:forks"
    eventually printed '^child [0-9]* yields 1 number -1$'
    worker=$(pid_of 0)
    kill -s $name "$(sed -n 's/^child \([0-9]*\) yields.*/\1/p' out)"
    eventually printed "^child ended by $(kill -l $name 2>/dev/null || echo '[0-9]*')"
    kill -0 "$worker"
    stops_with 0
  done
}

@test "a worker's child has default signals and none of the worker's requests, and may run a pool" {
  (
    trap '' HUP INT QUIT TERM USR1 USR2
    exec "$FORKD" "$W:forks_and_asks" >>out 2>>log 3>&-
  ) &
  master=$!
  # The handler for USR2 is the worker's own.
  eventually printed "^child has d d d d d h and 1 descriptors less$"
  eventually printed "^child's own pool 0$"
  kill -HUP "$(pid_of 0)"
  eventually printed "^child's stop descriptor is new and readable 0$"
}

@test "a process that a worker makes by clone alone ends by its own signal, and the worker stays" {
  [ "$(uname)" = Linux ] || skip "Linux only"
  run_forkd "$W:clones"
  eventually printed '^clone '
  clone=$(sed -n 's/^clone //p' out)
  worker=$(pid_of 0)
  kill -TERM "$clone"
  eventually printed "^clone ended by 15$"
  stops_with 0
  logged_times 1 started
}

@test "descriptors that the worker's own code opens while it is loaded are left alone" {
  cp "$BIN/ctor_files.so" code.so
  run_forkd ./code.so:steady
  eventually printed_times 5 "^child kept 6 of 6$"
  never printed "kept [0-5]"
}

@test "such descriptors are left alone also when the file has gone and the master's descriptor leads to it" {
  needs_linux "the code is pinned"
  cp "$BIN/ctor_files.so" code.so
  run_forkd ./code.so:steady
  eventually printed "^kept 6 of 6$"
  rm code.so
  : >out
  eventually printed_times 5 "^child kept 6 of 6$"
  never printed "kept [0-5]"
}

@test "forkd_run within a worker is refused" {
  run_forkd "$W:nested"
  eventually printed '^nested -1 EINVAL$'
}

@test "getopt works in a worker as in a fresh main" {
  run_forkd -l info "$W:options" one -x two --long=value three -- -y
  eventually printed "^opterr 1 x long=value operands one two three -y$"
}

@test "a worker that closes all descriptors finds nothing written into its own files" {
  run_forkd "$W:closes_all" "$PWD/file"
  eventually printed "^opened"
  kill -TERM "$(pid_of 0)"
  eventually logged "worker 0 (pid [0-9]*) exited with status 0"
  [ -f file ] && [ ! -s file ]
}

@test "a worker's fork leaves the files alone that it has opened under forkd's numbers" {
  run_forkd "$W:closes_all_and_forks" "$PWD/file"
  eventually printed "^in the child 20 of 20$"
}

@test "a function worker stays in the process group of forkd, where the terminal's signals reach it" {
  run_forkd "$W:steady"
  eventually logged "worker 0 (pid [0-9]*) started"
  [ "$(ps -o pgid= -p "$(pid_of 0)")" = "$(ps -o pgid= -p "$master")" ]
}

@test "function workers are called forkd and their number, and the master forkd" {
  needs_linux "a process has its name"
  not_emulated "the host sees the name of the emulator"
  run_forkd -n 2 "$W:steady"
  eventually has_workers 2
  eventually is_called "$(pid_of 1)" forkd-1
  is_called "$master" forkd
  stops_with 0
  # Also where the program has another name.
  cp "$FORKD" forkd-1.0
  FORKD=./forkd-1.0 run_forkd "$W:steady"
  eventually has_workers 1
  eventually is_called "$(living "$master")" forkd-0
}

@test "a worker that is still loading when it is asked to end begins no task" {
  run_forkd -l debug -n 2 "$BIN/ctor_waits.so:steady"
  eventually has_workers 2
  signal TERM
  eventually logged_times 2 "is asked to end"
  eventually is_state "$master" S
  touch go
  ends_with 0
  logged_times 2 "exited with status 0"
  never printed .
}

@test "a signal to a worker that has just been forked means what it means later" {
  command -v strace >/dev/null || skip "no strace"
  strace -f -o trace -e trace=prctl -e inject=prctl:delay_enter=300000:when=1 \
    "$FORKD" "$W:arguments" >>out 2>>log 3>&- &
  for name in USR1 USR2 HUP INT QUIT TERM; do
    eventually logged "worker 0 (pid [0-9]*) started"
    old=$(pid_of 0)
    kill -s $name "$old"
    case $name in
      USR*) eventually printed "^worker 0" ;;
      *)
        eventually is_replaced 0 "$old"
        logged "worker 0 (pid $old) exited with status 0"
        ;;
    esac
  done
}

@test "a worker that cannot notice the death of its master does not start" {
  needs_linux "the kernel tells workers that the master has died"
  command -v strace >/dev/null || skip "no strace"
  strace -f -o trace -e trace=prctl -e inject=prctl:error=EINVAL:when=1 "$FORKD" "$W:arguments" >>out 2>>log 3>&- &
  master=$!
  ends_with 1
  logged "critical: .*cannot set the parent-death signal: Invalid argument"
  never printed "worker 0"
}

@test "a worker whose master has died before the worker could notice ends all the same" {
  command -v strace >/dev/null || skip "no strace"
  strace -f -o trace -e trace=prctl -e inject=prctl:delay_enter=500000:when=1 \
    "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  eventually logged "worker 0 (pid [0-9]*) started"
  kill -KILL "$(sed -n 's/^forkd\[\([0-9]*\)].*/\1/p' log | head -n 1)"
  eventually gone_or_zombie "$(pid_of 0)"
}

@test "HUP, INT and QUIT to a worker leave its blocking read alone" {
  mkfifo fifo
  exec 8<>fifo
  run_forkd "$W:reads" "$PWD/fifo"
  for name in HUP INT QUIT; do
    eventually printed reading
    old=$(pid_of 0)
    # Within its read.
    eventually is_state "$old" S
    : >out
    kill -s $name "$old"
    eventually has_none_pending "$old"
    printf 'a' >&8
    eventually printed "^task a$"
    eventually is_replaced 0 "$old"
    never printed "read failed"
  done
  exec 8>&-
}
has_none_pending() { [ "$(mask ShdPnd "/proc/$1/status")" -eq 0 ]; }

@test "when the master dies by SIGKILL a worker finishes its task" {
  run_forkd "$W:tasks" tally
  eventually test -s tally
  old=$(pid_of 0)
  signal KILL
  eventually gone_or_zombie "$old"
  [ "$(grep -c begin tally)" -eq "$(grep -c end tally)" ]
}

@test "a worker that is still loading when it is asked to end runs what exit runs, with status 0" {
  # Its constructor takes as long as there is a file.
  cat >late.c <<'END'
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void load(void) {
  printf("buffered\n");
  dprintf(2, "loading\n");
  while (access("wait", F_OK) == 0) usleep(5000);
}
int run(void) { return 5; }
END
  "$CC" -shared -fPIC -o late.so late.c
  touch wait
  run_forkd ./late.so:run
  eventually logged loading
  signal TERM
  eventually logged "shutting down"
  rm wait
  ends_with 0
  printed buffered
  logged "worker 0 (pid [0-9]*) exited with status 0"
}

@test "what a worker loads in turn finds the worker's own functions" {
  cat >plugin.c <<'END'
int called_by_plugin(void);
int plugin(void) { return called_by_plugin(); }
END
  "$CC" -shared -fPIC -o plugin.so plugin.c
  run_forkd "$W:loads_plugin" ./plugin.so
  eventually printed "^plugin 42$"
}
