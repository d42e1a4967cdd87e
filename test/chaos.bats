#!/usr/bin/env bats
# Hard to kill: random events, signals at every moment, system calls that fail.
#
# Bounded and seeded here; `make soak` runs it for SOAK seconds, with SEED.

load helper

# is_whole: the master's children are the workers 0 to target - 1, as the log names them, one each.
is_whole() {
  awk -v children="$(<"/proc/$master/task/$master/children")" '
    / started$/ { number[$6 + 0] = $4 }
    / runs .*, workers: / || /the target is now/ { target = $NF }
    END {
      count = split(children, pid, " ")
      for (i = 1; i <= count; i++) if (pid[i] in number && number[pid[i]] < target) whole[number[pid[i]]]
      for (i in whole) found++
      exit !(target && count == target && found == target)
    }' log
}
descriptors() { (shopt -s nullglob && set -- "/proc/$master/fd/"* && echo $#); }
private_kb() { awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$master/smaps_rollup"; }
no_more_than() { [ "$1" -le "$2" ]; }

@test "random events at full speed leave a pool that is whole, without zombies or leaks" {
  [ -r /proc/self/smaps_rollup ] || skip "no /proc/PID/smaps_rollup"
  RANDOM=${SEED:-1}
  deploy workers
  run_forkd -w 0 -n 20 ./code.so:steady
  eventually is_whole
  # One of everything before the first look: what is acquired once, is no leak.
  eventually reload_completes
  eventually is_whole
  before=$(descriptors) memory=$(private_kb)
  random_events
  kill -CONT $(children "$master") 2>/dev/null || :
  # Whatever is waiting in a backoff starts at once on good code.
  deploy workers
  eventually reload_completes
  eventually is_whole
  eventually descriptors_are "$before"
  no_more_than "$(private_kb)" $((memory + 64))
  stops_with 0
}
# Fifty rounds, or more until SOAK seconds have passed. (In a shell without the trap of Bats, which runs
# before each command.)
random_events() (
  trap - DEBUG
  end=$((SECONDS + ${SOAK:-0}))
  for ((round = 0; round < 50 || SECONDS < end; round++)); do
    read -r -a pids <"/proc/$master/task/$master/children" || :
    for event in {1..15}; do
      pid=${pids[RANDOM % (${#pids[@]} + 1)]:-} # sometimes none
      case $((RANDOM % 24)) in
        0 | 1 | 2 | 3) kill -KILL "$pid" ;;
        4 | 5) kill -STOP "$pid" ;;
        6 | 7) kill -CONT "$pid" ;;
        8 | 9) kill -ABRT "$pid" ;;
        10 | 11) kill -TERM "$pid" ;;
        12 | 13) kill -HUP "$pid" ;;
        14 | 15 | 16) signal USR1 ;;
        17 | 18 | 19) signal USR2 ;;
        20 | 21) signal HUP ;;
        22) deploy workers ;;
        23) deploy ctor_crash ;;
      esac 2>/dev/null || :
    done
  done
)
descriptors_are() { [ "$(descriptors)" -eq "$1" ]; }
# A reload of now; that of an earlier HUP may end first.
reload_completes() {
  local ended
  ended=$(grep -c "reload failed\|reload complete" log || :)
  signal HUP
  eventually logged_at_least $((ended + 1)) "reload failed\|reload complete"
  [[ $(grep "reload failed\|reload complete" log | tail -n 1) == *complete* ]]
}

@test "TERM, INT and QUIT at every moment of the start end it" {
  for name in TERM INT QUIT; do
    "$BIN/moments" start "${MOMENTS:-8}" "$(kill -l $name)" "worker 1 (pid" \
      "$FORKD" -b ./socket -n 2 "$W:steady" 3>&-
    [ ! -e socket ]
  done
}

# It prints its help before it does anything else, and here nobody reads that at first.
@test "from the beginning of main on no signal kills" {
  mkfifo pipe
  exec 4<>pipe
  background cat /dev/zero >&4
  filler=$background
  eventually is_state "$filler" S
  "$FORKD" --help >&4 2>>log 3>&- &
  master=$!
  eventually is_blocked_in forkd
  for name in HUP INT QUIT USR1 USR2 PIPE TTOU XFSZ TERM; do signal "$name"; done
  kill -KILL "$filler"
  background cat pipe >/dev/null
  exec 4>&-
  ends_with 0
}
# Only a full pipe lets it sleep. (By builtins, so that it does not change in between.)
is_blocked_in() {
  local stat
  { read -r stat <"/proc/$master/stat"; } 2>/dev/null && [[ $stat == *"($1) S"* ]]
}

@test "USR1, USR2 and HUP at every moment of a shutdown change nothing" {
  for name in USR1 USR2 HUP; do
    "$BIN/moments" stop "${MOMENTS:-5}" "$(kill -l $name)" "worker 1 (pid" "$FORKD" -n 2 "$W:steady" 3>&-
  done
}

