# Helpers of the tests. Nothing here sleeps in the hope that something has happened meanwhile: a
# condition is waited for, with a deadline, and what was seen is shown when that has passed.

deadline_seconds=${DEADLINE:-300} # long, so that a slow machine keeps it: tests that pass do not wait for it

setup() { begin; }

# begin: what each test begins with; for a file that has a setup of its own.
begin() {
  # Bats notes each command of each function, for 0.2 ms; those of the test itself are enough to say
  # where it has failed.
  set +T
  declare -ft "$BATS_TEST_NAME" bats_error_trap bats_check_status_from_trap 2>/dev/null || :
  cd "$BATS_TEST_TMPDIR" || return
  W=$BIN/workers.so
  master=
}

# Ends what the test has started, by pid, whatever state it has left it in. The shell knows which of
# its jobs have not ended: by a pid that was noted, somebody else might be hit who has it by now.
teardown() {
  local jobs
  jobs=$(jobs -pr && jobs -ps)
  # (The shell would say of each that it was killed, also of those that the test has killed.)
  { [ -z "$jobs" ] || { await kill $jobs; wait $jobs; }; disown -a; } 2>/dev/null || :
  [ -n "${BATS_TEST_COMPLETED:-}" ] || { [ ! -e log ] || { echo "--- log"; tail -n 40 log; }; }
}

# needs_linux WHAT: skips where forkd cannot do that: on other systems, and in a portable build.
needs_linux() {
  case $CPPFLAGS in *-DFORKD_PORTABLE*) skip "not in a portable build: $1" ;; esac
  [ "$(uname)" = Linux ] || skip "not on $(uname): $1"
}

# not_emulated WHY: skips under an emulator (test/tools/emulated.sh).
not_emulated() { [ -z "${EMULATED:-}" ] || skip "not under an emulator: $1"; }

# run_forkd ARGUMENT ...: starts forkd in the background as $master; its output goes to out and log.
run_forkd() {
  "$FORKD" "$@" >>out 2>>log 3>&- &
  master=$!
}

# background COMMAND ...: starts something else, which teardown ends; its pid is in $background.
background() {
  "$@" 3>&- &
  background=$!
}

# pause SECONDS: sleeps, without a process of its own where bash can: nobody writes into that FIFO.
if [ "${BASH_VERSINFO[0]}" -ge 4 ]; then
  pause() { read -r -t "$1" <>"$BIN/silent" || :; }
else
  pause() { sleep "$1"; }
fi

# await QUESTION: asks test/tools/await.c, one process; see there. Within "eventually" it waits.
within=0
await() { "$BIN/await" "$within" "$@"; }

# These conditions are one question each, so "eventually" asks it once. A test file may add its own:
#   heard() { await line heard 1 - "$1"; }
#   questions="$questions heard"
questions="has_workers new_pids logged logged_at_least logged_times printed printed_times printed_lines found found_times"
questions="$questions runs starts_of is_replaced gone gone_or_zombie is_state is_called lived"

# eventually COMMAND ...: waits until it succeeds; fails, and says what for, when the deadline passes.
eventually() {
  local within end=$((SECONDS + deadline_seconds)) polls=0
  case " $questions " in
    *" $1 "*)
      within=$deadline_seconds
      ! "$@" || return 0
      ;;
    *)
      within=0
      while [ "$SECONDS" -lt "$end" ]; do
        ! "$@" || return 0
        polls=$((polls + 1))
        if [ "$polls" -lt 8 ]; then pause 0.02; else pause 0.1; fi
      done
      ;;
  esac
  echo "not within $deadline_seconds s: $*"
  return 1
}

# never COMMAND ...: fails when it succeeds. (Bats takes no notice of a "!" that is not the last.)
never() {
  if "$@"; then
    echo "unexpectedly: $*"
    return 1
  fi
}

# children PID: the pids of its children, zombies too.
# living PID: those that are no zombies.
# tree PID ...: those processes and all that descend from them.
children() { await children "$1"; }
living() { await living "$1"; }
tree() { await tree "$@"; }

has_workers() { await living "$master" "$1" "$1"; }
# new_pids PIDS: none of these is among the workers.
new_pids() { await none_of "$master" "$1"; }

logged() { await line log 1 - "$1"; }
logged_at_least() { await line log "$1" - "$2"; }
logged_times() { await line log "$1" "$1" "$2"; }
printed() { await line out 1 - "$1"; }
printed_times() { await line out "$1" - "$2"; }
printed_lines() { await newlines out "$1"; }
# found PATTERN FILE, found_times COUNT PATTERN FILE: at least so many lines of any other file.
found() { await line "$2" 1 - "$1"; }
found_times() { await line "$3" "$1" - "$2"; }
# runs VERSION COUNT: so many workers have started on that version.
runs() { await line out "$2" - "^version $1 "; }
# starts_of NUMBER COUNT: whether that worker was started so often.
starts_of() { await line log "$2" - "worker $1 (pid [0-9]*) started"; }

gone() { await gone "$1"; }
gone_or_zombie() { await ended "$1"; }
# is_state PID LETTER: whether ps(1) shows that state.
is_state() { await state "$1" "$2"; }
is_called() { await name "$1" "$2"; }
# lived PID SECONDS: whether it has run for that long.
lived() { await age "$1" "$2"; }

# pid_of NUMBER: the pid of the worker with that number, the newest one in the log. (A worker may be
# heard of before the master has said that it started.)
# first_pid_of NUMBER: that of the first worker which had the number.
# is_replaced NUMBER PID: whether another process than PID has that worker number now.
pid_of() {
  local within=$deadline_seconds
  await group last log "info: worker $1 (pid \([0-9]*\)) started\$"
}
first_pid_of() { await group first log "info: worker $1 (pid \([0-9]*\)) started\$"; }
is_replaced() { await group last log "info: worker $1 (pid \([0-9]*\)) started\$" "$2"; }

# deploy NAME: puts that shared object where the pool's code is, as install and mv do.
deploy() {
  cp "$BIN/$1.so" next.so
  mv next.so code.so
}

# start_one OPTION ...: starts a pool on version 1 of the code.
start_one() {
  deploy one
  run_forkd "$@" ./code.so:steady
}

# reload_fails REASON: one error line, and the pool still runs the workers that it had.
reload_fails() {
  local before failures
  before=$(living "$master" | sort)
  failures=$(grep -c "reload failed: .*$1" log || :)
  signal HUP
  eventually logged_times $((failures + 1)) "error: reload failed: .*$1.*; the pool keeps its code"
  eventually has_workers "$(echo "$before" | wc -l)"
  [ "$before" = "$(living "$master" | sort)" ]
}

# mask NAME FILE: that line of a status file of /proc, as a number.
mask() {
  local text
  { IFS= read -r -d '' text <"$2"; } 2>/dev/null || :
  [[ $text =~ $1:[[:space:]]*([0-9a-f]+) ]] && echo "$((16#${BASH_REMATCH[1]}))" || echo 0
}

# signal SIGNAL: to the master.
signal() { kill -s "$1" "$master"; }

# ends_with STATUS: waits for the master to end by itself.
ends_with() {
  eventually gone_or_zombie "$master" || return
  local status=0
  wait "$master" || status=$?
  [ "$status" -eq "$1" ] || {
    echo "exit status $status, not $1"
    return 1
  }
}

# stops_with STATUS: ends the pool with TERM.
stops_with() {
  signal TERM
  ends_with "$1"
}
