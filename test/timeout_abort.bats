#!/usr/bin/env bats
# Workers that hang, and take no notice of SIGABRT.

load helper

# Three pools wait side by side for the SIGKILL that comes eight seconds after SIGABRT. A fourth one
# is shut down with -g 0, where no SIGKILL must come.
setup_file() {
  cd "$BATS_FILE_TMPDIR" || return
  local name
  pool plain -t 0.2 "$BIN/workers.so:ignores_abort"
  pool stopped -t 0.2 "$BIN/workers.so:ignores_abort"
  pool shrunk -t 0.2 -n 2 "$BIN/workers.so:second_ignores_abort"
  pool patient -g 0 "$BIN/workers.so:hangs"
  (cd patient && eventually printed hangs) || return
  kill -TERM "$(cat patient/pid)"
  for name in plain stopped shrunk; do
    (cd $name && eventually logged "is aborted") || return
    date +%s >$name/aborted
  done
  kill -USR2 "$(cat shrunk/pid)"
  kill -STOP "$(cat stopped/pid)"
  # shellcheck disable=SC2094
  (sleep 3; kill -CONT "$(cat stopped/pid)") 3>&- &
}

teardown_file() {
  cat "$BATS_FILE_TMPDIR"/*/pid | xargs kill -TERM
  wait
}

# pool NAME ARGUMENT ...: one in a folder of that name.
pool() {
  mkdir "$1"
  "$FORKD" -g 0.5 "${@:2}" >>"$1/out" 2>>"$1/log" 3>&- &
  echo $! >"$1/pid"
}

# kills_later POOL NUMBER SECONDS: its aborted worker gets SIGKILL, and not before that time.
kills_later() {
  cd "$BATS_FILE_TMPDIR/$1" || return
  master=$(cat pid)
  eventually logged "worker $2 (pid [0-9]*) was ended by signal 9" || return
  # The whole seconds of two times: up to one less than was waited.
  [ $(($(date +%s) - $(cat aborted))) -ge $(($3 - 1)) ]
}

@test "a worker that takes no notice of SIGABRT is killed eight seconds later" {
  kills_later plain 0 8
  eventually logged_at_least 2 started
}

@test "time for which the master is stopped does not bring the SIGKILL after SIGABRT nearer" {
  kills_later stopped 0 11
}

@test "a shutdown with -g 0 kills no worker, however long it takes" {
  kills_later stopped 0 11
  cd ../patient
  logged "shutting down"
  never logged kill
  kill -0 "$(cat pid)"
}

@test "a worker that is removed by USR2 when it was aborted is not replaced" {
  kills_later shrunk 1 8
  has_workers 1
  logged_times 2 started
}

@test "a worker that goes on although it was aborted is asked to end like any other" {
  run_forkd -t 0.5 -w 0.5 -g 40 "$W:survives_abort"
  eventually logged "is aborted"
  start=$SECONDS
  stops_with 0
  # And not by the SIGKILL eight seconds later, nor by the SIGTERM after half of the grace period.
  [ $((SECONDS - start)) -lt 8 ]
  printed survived
}

@test "a worker that was aborted before a shutdown, and takes no notice, makes the status 3" {
  run_forkd -t 0.2 -g 1 "$W:ignores_abort"
  eventually logged "error: worker 0 (pid [0-9]*) has not yielded for .* and is aborted"
  start=$SECONDS
  stops_with 3
  # At the end of the grace period, not eight seconds after SIGABRT.
  [ $((SECONDS - start)) -lt 7 ]
}
