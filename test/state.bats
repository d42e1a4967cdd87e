#!/usr/bin/env bats
# -s: the state of the pool in a file; and --reload, which asks the forkd that keeps it.

load helper
load reload

# state LINE: the file state has such a line, a pattern. states LINE ...: it has each of them.
state() { await line state 1 - "^$1\$"; }
questions="$questions state"
states() {
  local line
  for line; do state "$line" || return; done
}

# ask NAME: asks in the background; what it says goes to said.NAME, its status to status.NAME.
ask() {
  background sh -c '"$FORKD" --reload state >"$0" 2>&1; echo $? >"$1.new"; mv "$1.new" "$1"' "said.$1" "status.$1"
}
# was_told NAME STATUS LINE: it has ended with that status and that line, a pattern of bash.
was_told() {
  eventually test -e "status.$1"
  cat "said.$1"
  [ "$(cat "status.$1")" -eq "$2" ] && [[ $(cat "said.$1") == $3 ]]
}
# asks STATUS LINE: the same in the foreground.
asks() {
  rm -f status.once
  ask once
  was_told once "$@"
}
complete="reload complete: every worker runs the new code"

@test "the file has a line for each name, and follows the pool; it is not there when forkd has ended" {
  touch slow
  run_forkd -n 2 -t 1000 -w 0 -s state "$BIN/one.so:slow_start" slow
  eventually logged_times 2 started
  cat state
  printf '%s\n' "pid=$master" "worker=$BIN/one.so:slow_start" target=2 healthy=0 renewed=0 reloads=0 reload=none reason= | cmp - state
  rm slow
  eventually state healthy=2
  states renewed=2
  signal USR1
  eventually state target=3
  eventually state healthy=3
  signal USR2
  eventually state target=2
  touch slow
  kill -KILL "$(pid_of 0)"
  eventually state healthy=1
  rm slow
  eventually state healthy=2
  [ "$(wc -l <state)" -eq 8 ]
  stops_with 0
  [ ! -e state ]
  [ ! -e state.new ]
}

@test "--reload waits and tells how it went: good code, code that cannot be loaded, code that is not there" {
  start_one -n 2 -w 0 -s state
  eventually state healthy=2
  deploy two
  asks 0 "$complete"
  states healthy=2 renewed=2 reloads=1 reload=complete reason=
  deploy undefined
  asks 1 "*reload failed: worker 1024 (pid *) could not start: cannot load ./code.so:steady: *a_symbol_that_nobody_has*"
  states healthy=2 renewed=2 reloads=2 reload=failed 'reason=worker 1024 .*could not start: .*a_symbol_that_nobody_has.*'
  rm code.so
  asks 1 "*reload failed: cannot load ./code.so:steady: No such file or directory"
  states reloads=3 reload=failed "reason=cannot load ./code.so:steady: No such file or directory"
  # The last word of the log is its word, too.
  logged "error: reload failed: cannot load ./code.so:steady: No such file or directory; the pool keeps its code"
}

@test "--reload tells of code that crashes at its first task" {
  cp "$W" code.so
  touch fine
  run_forkd -s state ./code.so:crashes_without "$PWD/fine" yields
  eventually state healthy=1
  rm fine
  asks 1 "*reload failed: worker 1024 (pid *) exited with status 1 after *"
}

@test "--reload waits until a pool that goes back is back, and tells why it does" {
  needs_linux "the code is pinned"
  start -w 0 -s state
  eventually is_ready 1 0
  order load.2.0 fail
  order load.1.1025 wait
  deploy two
  ask first
  eventually waits load.1.1025
  eventually state reload=back
  states reloads=1 "reason=worker 0 (pid [0-9]*) exited with status 5 after [0-9.]* s"
  # It looks several times, if it is fast.
  pause 0.4
  [ ! -e status.first ]
  rm load.1.1025
  was_told first 1 "reload failed: worker 0 (pid *) exited with status 5 after *"
  logged "back on the previous code"
  states healthy=1 reload=failed
}

@test "two that ask at once, and a HUP, each get a true answer" {
  start_one -n 2 -w 0 -s state
  eventually state healthy=2
  deploy two
  ask first
  ask second
  signal HUP
  was_told first 0 "$complete"
  was_told second 0 "$complete"
  eventually state reload=complete
  # The very same code may be asked for again.
  asks 0 "$complete"
  deploy undefined
  rm status.*
  ask first
  ask second
  was_told first 1 "*reload failed: *"
  was_told second 1 "*reload failed: *"
}

