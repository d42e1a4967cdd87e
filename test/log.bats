#!/usr/bin/env bats
# The log, and standard error that is slow, stuck or gone.

load helper

@test "every line has the form forkd[PID]: LEVEL: text, and times are given to the millisecond" {
  run_forkd -l debug -n 2 "$W:steady"
  eventually has_workers 2
  signal USR2
  eventually has_workers 1
  stops_with 0
  never grep -v -E "^forkd\[$master\]: (debug|info|warning|error|critical): ." log
  never grep -v ' after [0-9]*\.[0-9][0-9][0-9] s$\|runs\|started$\|asked\|target\|shutting' log
  logged_times 2 " after "
}

# pools NAME ...: a pool for each name, the level of its log; its log is the file log.NAME, and its
# master masters[NAME's place]. In each of them one event of each level but the highest happens.
pools() {
  local name old=()
  masters=()
  deploy one
  for name; do
    : >"log.$name"
    case $name in
      default) "$FORKD" ./code.so:steady >>out 2>>log.default 3>&- & ;;
      journal) JOURNAL_STREAM=$(stat -c %d:%i log.journal) "$FORKD" -l debug ./code.so:steady >>out 2>>log.journal 3>&- & ;;
      *) "$FORKD" -l "$name" ./code.so:steady >>out 2>>"log.$name" 3>&- & ;;
    esac
    masters+=($!)
  done
  for master in "${masters[@]}"; do
    eventually has_workers 1
    old+=("$(living "$master")")
  done
  kill -KILL "${old[@]}"
  for master in "${masters[@]}"; do
    eventually new_pids "${old[*]}"
    eventually has_workers 1
  done
  echo junk >next.so
  mv next.so code.so
  kill -HUP "${masters[@]}"
  for name; do [ "$name" = critical ] || eventually failed "log.$name"; done
  kill -TERM "${masters[@]}"
  for master in "${masters[@]}"; do ends_with 0; done
}
failed() { await line "$1" 1 - "reload failed"; }
questions="$questions failed"

@test "a level leaves out what is less important, and nothing else; the journal gets its number" {
  pools debug info default warning error critical journal
  while read -r name levels; do
    found=$(sed 's/^forkd\[[0-9]*\]: \([a-z]*\): .*/\1/; s/^\(<.>\)[a-z].*/\1/' "log.$name" | sort -u | tr '\n' ' ')
    echo "$name: $found"
    [ "$found" = "$levels${levels:+ }" ]
  done <<'END'
debug debug error info warning
info error info warning
default error info warning
warning error warning
error error
critical
journal <3> <4> <6> <7>
END
}

