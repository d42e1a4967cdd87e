#!/usr/bin/env bats
# What a worker gets, and what the three functions do in it.

load helper

@test "the example prints ping in every worker" {
  run_forkd -n 2 "$BIN/worker.so:run"
  eventually printed_lines 2
  [ "$(sort -u out)" = ping ]
}

@test "a function worker is found at a path, up to the last colon and in no search path, and gets its arguments as main does" {
  mkdir a:b other
  cp "$W" a:b/
  cp "$W" local.so
  cp "$BIN/undefined.so" other/local.so
  run_forkd "$W:arguments" one 'two words' ''
  run_forkd a:b/workers.so:arguments
  LD_LIBRARY_PATH=$PWD/other run_forkd local.so:arguments
  eventually printed "^worker 0: \[$W:arguments\] \[one\] \[two words\] \[\] end$"
  eventually printed "^worker 0: \[a:b/workers.so:arguments\] end$"
  eventually printed "^worker 0: \[local.so:arguments\] end$"
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

@test "returning ends a worker as exit does: destructors, atexit, stdio's buffers, and the value is its status" {
  run_forkd "$W:leaves_by_return" 7
  eventually logged "worker 0 (pid [0-9]*) exited with status 7"
  [ "$(head -n 2 out | tr '\n' ' ')" = "buffered atexit " ]
}

@test "a worker starts with the signal mask and the dispositions forkd was started with, but for what means something to it" {
  not_emulated "the host sees the signals of the emulator"
  # HUP, INT, QUIT and TERM are caught, and USR1 and USR2 ignored; all else is as it was.
  caught=$((0x4007)) ignored=$((0xa00)) alrm=14 term=15
  for how in as-it-is ignored $alrm $term; do
    (
      case $how in
        ignored) trap '' USR1 ALRM PIPE TERM ;;
        [0-9]*) set -- "$BIN/with_archive" blocked $how ;;
      esac
      "$@" cat /proc/self/status >before
      exec "$@" "$FORKD" "$W:dispositions" >now 2>>log 3>&-
    ) &
    eventually grep -q -s SigCgt now
    [ "$(mask SigIgn now)" -eq $((($(mask SigIgn before) & ~caught) | ignored)) ]
    [ "$(mask SigCgt now)" -eq "$caught" ]
    blocked=0
    [ $how != $alrm ] || blocked=$((1 << (alrm - 1)))
    [ "$(mask SigBlk now)" -eq $blocked ]
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
    NOTIFY_SOCKET=$PWD/nowhere exec "$FORKD" -w 0 ./code.so:descriptors >>out 2>pipe
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
  given="FIRST=1 FORKD_WORKER=7 SECOND=2 NOTIFY_SOCKET=/nowhere LISTEN_PID=1 LISTEN_FDS=5 FORKD_WORKERS=3 NOTIFY_SOCKETS=4 EMPTY="
  for variables in "" "$given"; do
    for sockets in "" "-b ./socket"; do
      echo "'$variables' '$sockets'"
      rm -f log out
      background env -i $variables "$FORKD" $sockets "$W:prints_environment" >>out 2>>log
      master=$background
      eventually printed "^pid "
      {
        [ -z "$variables" ] || printf '%s\n' FIRST=1 SECOND=2 FORKD_WORKERS=3 NOTIFY_SOCKETS=4 EMPTY=
        [ -z "$sockets" ] || printf '%s\n' LISTEN_FDS=1 "LISTEN_PID=$(pid_of 0)"
        printf '%s\n' FORKD_WORKER=0 "pid $(pid_of 0)"
      } | sort >expected
      sort out | diff expected -
      stops_with 0
    done
  done
}

@test "with 0, 1 and 2 closed a worker does not write into its own files" {
  "$FORKD" "$W:descriptors" <&- >&- 2>&- 3>&- &
  master=$!
  eventually has_workers 1
  for fd in 0 1 2; do [ "$(readlink "/proc/$(living "$master")/fd/$fd")" = /dev/null ]; done
  stops_with 0
}

@test "the stop descriptor becomes readable at a request or when the worker itself gets a signal, and stays so" {
  # For that long no other signal wakes it.
  run_forkd -g 1000 "$W:polls"
  eventually printed polling
  old=$(pid_of 0)
  kill -HUP "$old"
  eventually is_replaced 0 "$old"
  printed '^stop 1 1 0$'
  eventually printed_times 2 polling
  stops_with 0
  printed_times 2 '^stop 1 1 0$'
}

@test "the stop descriptor is readable also when the request came before it was asked for, or its signal is blocked" {
  run_forkd "$W:asks_too_late"
  eventually printed "^readable 1$"
  run_forkd -g 1000 "$W:blocks_hup"
  eventually printed "^polling"
  stops_with 0
  printed "^stop 1"
}

