#!/usr/bin/env bats
# forkd as the parent of orphans, as PID 1, and at rest.

load helper

# As PID 1 of a PID namespace of its own; $master is its pid out here.
run_as_init() { run_in_namespace "$FORKD" "$@"; }
run_in_namespace() {
  unshare --pid --fork true 2>/dev/null || skip "cannot make a PID namespace here"
  unshare --pid --fork --kill-child "$@" >>out 2>>log 3>&- &
  namespace=$!
  eventually has_child "$namespace"
  master=$(children "$namespace")
  eventually logged "forkd\[1\]: info: worker 0 .*started"
}
has_child() { [ -n "$(children "$1")" ]; }

# The status of PID 1, handed on by unshare.
init_ends_with() {
  local status=0
  eventually gone_or_zombie "$namespace" || return
  wait "$namespace" || status=$?
  [ "$status" -eq "$1" ] || { echo "exit status $status, not $1"; return 1; }
}

# has_children COUNT PID: zombies too.
has_children() { [ "$(children "$2" | wc -l)" -eq "$1" ]; }

@test "as PID 1 it runs a pool, whose workers do not take themselves for orphans, and ends with 0 at TERM" {
  run_as_init -n 2 "$W:steady"
  eventually has_workers 2
  signal USR1
  eventually has_workers 3
  logged_times 3 started
  signal TERM
  init_ends_with 0
}

@test "as PID 1 a TERM that comes while it installs its handlers is not lost" {
  command -v strace >/dev/null || skip "no strace"
  unshare --pid --fork true 2>/dev/null || skip "cannot make a PID namespace here"
  # Which sigaction is the last one.
  strace -f -o trace -e trace=rt_sigaction unshare --pid --fork "$FORKD" --help >help
  last=$(awk '{ of[$1] += /rt_sigaction/ } END { for (pid in of) if (of[pid] > most) most = of[pid]; print most }' trace)
  strace -f -o trace -e trace=rt_sigaction -e inject=rt_sigaction:signal=SIGTERM:when="$last" \
    unshare --pid --fork "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  namespace=$!
  init_ends_with 0
  logged "^forkd\[1\]: info: shutting down"
}

@test "as PID 1 it pins its code also where /proc is that of another namespace" {
  needs_linux "the code is pinned"
  deploy one
  run_as_init ./code.so:steady
  eventually runs 1 1
  deploy two
  signal USR1
  eventually has_workers 2
  eventually runs 1 2
}

@test "as PID 1 it lets what the workers left behind end in an orderly way, and ends as soon as that has" {
  run_as_init -g 0 "$W:leaves_orderly_orphan"
  eventually printed "^orderly [0-9]"
  signal TERM
  init_ends_with 0
  printed "orderly end"
}

@test "as PID 1 it lets what the workers left behind in a stop go on, to end" {
  run_as_init -g 0 "$W:leaves_stopped_orphan"
  eventually printed stopped
  signal TERM
  init_ends_with 0
}

@test "as PID 1 workers and orphans together take no longer than the grace period" {
  # A slow machine may take several tries.
  for try in 1 2 3 4 5; do ! no_longer_than_grace || return 0; done
  false
}
# Another grace period would take two seconds more.
no_longer_than_grace() {
  rm -f log
  run_as_init -g 2 "$W:hangs_with_stubborn_orphan"
  eventually has_children 1 "$(living "$master")"
  signal TERM
  eventually logged "worker 0 .*is killed"
  killed=${EPOCHREALTIME/[.,]/}
  init_ends_with 3
  [ $((${EPOCHREALTIME/[.,]/} - killed)) -lt 1000000 ]
}

@test "as PID 1 an echo of the first TERM cuts no wait for orphans short" {
  # It is one when it comes within a tenth of a second: this may take several tries.
  eventually is_echo
}
is_echo() {
  : >out
  run_as_init -g 0 "$W:leaves_asking_orphan"
  eventually printed asking
  signal TERM
  init_ends_with 0
  printed "orderly end"
}

