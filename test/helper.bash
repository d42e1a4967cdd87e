# Helpers of the tests. Nothing here sleeps in the hope that something has happened meanwhile: a
# condition is polled with a deadline, and what was seen is shown when that has passed.

deadline_seconds=60

setup() {
  cd "$BATS_TEST_TMPDIR" || return
  W=$BIN/workers.so
  master=
}

# Ends what the test has started, by pid, whatever state it has left it in. The shell knows which of
# its jobs have not ended: by a pid that was noted, somebody else might be hit who has it by now.
teardown() {
  local jobs
  jobs="$(jobs -pr) $(jobs -ps)"
  if [ "$jobs" != ' ' ]; then
    # Stopped first, they cannot replace what is killed.
    kill -STOP $(tree $jobs) 2>/dev/null || :
    kill -KILL $(tree $jobs) 2>/dev/null || :
  fi
  wait $jobs 2>/dev/null || :
  [ -n "${BATS_TEST_COMPLETED:-}" ] || { [ ! -e log ] || { echo "--- log"; tail -n 40 log; }; }
}

# needs_linux WHAT: skips where forkd cannot do that: on other systems, and in a portable build.
needs_linux() {
  case $CPPFLAGS in *-DFORKD_PORTABLE*) skip "not in a portable build: $1" ;; esac
  [ "$(uname)" = Linux ] || skip "not on $(uname): $1"
}

# not_emulated WHY: skips under an emulator (test/tools/emulated.sh).
not_emulated() { [ -z "${EMULATED:-}" ] || skip "not under an emulator: $1"; }

# tree PID ...: those processes and all that descend from them.
tree() {
  ps -A -o pid= -o ppid= | awk -v roots="$*" '
    BEGIN { split(roots, list); for (i in list) is_root[list[i]] = 1 }
    { parent[$1] = $2 }
    END {
      for (pid in parent) {
        for (up = pid; !(up in is_root) && up in parent; up = parent[up]) { }
        if (up in is_root) print pid
      }
    }'
}

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

# eventually COMMAND ...: polls until it succeeds, at first often; fails, and says what for, when the
# deadline passes.
eventually() {
  local end=$((SECONDS + deadline_seconds)) polls=0
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "not within $deadline_seconds s: $*"
      return 1
    fi
    polls=$((polls + 1))
    if [ "$polls" -lt 8 ]; then pause 0.02; else pause 0.1; fi
  done
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
# is_state PID LETTER: whether ps(1) shows that state.
# Linux tells all this in files (proc(5)), which saves a look at all processes. (No loops here:
# Bats has a trap that runs before each command.)
if [ -e "/proc/$$/task/$$/children" ]; then
  children() { cat "/proc/$1/task/"*/children 2>/dev/null | tr -s ' ' '\n'; }
  living() {
    set -- $(children "$1")
    set -- "${@/#//proc/}"
    [ $# -eq 0 ] || cat "${@/%//stat}" 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) [^ZX] .*/\1/p'
  }
  is_state() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ ${stat##*) } == "$2"* ]]
  }
else
  children() { ps -A -o ppid= -o pid= | awk -v p="$1" '$1 == p { print $2 }'; }
  living() { ps -A -o ppid= -o pid= -o stat= | awk -v p="$1" '$1 == p && $3 !~ /^Z/ { print $2 }'; }
  is_state() { [[ $(ps -o stat= -p "$1") == "$2"* ]]; }
fi

has_workers() {
  # shellcheck disable=SC2046 # a list of pids
  set -- "$1" $(living "$master")
  [ $(($# - 1)) -eq "$1" ]
}
logged() { grep -q -e "$1" log; }
logged_at_least() { [ "$(grep -c -e "$2" log)" -ge "$1" ]; }
logged_times() { [ "$(grep -c -e "$2" log)" -eq "$1" ]; }
printed() { grep -q -e "$1" out; }
printed_times() { [ "$(grep -c -e "$2" out)" -ge "$1" ]; }
printed_lines() { [ "$(wc -l <out)" -ge "$1" ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }
is_called() { [ "$(ps -o comm= -p "$1")" = "$2" ]; }
# lived PID SECONDS: whether it has run for that long (at most an hour).
lived() {
  ps -o etime= -p "$1" | awk -F: -v least="$2" '
    $(NF - 1) * 60 + $NF >= least { found = 1 } END { exit !found }'
}

# pid_of NUMBER: the pid of the worker with that number, the newest one in the log. (A worker may be
# heard of before the master has said that it started.)
pid_of() {
  eventually logged "info: worker $1 (pid [0-9]*) started\$" >&2 || return
  sed -n "s/.*info: worker $1 (pid \([0-9]*\)) started\$/\1/p" log | tail -n 1
}

# is_replaced NUMBER PID: whether another process than PID has that worker number now.
is_replaced() { [ -n "$(pid_of "$1")" ] && [ "$(pid_of "$1")" != "$2" ]; }

# first_pid_of NUMBER: that of the first worker which had the number.
first_pid_of() { sed -n "s/.*info: worker $1 (pid \([0-9]*\)) started\$/\1/p" log | head -n 1; }

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

# runs VERSION COUNT: so many workers have started on that version.
runs() { [ "$(grep -c "^version $1 " out)" -ge "$2" ]; }

# starts_of NUMBER COUNT: whether that worker was started so often.
starts_of() { logged_at_least "$2" "worker $1 (pid [0-9]*) started"; }

# new_pids PIDS: none of these is among the workers.
new_pids() { ! living "$master" | grep -q -x -F -e "$(echo "$1" | tr -s ' ' '\n')"; }

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
mask() { echo "$((16#0$(sed -n "s/^$1:.//p" "$2" 2>/dev/null)))"; }

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
gone_or_zombie() { ! kill -0 "$1" 2>/dev/null || is_state "$1" Z; }

# stops_with STATUS: ends the pool with TERM.
stops_with() {
  signal TERM
  ends_with "$1"
}