@test "what keeps the master from coming up is said at -l critical, too" {
  while read -r worker message; do
    : >log
    worker=${worker/BIN/$BIN}
    run_forkd -l critical ${worker//,/ }
    ends_with 1
    logged_times 1 "^forkd\[$master\]: critical: $message"
    logged_times 1 ""
    JOURNAL_STREAM=$(stat -c %d:%i log) run_forkd ${worker//,/ }
    ends_with 1
    logged_times 1 "^<2>$message"
  done <<'END'
./nowhere.so:run cannot load ./nowhere.so:run: No such file or directory$
BIN/undefined.so:steady worker 0 .*could not start: cannot load
no-such-command .*cannot execute 'no-such-command'
-b,./nowhere/socket,true cannot listen on ./nowhere/socket: No such file or directory$
-s,./nowhere/state,true cannot write ./nowhere/state: No such file or directory$
END
}

@test "an old worker that crashes during a roll is a warning" {
  touch stay
  deploy one
  run_forkd -w 0 -n 2 ./code.so:first_busy stay
  eventually printed "^busy"
  deploy two
  signal HUP
  # The extra worker, and worker 1.
  eventually runs 2 2
  kill -KILL "$(pid_of 0)"
  eventually logged "warning: worker 0 (pid [0-9]*) was ended by signal 9"
  eventually logged "reload complete"
  logged_times 1 "was ended by signal"
}

@test "no control character in a name breaks a line, and other characters stay" {
  run_forkd $'./a\tb\n\033\177 ~é.so:run'
  ends_with 1
  logged_times 2 "^forkd\[$master\]: .* ./a?b??? ~é.so:run\(, workers\|: No such file\)"
  logged_times 2 ""
  rm log
  run_forkd $'no\nsuch\rcommand'
  ends_with 1
  logged "cannot execute 'no?such?command'"
  never grep -v "^forkd\[$master\]: " log
}

@test "a line that is too long is cut, and ends where the next one begins" {
  run_forkd "./$(printf '%04000d' 0):run"
  ends_with 1
  logged_times 2 ""
  never grep -v "^forkd\[$master\]: [a-z]*: .*0000000000" log
  [ "$(awk '{ print (length >= 1000 && length < 1280) }' log | sort -u)" = 1 ]
}

@test "a reader of stderr that is stuck loses lines, which are counted, and one that has gone ends nobody" {
  mkfifo pipe
  exec 8<>pipe
  "$FORKD" -n 2 "$W:shouts" >>out 2>pipe 3>&- 8>&- &
  master=$!
  eventually has_workers 2
  # Nobody reads: the pipe is full of what the workers write, and the master must not care.
  for n in 3 4 5; do
    signal USR1
    eventually has_workers $n
  done
  # A line that is free again shows in the next event.
  background cat pipe >log
  eventually grows_until_reported
  kill "$background"
  eventually gone_or_zombie "$background"
  exec 8>&-
  signal USR1
  old=$(living "$master")
  kill -KILL $old
  eventually new_pids "$old"
  stops_with 0
}
grows_until_reported() {
  signal USR1
  logged "warning: [0-9]* log lines\? w[a-z]* dropped"
}

@test "a log that is a file, and at its limit, ends nobody" {
  # shellcheck disable=SC2016
  background sh -c 'ulimit -f 0 && exec "$0" "$1"' "$FORKD" "$W:steady" 2>limited
  master=$background
  eventually has_workers 1
  old=$(living "$master")
  kill -KILL "$old"
  eventually new_pids "$old"
  stops_with 0
  [ ! -s limited ]
}

# limited COMMAND ...: runs that with a log that is a file, and takes 1024 bytes.
limited() {
  # shellcheck disable=SC2016
  background bash -c 'ulimit -f 1 && exec "$@"' - "$@" 2>>log
}

# The last line of such a file may be cut; what comes then is lost, until there is room again.
@test "each line is written, or cut by the limit of the file, or counted once" {
  limited "$FORKD" -n 30 "$W:steady"
  master=$background
  # Each line is longer than 40 bytes, so the file is full when all have started.
  eventually has_workers 30
  cp log first
  : >log
  signal USR1
  eventually logged "worker 30 (pid [0-9]*) started$"
  signal USR2
  eventually logged "target is now 30$"
  cut=0
  if [ -n "$(tail -c 1 first)" ]; then
    cut=1
    [ -z "$(head -n 1 log)" ]
    sed '$d' first >whole
    mv whole first
  fi
  logged_times "$cut" '^$'
  logged_times 1 "^forkd\[$master\]: warning: [1-9][0-9]* log lines were dropped$"
  dropped=$(sed -n 's/.* \([0-9]*\) log lines were dropped/\1/p' log)
  # That it runs, that 31 workers have started, and two targets.
  whole=$(cat first log | grep -c '^forkd.* \(runs .*: 30\|started\|is now [0-9]*\)$')
  echo "$whole whole, $cut cut, $dropped dropped"
  [ $((whole + cut + dropped)) -eq 34 ]
  stops_with 0
}

@test "a single line that is lost is counted, and one that went out in part is ended before the next one" {
  command -v strace >/dev/null || skip "no strace"
  for how in error=EAGAIN retval=0 retval=5; do
    : >log
    background strace -o trace -e trace=write -e inject="write:$how:when=1" "$FORKD" "$W:no_such_function" 2>>log
    wait "$background" || :
    sed 's/^forkd.[0-9]*.: //; s/(pid [0-9]*) //' log >lines
    {
      case $how in
        # Five bytes of the line are out, as far as the master knows.
        retval=5) echo ;;
        *) echo "warning: 1 log lines were dropped" ;;
      esac
      echo "info: worker 0 started"
      echo "critical: worker 0 could not start: cannot load $W:no_such_function: no function 'no_such_function' is exported (in C++ it needs extern \"C\")"
    } | diff - lines
  done
}