@test "the stop descriptor is readable also when the request comes while it is made" {
  not_emulated "strace sees the emulator"
  command -v strace >/dev/null || skip "no strace"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  # A signal to the worker itself, and a request of the master's to one that is stopped there.
  for call in pipe,pipe2 %fstat; do
    for way in HUP STOP; do
      echo "$way within $call"
      rm -f log out trace ask
      run_forkd -g 1000 -l debug -n 2 "$W:second_asks_at" "$PWD/ask"
      eventually starts_of 1 1
      worker=$(pid_of 1)
      strace -o trace -p "$worker" -e trace=pipe,pipe2,%fstat -e inject=$call:signal=$way:when=1 2>>attached 3>&- &
      tracer=$!
      eventually is_traced "$worker"
      ! grep -q 'not permitted' attached || skip "strace may not attach"
      touch ask
      if [ $way = STOP ]; then
        eventually grep -q 'stopped by SIGSTOP' trace
        signal USR2
        eventually logged "worker 1 (pid $worker) is asked to end"
        kill -CONT "$worker"
      fi
      eventually printed "^stop 1 1 0$"
      stops_with 0
      kill -TERM $tracer 2>/dev/null || :
    done
  done
}
is_traced() { grep -q -s 'not permitted' attached || ! grep -q '^TracerPid:.0$' "/proc/$1/status"; }

@test "without a descriptor to be had there is no stop descriptor; later there is, the same at each call; errno stays" {
  run_forkd "$W:asks_without_descriptors"
  run_forkd "$W:keeps_errno"
  eventually printed "^without -1 EMFILE$"
  eventually printed "^with 1 again 1 more 2 closed on exec 2 blocks 0$"
  eventually printed "^readable 1$"
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

@test "hundreds of workers that wait by the stop descriptor all see a request made at once" {
  not_emulated "hundreds of emulators are too many"
  run_forkd -g 1000 -n 300 "$W:polls"
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

@test "a process that a worker makes by fork or clone is no worker: signals end it alone, it yields 1, and has no number" {
  run_forkd -n 6 "$W:forks"
  eventually printed_times 6 '^child [0-9]* yields 1 number -1$'
  before=$(living "$master" | sort)
  set -- $(sed -n 's/^child \([0-9]*\) yields.*/\1/p' out)
  for name in HUP INT QUIT TERM USR1 USR2; do
    kill -s $name "$1"
    eventually printed "^child $1 ended by $(kill -l $name)$"
    shift
  done
  [ "$before" = "$(living "$master" | sort)" ]
  stops_with 0
  logged_times 6 started
  [ "$(uname)" = Linux ] || return 0
  rm log
  run_forkd "$W:clones"
  eventually printed '^clone '
  clone=$(sed -n 's/^clone //p' out)
  kill -TERM "$clone"
  eventually printed "^clone ended by 15$"
  stops_with 0
  logged_times 1 started
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

@test "descriptors that the worker's own code opens while it is loaded are left alone, also when the file has gone" {
  cp "$BIN/ctor_files.so" code.so
  run_forkd ./code.so:steady
  eventually printed_times 2 "^child kept 6 of 6$"
  # Then the master's descriptor leads to it.
  rm code.so
  : >out
  case $(uname)$CPPFLAGS in
    Linux*-DFORKD_PORTABLE* | [!L]*) ;; # the code is not pinned
    *) eventually printed_times 2 "^child kept 6 of 6$" ;;
  esac
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

@test "files that a worker opens under forkd's numbers, when it has closed all descriptors, are left alone" {
  run_forkd "$W:closes_all" "$PWD/file"
  eventually printed "^opened"
  kill -TERM "$(pid_of 0)"
  eventually logged "worker 0 (pid [0-9]*) exited with status 0"
  [ -f file ] && [ ! -s file ]
  # By a fork, too.
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
  # Both are stopped when they ask for their pids first, the worker before it watches the master.
  strace -f -o trace -e trace=getpid -e inject=getpid:signal=STOP:when=1 "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  eventually stops 1
  master=$(living $!)
  kill -CONT "$master"
  eventually logged "worker 0 (pid [0-9]*) started"
  eventually stops 2
  kill -KILL "$master"
  eventually gone_or_zombie "$master"
  kill -CONT "$(pid_of 0)"
  eventually gone_or_zombie "$(pid_of 0)"
}
# strace has stopped so many processes.
stops() { [ "$(grep -c -e 'stopped by SIGSTOP' trace)" -ge "$1" ]; }

@test "a worker that is still loading when it is asked to end begins no task and runs what exit runs, with status 0" {
  # Its constructor takes as long as there is a file.
  cat >late.c <<'END'
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void load(void) {
  printf("buffered\n");
  dprintf(2, "loading\n");
  while (access("wait", F_OK) == 0) usleep(5000);
}
int run(void) { return printf("task\n"); }
END
  "$CC" -shared -fPIC -o late.so late.c
  touch wait
  run_forkd -n 2 ./late.so:run
  eventually logged_times 2 loading
  signal TERM
  eventually logged "shutting down"
  # It has asked them before it sleeps again.
  eventually is_state "$master" S
  rm wait
  ends_with 0
  [ "$(cat out)" = "$(printf 'buffered\nbuffered')" ]
  logged_times 2 "exited with status 0"
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

@test "a signal to a thread that has an alternate stack does not need the other one" {
  case $LDFLAGS in *sanitize*) skip "a sanitizer needs more stack" ;; esac
  run_forkd "$W:small_stack"
  eventually printed "^yields 0"
  logged_times 0 warning
}
