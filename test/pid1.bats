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

no_zombies() { ! ps -A -o ppid= -o stat= | awk -v p="$master" '$1 == p && $2 ~ /^Z/ { found = 1 } END { exit !found }'; }

@test "as PID 1 it runs a pool and ends with 0 at TERM" {
  run_as_init -n 2 "$W:steady"
  eventually has_workers 2
  signal USR1
  eventually has_workers 3
  signal TERM
  init_ends_with 0
}

@test "as PID 1 its workers do not take themselves for orphans" {
  run_as_init "$W:steady"
  eventually has_workers 1
  logged_times 1 started
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
  run_as_init -g 3 "$W:hangs_with_stubborn_orphan"
  eventually has_children 1 "$(living "$master")"
  began=${EPOCHREALTIME/[.,]/}
  signal TERM
  eventually logged "worker 0 .*is killed"
  killed=${EPOCHREALTIME/[.,]/}
  init_ends_with 3
  # Another grace period would take as long once more.
  [ $(((${EPOCHREALTIME/[.,]/} - killed) * 2)) -lt $((killed - began)) ]
}
has_children() { [ "$(children "$2" | wc -l)" -eq "$1" ]; }

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
      (trap "sleep 0.3; echo orderly; exit" TERM; touch ready; while :; do sleep 0.05; done) &
      until [ -e ready ]; do sleep 0.01; done
      exec "$0" $1' "$FORKD" "$arguments" >out 2>>log 3>&- || status=$?
    [ "$status" -eq 1 ]
    printed orderly
  done
}

@test "as PID 1 it waits for a stubborn orphan no longer than the grace period" {
  run_as_init -g 2 "$W:leaves_stubborn_orphan"
  eventually printed stubborn
  signal TERM
  init_ends_with 0
}

@test "as PID 1 a further TERM cuts the wait for orphans short and changes no status" {
  run_as_init -g 0 "$W:leaves_stubborn_orphan"
  eventually printed stubborn
  signal TERM
  eventually logged "worker 0 .*exited with status 0"
  eventually term_until_gone
  init_ends_with 0
}
term_until_gone() { signal TERM 2>/dev/null || :; gone_or_zombie "$namespace"; }

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
  run_in_namespace sh -c 'sleep 0.1 & exec "$0" run' "$BIN/with_archive"
  eventually has_workers 2
  eventually no_zombies
  [ "$(children "$master" | wc -l)" -eq 2 ]
  signal TERM
  init_ends_with 0
}

@test "an orphan that is not its worker's is reaped, and never taken for a worker" {
  # A child that the shell leaves to forkd by exec: of forkd's children it is the only stranger.
  sh -c 'sleep 0.1 & exec "$0" "$@"' "$FORKD" "$W:steady" >>out 2>>log 3>&- &
  master=$!
  eventually logged started
  eventually has_workers 1
  eventually no_zombies
  [ "$(children "$master" | wc -l)" -eq 1 ]
  never logged "exited"
}

@test "in a PID namespace that its workers would not share, it says so" {
  unshare --pid true 2>/dev/null || skip "needs the right to make a PID namespace"
  run timeout 20 unshare --pid "$FORKD" -n 2 "$W:steady"
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