@test "a count of lost lines that went out in part is not told again" {
  command -v strace >/dev/null || skip "no strace"
  # There is room for the count, and for a part of the line behind it.
  head -c 950 /dev/zero | tr '\0' '\n' >log
  limited strace -o /dev/null -e trace=write -e inject=write:error=EAGAIN:when=1 "$FORKD" "$W:steady"
  eventually has_a_child_of_its_own "$background"
  master=$(living "$background")
  eventually logged "warning: 1 log lines were dropped$"
  [ -n "$(tail -c 1 log)" ]
  : >log
  signal USR1
  eventually logged "started$"
  stops_tracer 0
  sed 's/^forkd.*: //; s/(pid [0-9]*) //' log | head -n 3 | diff <(printf '\nthe target is now 2\nworker 1 started\n') -
}
has_a_child_of_its_own() { [ -n "$(living "$1")" ] && [ -n "$(living "$(living "$1")")" ]; }
stops_tracer() {
  local status=0
  signal TERM
  wait "$background" || status=$?
  [ "$status" -eq "$1" ]
}

# slow_log MODE [COMMAND ...]: where the log would block, this does.
slow_log() {
  local mode=$1 status=0
  shift
  background "$@" "$BIN/slow_log" "$mode" >reason
  eventually gone_or_zombie "$background" || return
  wait "$background" || status=$?
  cat reason
  return "$status"
}

@test "a pipe, a terminal, a socket and the journal that nobody reads hold nobody up, and the count is told" {
  for kind in pipe socket terminal journal; do slow_log $kind; done
}

@test "each line is one write" {
  command -v strace >/dev/null || skip "no strace"
  background strace -e trace=write -s 300 -o trace "$FORKD" -n 2 "$W:no_such_function" 2>>log
  wait "$background" || :
  # As many writes of a line to standard error as there are lines; each ends with its only newline.
  [ "$(grep -c 'write([0-9]*, "forkd\[[0-9]*\]: .*\\n"' trace)" -eq "$(wc -l <log)" ]
}

@test "a JOURNAL_STREAM that is not standard error changes nothing" {
  : >log
  id=$(stat -c %d:%i log)
  for stream in 1:2 '' "${id}0" "0$id" "${id%:*}:" "1$id" "${id%:*}:1${id#*:}"; do
    background env JOURNAL_STREAM="$stream" "$FORKD" ./nowhere.so:run 2>>log
    wait "$background" || :
  done
  logged_times 14 "^forkd\[[0-9]*\]: [a-z]*: "
  logged_times 14 ""
}

@test "a pipe that another user made, and that is full, loses lines and stalls nobody" {
  command -v setpriv >/dev/null && [ "$(id -u)" -eq 0 ] || skip "needs root and setpriv"
  dd if=/dev/null oflag=nonblock 2>/dev/null || skip "dd cannot write without waiting"
  mkfifo -m 600 pipe
  exec 8<>pipe
  yes 2>/dev/null | dd of=pipe bs=4096 iflag=fullblock oflag=nonblock 2>/dev/null || :
  public=$(mktemp -d)
  cp "$FORKD" "$public/forkd"
  chmod -R a+rx "$public"
  setpriv --reuid=65534 --clear-groups "$public/forkd" sleep 1000 >>out 2>pipe 3>&- 8>&- &
  master=$!
  eventually has_workers 1
  signal USR1
  eventually has_workers 2
  background cat pipe >log
  eventually grows_until_reported
  exec 8>&-
  stops_with 0
  rm -r "$public"
}