@test "--reload is not content with the reload before" {
  start_one -w 0 -s state
  eventually state healthy=1
  asks 0 "$complete"
  kill -STOP "$master"
  eventually is_state "$master" T
  ask first
  # It looks several times, if it is fast.
  pause 0.4
  [ ! -e status.first ]
  kill -CONT "$master"
  was_told first 0 "$complete"
  states reloads=2
}

@test "--reload takes no file for the newest one that has been replaced, and no other forkd for the one that it asked" {
  command -v strace >/dev/null || skip "no strace"
  touch stay
  deploy one
  run_forkd -w 0 -s state ./code.so:first_busy stay
  eventually state healthy=1
  eventually printed "^busy"
  # It has opened the file, and does not look at its lock at once.
  background strace -o trace -e trace=flock -e inject=flock:delay_enter=300000 "$FORKD" --reload state >told 2>&1
  asker=$background
  eventually has_opened
  signal USR1
  eventually state target=2
  deploy two
  eventually state reload=roll
  kill -STOP "$(living "$asker")"
  workers=$(living "$master")
  signal KILL
  wait "$master" || :
  old=$master
  rm stay
  run_forkd -w 0 -s state "$W:steady"
  eventually state "pid=$master"
  kill -CONT "$(living "$asker")"
  eventually gone_or_zombie "$asker"
  cat told
  grep -x "forkd: forkd (pid $old) has ended" told
  for worker in $workers; do eventually gone_or_zombie "$worker"; done
}
has_opened() { [ -n "$(find "/proc/$(living "$asker")/fd" -lname "*/state" 2>/dev/null)" ]; }

@test "what a worker has shown before its number was removed does not make the number healthy" {
  # It returns 0 at once, and waits for its next start when it is removed.
  order first.1.1 return
  start -n 2 -w 0 -t 1000 -s state
  eventually starts_of 1 2
  signal USR2
  eventually state target=1
  order load.1.1 wait
  signal USR1
  eventually waits load.1.1
  states target=2 healthy=1
}

@test "while a reload is on trial and rolls, the file says so, and --reload waits" {
  deploy one
  touch stay
  run_forkd -n 2 -w 0 -t 1000 -s state ./code.so:first_busy stay
  eventually state healthy=2
  eventually printed "^busy"
  deploy two
  ask first
  eventually state reload=roll
  eventually state renewed=1
  states healthy=2 reloads=1 reason=
  [ ! -e status.first ]
  rm stay
  was_told first 0 "$complete"
  states renewed=2
}

@test "a master that ends while --reload waits is said to have ended: killed, shut down, and killed by a second TERM" {
  for end in KILL TERM second; do
    deploy one
    touch stay slow
    rm -f status.* log out
    run_forkd -g 1000 -w 0 -t 1000 -s state ./code.so:first_busy stay
    eventually printed "^busy"
    deploy two
    ask first
    eventually state reload=roll
    worker=$(first_pid_of 0)
    case $end in
      KILL) signal KILL ;;
      *) signal TERM && eventually logged "shutting down" ;;
    esac
    # Its state stands as long as it lives.
    [ $end = KILL ] || states "pid=$master"
    case $end in
      TERM) rm stay && ends_with 0 ;;
      second) pause 0.15 && signal TERM && ends_with 3 ;;
    esac
    was_told first 1 "forkd: forkd (pid $master) has ended"
    if [ $end = KILL ]; then
      rm stay
      eventually gone_or_zombie "$worker"
      # What a forkd has left that was killed: nobody is signalled.
      asks 1 "forkd: no forkd keeps its state in state"
      [ -e state ]
    else
      [ ! -e state ]
    fi
  done
}

@test "beside the file no link is followed, and no FIFO is waited for" {
  echo kept >victim
  ln -s victim state.new
  run_forkd -s state sleep 1000
  ends_with 1
  logged_times 1 "critical: cannot write state: "
  [ "$(cat victim)" = kept ]
  rm state.new
  mkfifo state.new
  run_forkd -s state sleep 1000
  ends_with 1
  logged_times 2 "critical: cannot write state: "
}

@test "--reload without a forkd that keeps that file signals nobody" {
  asks 1 "forkd: no forkd keeps its state in state"
  mkdir state
  asks 1 "forkd: no forkd keeps its state in state"
  rmdir state
  # A file that names somebody who does not hold it.
  background sleep 1000
  bystander=$background
  printf 'pid=%s\nreloads=0\nreload=none\n' "$bystander" >state
  asks 1 "forkd: no forkd keeps its state in state"
  kill -0 "$bystander"
  # One that is left is taken over.
  run_forkd -s state -w 0 "$W:steady"
  eventually state "pid=$master"
  asks 0 "$complete"
}