@test "as PID 1 that could not even begin it lets what it has found end in an orderly way" {
  unshare --pid --fork true 2>/dev/null || skip "cannot make a PID namespace here"
  for arguments in "./nowhere.so:run" "-b ./nowhere/socket true"; do
    rm -f ready
    status=0
    # The shell, which has a child, becomes forkd.
    # shellcheck disable=SC2016
    unshare --pid --fork --kill-child sh -c '
      (trap "sleep 0.3; echo orderly; kill -KILL \$!; exit" TERM; sleep 1000 & echo >ready; wait) &
      until [ -s ready ]; do sleep 0.05; done
      exec "$0" -g 0 $1' "$FORKD" "$arguments" >out 2>>log 3>&- || status=$?
    [ "$status" -eq 1 ]
    printed orderly
  done
}

@test "as PID 1 it waits for a stubborn orphan no longer than the grace period, and that ends with it" {
  run_as_init -g 2 "$W:leaves_stubborn_orphan"
  eventually printed stubborn
  orphan=$(children "$(living "$master")")
  signal TERM
  init_ends_with 0
  eventually gone "$orphan"
}

@test "as PID 1 it reaps what a worker leaves behind" {
  run_as_init "$W:leaves_orphans"
  worker=$(living "$master")
  eventually has_children 3 "$worker"
  kill -KILL "$worker"
  eventually printed_times 3 "orphan of 1"
  eventually has_children 1 "$master"
  eventually has_workers 1
}

@test "as PID 1 it ends a stopped process that a crashed command leaves behind" {
  run_as_init sh -c 'sleep 1000 & kill -STOP $!; wait'
  worker=$(living "$master")
  eventually has_children 1 "$worker"
  stopped=$(children "$worker")
  eventually is_state "$stopped" T
  kill -KILL "$worker"
  eventually gone "$stopped"
}

@test "as PID 1 a further TERM cuts the wait for orphans short and changes no status" {
  run_as_init -g 0 "$W:leaves_stubborn_orphan"
  eventually printed stubborn
  signal TERM
  eventually logged "worker 0 .*exited with status 0"
  # The second one, when it can be no echo.
  pause 0.15
  signal TERM
  init_ends_with 0
}

@test "as PID 1 that gave up, TERM cuts the wait for orphans short, and the status stays 1" {
  run_as_init -g 0 "$W:fails_with_stubborn_orphan"
  # It has been asked to end, so that it is waited for.
  eventually printed "^asked to end$"
  signal TERM
  init_ends_with 1
}

@test "an application that is PID 1 reaps the orphans that come to it" {
  # The shell leaves one to it.
  # shellcheck disable=SC2016
  run_in_namespace sh -c 'until [ -e over ]; do sleep 0.02; done & exec "$0" run' "$BIN/with_archive"
  eventually has_workers 3
  touch over
  eventually has_children 2 "$master"
  signal TERM
  init_ends_with 0
}

@test "a child that has ended before PID 1 became forkd is reaped" {
  run_in_namespace "$BIN/with_archive" late
  eventually has_workers 2
  eventually has_children 2 "$master"
  signal TERM
  init_ends_with 0
}

@test "an orphan that is not its worker's is reaped, and never taken for a worker" {
  # A child that the shell leaves to forkd by exec: of forkd's children it is the only stranger.
  sh -c 'sleep 0.1 & exec "$0" "$@"' "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  master=$!
  eventually logged started
  eventually has_workers 1
  eventually has_children 1 "$master"
  never logged "exited"
}

@test "in a PID namespace that its workers would not share, it says so" {
  unshare --pid true 2>/dev/null || skip "needs the right to make a PID namespace"
  run timeout "$deadline_seconds" unshare --pid "$FORKD" -n 2 "$W:steady"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == *"critical: worker "*"PID namespace"*"--fork"* ]]
}

@test "a signal that comes while it ends, when the pool has gone, does not change its status" {
  command -v strace >/dev/null || skip "no strace"
  strace -o trace -e trace=unlink,unlinkat -e inject=unlink,unlinkat:signal=SIGTERM \
    "$FORKD" -b ./socket ./nowhere.so:run >>out 2>>log 3>&- &
  master=$!
  ends_with 1
  grep -q '^--- SIGTERM' trace
}
