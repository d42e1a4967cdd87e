#!/usr/bin/env bats
# Hard to kill: random events, signals at every moment, system calls that fail.
#
# Bounded and seeded here; `make soak` runs it for SOAK seconds, with SEED.

load helper

# Which workers live, by number: the master's children as the log names them.
numbers() {
  living "$master" | while read -r pid; do
    sed -n "s/.*info: worker \([0-9]*\) (pid $pid) started\$/\1/p" log | tail -n 1
  done | sort -n
}
is_whole() { [ "$(numbers | tr '\n' ' ')" = "$(seq 0 $(($1 - 1)) | tr '\n' ' ')" ]; }
descriptors() { find "/proc/$master/fd" -type l | wc -l; }
private_kb() { awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$master/smaps_rollup"; }
no_more_than() { [ "$1" -le "$2" ]; }

@test "random events at full speed leave a pool that is whole, without zombies or leaks" {
  [ -r /proc/self/smaps_rollup ] || skip "no /proc/PID/smaps_rollup"
  RANDOM=${SEED:-1}
  deploy workers
  run_forkd -n 20 ./code.so:steady
  eventually is_whole 20
  # One of everything before the first look: what is acquired once, is no leak.
  signal HUP
  eventually logged "worker 1024 (pid [0-9]*) exited"
  eventually is_whole 20
  before=$(descriptors) memory=$(private_kb)
  end=$((SECONDS + ${SOAK:-3})) target=20
  while [ "$SECONDS" -lt "$end" ]; do
    pids=($(living "$master"))
    [ "${#pids[@]}" -gt 0 ] || continue
    for event in $(seq 15); do
      pid=${pids[RANDOM % ${#pids[@]}]}
      case $((RANDOM % 12)) in
        0 | 1) kill -KILL "$pid" ;;
        2) kill -STOP "$pid" ;;
        3) kill -CONT "$pid" ;;
        4) kill -ABRT "$pid" ;;
        5) kill -TERM "$pid" ;;
        6) kill -HUP "$pid" ;;
        7) signal USR1 ;;
        8) signal USR2 ;;
        9) signal HUP ;;
        10) deploy workers ;;
        11) deploy "$BIN/ctor_crash.so" ;;
      esac 2>/dev/null || :
    done
  done
  for pid in $(living "$master"); do kill -CONT "$pid" || :; done
  # Whatever is waiting in a backoff starts at once on good code.
  deploy workers
  eventually reloaded_since "$(grep -c "reload succeeded" log)"
  target=$(sed -n 's/.*the target is now //p' log | tail -n 1)
  eventually is_whole "${target:-20}"
  [ "$(children "$master" | wc -l)" -eq "${target:-20}" ]
  [ "$(descriptors)" -eq "$before" ]
  no_more_than "$(private_kb)" $((memory + 64))
  stops_with 0
}
reloaded_since() {
  [ "$(grep -c "reload succeeded" log)" -gt "$1" ] || { signal HUP; return 1; }
}

@test "TERM, INT and QUIT at every moment of the start end it" {
  for name in TERM INT QUIT; do
    "$BIN/moments" start "$(kill -l $name)" "${STEP:-1000}" "${LAST:-15000}" \
      "$FORKD" -n 3 -l critical "$W:steady" 3>&-
  done
}

@test "USR1, USR2 and HUP at every moment of a shutdown change nothing" {
  for name in USR1 USR2 HUP; do
    "$BIN/moments" stop "$(kill -l $name)" "${STEP:-4000}" "${LAST:-12000}" \
      "$FORKD" -n 3 -l critical "$W:steady" 3>&-
  done
}

# inject CALLS ERROR WHEN [STRACE-OPTION ...]: the pool comes up whole, or forkd says why not and ends
# with 1; and then it ends as it should.
inject() {
  local calls=$1 error=$2 when=$3
  shift 3
  rm -f log
  deploy workers
  strace "$@" -o /dev/null -e trace="$calls" -e inject="$calls:error=$error:when=$when" \
    "$FORKD" -n 3 ./code.so:steady >>out 2>>log 3>&- &
  tracer=$!
  eventually settled_somehow || return
  if [ "$outcome" = ended ]; then
    wait "$tracer" && return 1 || [ $? -eq 1 ] && logged "critical\|error\|cannot"
    return
  fi
  kill -TERM "$master"
  wait "$tracer" || { echo "$calls $error $when: status $?"; return 1; }
}
settled_somehow() {
  gone_or_zombie "$tracer" && outcome=ended && return
  master=$(living "$tracer" | head -n 1)
  [ -n "$master" ] && has_workers 3 && outcome=whole
}

@test "each system call of the master that fails is an orderly error, or is recovered from" {
  command -v strace >/dev/null || skip "no strace"
  # Which mmap is that of the shared memory; those before it are the loader's.
  strace -o trace -e trace=mmap "$FORKD" ./nowhere.so:run || :
  map=$(grep -n MAP_SHARED.MAP_ANON trace | cut -d: -f1)
  inject mmap ENOMEM "$map"
  logged "cannot make shared memory: "
  # What the loader opens comes first here, too, and is all that is opened for the help.
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
  for calls in "?pipe,pipe2" "fcntl,?fcntl64"; do
    rm -f log
    strace -o trace -e trace="$calls" -e inject="$calls:error=EMFILE:when=1" "$FORKD" "$W:returns" 1 >>out 2>>log 3>&- &
    background=$!
    wait "$background" || :
    ! grep -q INJECTED trace || logged_times 1 "critical: cannot make a pipe: \(Too many open files\|No file desc\)"
  done
}

@test "each system call of a starting worker that fails is an orderly error, or is recovered from" {
  command -v strace >/dev/null || skip "no strace"
  inject prctl EINVAL 1 -f
}

@test "random arguments never give anything but a status of 0, 1 or 2 and a readable line" {
  RANDOM=${SEED:-1}
  words=(-n -g -t -l -b -h -V --help --bind --grace= --num-workers=3 -- -x 0 1 -1 1e9 0.5 info debug
    ./x.so ./x.so:run :run x: /nowhere/x.so:run nowhere '' ' ' $'\n' $'\377' '%s%n' 127.0.0.1:0
    '[::1]:99999' "$(printf '%05000d' 0)" 18446744073709551617)
  for round in $(seq "${ROUNDS:-60}"); do
    arguments=()
    for word in $(seq $((RANDOM % 5))); do arguments+=("${words[RANDOM % ${#words[@]}]}"); done
    status=0
    timeout 10 "$FORKD" "${arguments[@]}" no-such-command >fuzz.out 2>fuzz.err 3>&- || status=$?
    [ "$status" -le 2 ] || { printf 'status %s: ' "$status"; printf '%q ' "${arguments[@]}"; return 1; }
    # A line names what is wrong, or the usage was asked for.
    [ -s fuzz.out ] || grep -q '^forkd' fuzz.err
    never grep -q '[[:cntrl:]]' fuzz.err
  done
}