@test "a file that another forkd keeps, and one that cannot be written, ends forkd with 1 and the reason" {
  run_forkd -s state -w 0 "$W:steady"
  eventually state healthy=1
  first=$master
  mkdir folder
  while IFS='|' read -r file reason; do
    rm -f log
    run_forkd -s "$file" -b ./socket sh -c 'touch started; exec sleep 1000'
    ends_with 1
    logged_times 1 "critical: cannot write $file: $reason"
    logged_times 1 ""
    [ ! -e started ]
    [ ! -e socket ]
  done <<'END'
state|another forkd keeps its state there$
./state|another forkd keeps its state there$
./nowhere/state|No such file or directory$
folder|not a regular file$
/dev/null|not a regular file$
END
  [ -d folder ] && [ -c /dev/null ]
  # It is that of the first one, still.
  master=$first
  states "pid=$first"
  stops_with 0
  [ ! -e state ]
}

@test "of two that start at the same moment one keeps the file, and the other ends with 1" {
  command -v strace >/dev/null || skip "no strace"
  not_emulated "strace sees the emulator"
  # The first one stops when it has looked at FILE, before it does anything else.
  background strace -f -o trace -P "$PWD/state" -e trace=?open,openat -e inject=?open,openat:signal=STOP:when=1 \
    "$FORKD" -s "$PWD/state" -w 0 "$W:steady" 2>first
  tracer=$background
  eventually has_stopped
  first=$(living "$tracer")
  run_forkd -s "$PWD/state" -w 0 "$W:steady"
  eventually says_more
  kill -CONT "$first"
  eventually one_is_left
  cat first log
  [ "$(cat first log | grep -c "critical: cannot write $PWD/state: another forkd keeps its state there\$")" -eq 1 ]
  eventually state healthy=1
  case $(sed -n s/^pid=//p state) in "$first" | "$master") ;; *) false ;; esac
  kill -KILL "$first" 2>/dev/null || :
}
has_stopped() { grep -q 'stopped by SIGSTOP' trace; }
# The second one has its sockets, or has ended.
says_more() { [ "$(wc -l <log)" -ge 1 ]; }
one_is_left() { [ "$(await living "$tracer" | wc -w)" -eq 0 ] || gone_or_zombie "$master"; }

@test "a folder that may not be written ends forkd with 1, and a user who may not signal is told so" {
  [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null || skip "needs root and setpriv"
  nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
  run_forkd -s state -w 0 "$W:steady"
  eventually state healthy=1
  # From a folder that this user may enter: the tests' own may be closed to it.
  place=$(mktemp -d /tmp/forkd.XXXXXX)
  echo "$place" >"$BATS_FILE_TMPDIR/place"
  chmod 755 "$place"
  cp "$FORKD" "$place/forkd"
  status=0
  $nobody "$place/forkd" -s "$place/state" true >out 2>err || status=$?
  cat err
  [ "$status" -eq 1 ]
  grep "critical: cannot write $place/state: Permission denied" err
  "$place/forkd" -s "$place/state" -w 0 "$W:steady" >>out 2>>log 3>&- &
  master=$!
  eventually test -s "$place/state"
  status=0
  $nobody "$place/forkd" --reload "$place/state" >out 2>err || status=$?
  [ "$status" -eq 1 ]
  grep -x "forkd: cannot signal forkd (pid $master): Operation not permitted" err
  states reloads=0
  stops_with 0
}
teardown_file() {
  [ ! -e "$BATS_FILE_TMPDIR/place" ] || rm -rf "$(cat "$BATS_FILE_TMPDIR/place")"
}

@test "a file that cannot be written later is one warning, and is written again when that is possible" {
  mkdir folder
  run_forkd -s folder/state -w 0 "$W:steady"
  eventually found healthy=1 folder/state
  mv folder hidden
  for target in 2 3; do
    signal USR1
    eventually has_workers $target
  done
  logged_times 1 "warning: cannot write folder/state: No such file or directory$"
  logged_times 1 warning
  mkdir folder
  signal USR1
  eventually found target=4 folder/state
  # It may fail anew, and that is said anew.
  mv folder hidden2
  signal USR2
  eventually logged_times 2 "warning: cannot write folder/state"
  stops_with 0
}

@test "a full disk is one warning, and the file before stays whole" {
  # A limit for files is as good, but is one for the log, too, so that goes through a pipe. The path is so
  # long that the reason of a failed reload is too much.
  printf -v path './%.0s' {1..380}
  cp "$W" code.so
  mkfifo pipe
  background cat pipe >log
  background bash -c 'ulimit -f 1 && exec "$@" >>out 2>pipe' - "$FORKD" -s state -w 0 "${path}code.so:steady"
  master=$background
  eventually state healthy=1
  cp state before
  rm code.so
  signal HUP
  eventually logged_times 1 "warning: cannot write state: No space left on device\$"
  cmp state before
  [ ! -e state.new ]
  signal HUP
  eventually logged_times 2 "reload failed"
  deploy workers
  signal HUP
  eventually state reload=complete
  states reloads=3
  logged_times 1 "warning: cannot write"
  stops_with 0
  [ ! -e state ]
}

@test "a reader that loops always sees the file whole" {
  # Each write of the file takes long.
  slow=
  ! command -v strace >/dev/null ||
    slow="strace -o trace -P $PWD/state -P $PWD/state.new -e trace=write -e inject=write:delay_enter=30000"
  background $slow "$FORKD" -s state -w 0 "$W:steady" >>out 2>>log
  eventually state healthy=1
  master=$(sed -n 's/^pid=//p' state)
  background bash -c 'while [ ! -e enough ]; do
    mapfile -t lines <state && [ ${#lines[@]} -eq 8 ] && [[ ${lines[0]} == pid=* && ${lines[7]} == reason=* ]] ||
      { printf "%s\n" "not whole" "${lines[@]}"; exit 1; }
    [ -e begun ] || : >begun
  done'
  reader=$background
  eventually test -e begun
  for target in 2 3 4 5; do
    signal USR1
    eventually state "target=$target"
    eventually state "healthy=$target"
  done
  touch enough
  wait "$reader"
}

@test "no worker, and no program, has a descriptor of the file" {
  run_forkd -s state "$W:descriptors"
  eventually printed "^open:"
  cp out with
  stops_with 0
  : >out
  run_forkd "$W:descriptors"
  eventually printed "^open:"
  cmp out with
  run_forkd -s state sleep 1000
  eventually has_workers 1
  worker=$(living "$master")
  eventually is_called "$worker" sleep
  never grep -l "state" <(ls -l "/proc/$worker/fd")
}

@test "control characters in the name of the worker break no line, and a reason that is too long is cut between two characters" {
  # 122 characters of two bytes each.
  printf -v long 'ä%.0s' {1..122}
  folder="./$long"
  mkdir "$folder"
  cp "$W" "$folder/w.so"
  run_forkd -s state -w 0 "$folder/w.so:steady"
  eventually state healthy=1
  rm "$folder/w.so"
  signal HUP
  eventually state reload=failed
  grep -x "worker=$folder/w.so:steady" state
  grep -x "reason=cannot load ./${long::120}" state || grep -x "reason=cannot load ./${long::240}" state
  stops_with 0
  folder='./a
pid=1	b'
  mkdir "$folder"
  cp "$W" "$folder/w.so"
  run_forkd -s state -w 0 "$folder/w.so:steady"
  eventually state healthy=1
  states "worker=./a?pid=1?b/w.so:steady"
  rm "$folder/w.so"
  signal HUP
  eventually state "reason=cannot load ./a?pid=1?b/w.so:steady: No such file or directory"
  [ "$(wc -l <state)" -eq 8 ]
}

@test "--reload that is used in a wrong way is a usage error" {
  for arguments in "--reload" "--reload state ./w.so:run" "--reload state true" "--reload= x"; do
    status=0
    "$FORKD" $arguments >out 2>err || status=$?
    cat err
    [ "$status" -eq 2 ]
    [ ! -s out ]
    grep "^forkd: .*(see 'forkd --help')$" err
  done
}

@test "idle with -s, the master makes no system call" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -s state -w 0 "$W:steady"
  eventually state healthy=1
  strace -p "$master" -o trace 3>&- &
  tracer=$!
  eventually test -s trace
  pause 1.5
  cat trace
  [ "$(grep -c '(' trace)" -eq 1 ]
  # What changes nothing does not write the file again.
  for times in 1 2; do
    signal USR2
    eventually logged_times $times "the target stays 1"
  done
  kill -INT "$tracer"
  wait "$tracer" || :
  never grep -E 'open|rename|flock' trace
}