# inject CALLS ERROR WHEN [STRACE-OPTION ...]: the pool comes up whole, or forkd says why not and ends
# with 1; and then it ends as it should.
inject() {
  local calls=$1 error=$2 when=$3
  shift 3
  rm -f log
  strace "$@" -o trace -e trace="$calls" -e inject="$calls:error=$error:when=$when" \
    "$FORKD" -n 2 ./code.so:steady >>out 2>>log 3>&- &
  tracer=$!
  eventually settled_somehow || return
  # What has been whole for a moment may end by itself, too.
  [ "$outcome" = ended ] || kill -TERM "$master" 2>/dev/null || :
  local status=0
  wait "$tracer" || status=$?
  case $outcome-$status in
    whole-0) ;;
    *-1) logged "critical\|error\|cannot" ;;
    *) echo "$calls $error $when: $outcome, status $status" && return 1 ;;
  esac
}
settled_somehow() {
  gone_or_zombie "$tracer" && outcome=ended && return
  read -r master <"/proc/$tracer/task/$tracer/children" || [ -n "$master" ] || return
  master=${master%% *}
  has_workers 2 && outcome=whole
}

@test "each system call of the master that fails is an orderly error, or is recovered from" {
  command -v strace >/dev/null || skip "no strace"
  deploy workers
  # Which mmap is that of the shared memory, and which open is forkd's; those before it are the loader's.
  strace -o trace -e trace=mmap,open,openat "$FORKD" ./nowhere.so:run 2>>log || :
  map=$(awk '/^mmap/ { maps++ } /MAP_SHARED.MAP_ANON/ { print maps; exit }' trace)
  inject mmap ENOMEM "$map"
  logged "cannot make shared memory: "
  # (All that is opened for the help.)
  strace -o trace -e trace=open,openat "$FORKD" --help >help
  opens=$(grep -c '^open' trace) || :
  for when in ${INJECT:-1 2}; do
    inject clone,clone3,fork,vfork EAGAIN "$when"
    inject pipe2,pipe EMFILE "$when"
    inject poll,ppoll ENOMEM "$when"
    inject write EIO "$when"
    inject wait4,waitid EINTR "$when"
    inject fcntl EMFILE "$when"
    inject open,openat EMFILE $((opens + when))
    # (A sanitizer gives up itself where it cannot have its handlers.)
    [ -n "$LDFLAGS" ] || inject rt_sigaction EINVAL "$when"
  done
}

@test "what is missing to begin with is named, with the reason" {
  command -v strace >/dev/null || skip "no strace"
  # Three calls look at the standard descriptors.
  for calls in "?pipe,pipe2 1" "fcntl,?fcntl64 4"; do
    rm -f log
    strace -o trace -e trace="${calls% *}" -e inject="${calls% *}:error=EMFILE:when=${calls#* }" "$FORKD" "$W:returns" 1 >>out 2>>log 3>&- &
    background=$!
    wait "$background" || :
    [[ $(<trace) != *INJECTED* ]] || logged_times 1 "critical: cannot make a pipe: \(Too many open files\|No file desc\)"
  done
}

@test "each system call of a starting worker that fails is an orderly error, or is recovered from" {
  command -v strace >/dev/null || skip "no strace"
  deploy workers
  inject prctl EINVAL 1 -f
}

@test "random arguments never give anything but a status of 0, 1 or 2 and a readable line" {
  RANDOM=${SEED:-1}
  words=(-n -g -t -l -b -h -V --help --bind --grace= --num-workers=3 -- -x 0 1 -1 1e9 0.5 debug
    ./x.so ./x.so:run :run x: /nowhere/x.so:run nowhere '' ' ' $'\n' $'\377' '%s%n' 127.0.0.1:0
    '[::1]:99999' "$(printf '%05000d' 0)" 18446744073709551617)
  for ((round = 0; round < ${ROUNDS:-40}; round++)); do
    arguments=()
    for ((word = RANDOM % 5; word > 0; word--)); do arguments+=("${words[RANDOM % ${#words[@]}]}"); done
    status=0
    timeout "$deadline_seconds" "$FORKD" "${arguments[@]}" no-such-command >fuzz.out 2>fuzz.err 3>&- || status=$?
    said=$(<fuzz.err)
    # A line names what is wrong, or the usage was asked for.
    [ "$status" -le 2 ] && [[ -s fuzz.out || $said == forkd* || $said == *$'\n'forkd* ]] &&
      [[ ${said//$'\n'/} != *[[:cntrl:]]* ]] ||
      { printf 'status %s: ' "$status"; printf '%q ' "${arguments[@]}"; return 1; }
  done
}
