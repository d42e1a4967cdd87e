#!/usr/bin/env bats
# forkd in containers: alone with its worker in a root folder (see tools/image.sh), as PID 1 of a PID
# namespace; and with so few processes, descriptors or bytes of stack that something must fail.
#
# What goes on inside is looked at from outside, through the host's /proc: in there is no shell.

# Lists are split into words, and variables come from helper.bash.
# shellcheck disable=SC2046,SC2086,SC2154,SC2206

load helper

setup_file() {
  export IMAGES=$BATS_FILE_TMPDIR/images
  # Flags that the user has chosen for his forkd (a sanitizer) need files that no image has.
  CXXFLAGS=-O0 sh "$ROOT/test/tools/image.sh" "$IMAGES" >"$BATS_FILE_TMPDIR/images.txt"
  sed -n 's/.*skipped/# &/p' "$BATS_FILE_TMPDIR/images.txt" >&3
  # What the tests run is for the first of these two; for the other one it is built here.
  export OWN=musl
  [ ! -e "$IMAGES/glibc" ] || OWN=glibc
  cp "$BIN/one.so" "$IMAGES/$OWN.one.so"
  cp "$BIN/two.so" "$IMAGES/$OWN.two.so"
  [ "$OWN" = musl ] || [ ! -e "$IMAGES/musl" ] || { build_for_musl one 1 && build_for_musl two 2; }
}

# build_for_musl NAME VERSION
build_for_musl() {
  musl-gcc -x c++ -std=c++20 -fno-exceptions -fno-rtti "-DVERSION=\"$2\"" -I"$ROOT" -fPIC -shared \
    -o "$IMAGES/musl.$1.so" "$ROOT/test/workers/versioned.cpp"
}

# make_root FOLDER IMAGE: the folder, with the image as its root, and in that the worker.
make_root() {
  mkdir "$1"
  # Links: nothing is written into these files.
  cp -Rl "$IMAGES/$2" "$1/root"
  chmod -R a+rX "$1/root"
  [ "$2" = static ] || ln -f "$IMAGES/$2.one.so" "$1/root/worker.so"
}

needs_roots() {
  { unshare --pid --fork --mount chroot / true && [ -e "/proc/$$/task/$$/children" ]; } 2>/dev/null ||
    skip "cannot make a PID namespace here: needs root and unshare"
}

# enter KIND COMMAND ...: becomes the command, as PID 1 in the root.
enter() {
  local kind=$1
  shift
  case $kind in
    *closed*) exec <&- ;;&
    all_closed*) exec >&- 2>&- ;;&
    user) exec unshare --pid --fork chroot --userspec=65534:65534 root "$@" ;;
    proc)
      mkdir root/proc
      exec unshare --pid --fork --mount-proc="$PWD/root/proc" chroot root "$@"
      ;;
    dev | *_dev)
      mkdir root/dev
      inside_mounts 'mount --bind /dev root/dev' "$@"
      ;;
    readonly) inside_mounts 'mount --bind root root && mount -o remount,bind,ro root' "$@" ;;
    *) exec unshare --pid --fork chroot root "$@" ;;
  esac
}
inside_mounts() {
  local mounts=$1
  shift
  # shellcheck disable=SC2016
  exec unshare --pid --fork --mount sh -ec "$mounts"' && exec chroot root "$@"' sh "$@"
}

# run_init KIND ARGUMENT ...: starts /forkd with the arguments in the background, in the root of this
# folder. Its exit status is that of $master.
run_init() {
  (enter "$1" /forkd "${@:2}") >>out 2>>log 3>&- &
  master=$!
}

# Whether PID 1 has become forkd and catches TERM; then $init is its pid. See proc(5) for the fields.
is_up() {
  local stat=()
  read -r init <"/proc/$master/task/$master/children" || [ -n "$init" ] || return
  init=${init%% *}
  read -r -a stat <"/proc/$init/stat" || return
  [ "${stat[1]}" = "(forkd)" ] && [ $((stat[33] & 1 << 14)) -ne 0 ]
} 2>/dev/null

# Its children, zombies too, are so many; then their pids are in $workers.
workers_are() {
  workers=()
  { read -r -a workers <"/proc/$init/task/$init/children" || :; } 2>/dev/null
  [ "${#workers[@]}" -eq "$1" ]
}

# runs_code PID NAME: whether it runs the file that has this name now. One that was replaced is shown as
# deleted.
runs_code() {
  local maps IFS='|'
  { mapfile -t maps <"/proc/$1/maps"; } 2>/dev/null && [[ "${maps[*]}|" == *"/$2|"* ]]
}

# Puts the next version at the path. (Of the command it is a copy.)
deploy_next() {
  if [ "$image" = static ]; then cp root/ping new; else ln "$IMAGES/$image.two.so" new; fi
  mv new "root/$code"
}

# each COMMAND ...: runs it in every folder of $roots, with $kind, $image, the name of the $code, $master
# (what its exit status is) and $init (forkd) set. All have done it before the next step, so that their
# waits overlap.
each() {
  for root in $roots; do
    kind=${root%-*} image=${root#*-} code=worker.so
    [ "$image" != static ] || code=ping
    cd "$BATS_TEST_TMPDIR/$root" || return
    master=${masters[$root]:-} init=${inits[$root]:-}
    "$@" || { echo "in $root"; return 1; }
    masters[$root]=$master inits[$root]=${init:-}
  done
}
declare -gA masters inits
roots=

signal_init() { kill -s "$1" "$init"; }
# Where there is something to say it to.
says() { [[ $kind == all_closed* ]] || eventually printed "$1"; }
logs() { [[ $kind == all_closed* ]] || eventually logged "$1"; }

@test "each image has nothing but what it needs, and runs" {
  needs_roots
  cat "$BATS_FILE_TMPDIR/images.txt"
  local -A files=([glibc]=5 [musl]=4 [static]=2)
  for image in glibc musl static; do
    [ -e "$IMAGES/$image" ] || continue
    [ "$(find "$IMAGES/$image" -type f | wc -l)" -eq "${files[$image]}" ]
    mkdir "image-$image"
    cp -Rl "$IMAGES/$image" "image-$image/root"
    roots="$roots image-$image"
  done
  each starts_example
  each eventually printed "^ping$"
  each eventually is_up
  each signal_init TERM
  each ends_with 0
  each logged "^forkd\[1\]: info: worker 0 (pid [0-9]*) exited with status 0"
}
starts_example() { if [ "$image" = static ]; then run_init bare /ping 10; else run_init bare ./worker.so:run; fi; }

# All kinds with the first image; with the others those in which they might differ.
@test "a pool lives in every root and with whatever is open, and tries new code there" {
  needs_roots
  for root in {bare,proc,dev,readonly,user,input_closed,all_closed,all_closed_dev}-$OWN \
    {bare,proc,all_closed}-musl {bare,input_closed,all_closed}-static; do
    [ -e "$IMAGES/${root#*-}" ] && [ ! -e "$root" ] || continue
    [[ $root != user-* ]] || chroot --userspec=65534:65534 / true 2>/dev/null || continue
    make_root "$root" "${root#*-}"
    roots="$roots $root"
  done
  each starts
  each grows
  each renews
  each shrinks_and_ends
  each ends_with 0
}
starts() { if [ "$image" = static ]; then run_init "$kind" -w 0 /ping 10; else run_init "$kind" -w 0 ./worker.so:steady; fi; }
grows() {
  eventually is_up && eventually workers_are 1 && says "^ping$\|^version 1 number 0$" && signal_init USR1
}
# New code while a worker runs the old one.
renews() {
  eventually workers_are 2 && eventually runs_code "${workers[0]}" "$code" && deploy_next &&
    ! runs_code "${workers[0]}" "$code" && signal_init HUP
}
shrinks_and_ends() {
  eventually is_renewed && says "^ping$\|^version 2 number 1$" && logs "reload complete" && signal_init USR2 &&
    eventually workers_are 1 && signal_init TERM
}
# Two workers on the new code: the old ones and the extra one have ended.
is_renewed() { workers_are 2 && runs_code "${workers[0]}" "$code" && runs_code "${workers[1]}" "$code"; }

@test "without /proc a worker that is added after a deploy runs the file at the path, and holds none" {
  needs_roots
  make_root here $OWN
  cd here
  run_init bare ./worker.so:steady
  eventually printed "^version 1 number 0"
  eventually is_up
  image=$OWN code=worker.so
  deploy_next
  kill -USR1 "$init"
  eventually printed "^version 2 number 1"
  workers_are 2
  # Each has as many descriptors as the first one, which has the path's file.
  first=("/proc/${workers[0]}/fd/"*) second=("/proc/${workers[1]}/fd/"*)
  [ ${#first[@]} -gt 0 ] && [ ${#first[@]} -eq ${#second[@]} ]
  kill -TERM "$init"
  ends_with 0
}

# Or what the worker prints would go into its own stop descriptor, which then is readable.
@test "with 0, 1 and 2 closed, and no /dev/null, what a worker opens lies elsewhere" {
  needs_roots
  make_root here $OWN
  cp "$BIN/workers.so" here/root
  cd here
  run_init all_closed ./workers.so:polls
  eventually is_up
  eventually has_stop_descriptor
  kill -TERM "$init"
  ends_with 0
}
# While it sleeps in its poll: before, it has the master's pipe.
has_stop_descriptor() {
  workers_are 1 && is_state "${workers[0]}" S || return
  ls -l "/proc/${workers[0]}/fd" >descriptors 2>/dev/null
  grep -q ' [3-9] -> pipe:' descriptors && ! grep -q ' [0-2] -> pipe:' descriptors
}

# The one place where forkd cannot go on but has to wait.
@test "under a limit of one process fork fails, and the pool comes up when it is lifted" {
  if limit_user || limit_cgroup; then :; else skip "no limit on processes to be had here"; fi
  eventually logged "error: cannot fork: .*; next try in 0\.[124]00 s"
  signal USR1
  eventually logged_at_least 3 "cannot fork"
  kill -0 "$master"
  never logged "giving up"
  lift
  eventually has_workers 2
  # Each try was later than the one before: there were few.
  [ "$(grep -c "cannot fork" log)" -le 15 ]
  stops_with 0
  # It is in use until the last process in it has been reaped.
  [ -z "${cgroup:-}" ] || eventually rmdir "$cgroup"
}
# A user's limit, from which root may be exempt: so it is a user that runs nothing else.
limit_user() {
  as_user="setpriv --reuid=$((2000000000 + $$)) --regid=65534 --clear-groups"
  $as_user prlimit --nproc=1: true 2>/dev/null || return
  lift() { $as_user prlimit --pid "$master" --nproc=100:; }
  # Folders above may be closed to the user, the one it is in is not.
  mkdir root && cp "$FORKD" root/forkd && cp "$BIN/workers.so" root && chmod -R a+rX root && cd root || return
  background $as_user prlimit --nproc=1: ./forkd ./workers.so:steady >>../out 2>>../log
  master=$background
  cd ..
}
# A cgroup's.
limit_cgroup() {
  local base
  for base in /sys/fs/cgroup/pids /sys/fs/cgroup; do
    cgroup=$base/forkd-test-$$
    mkdir "$cgroup" 2>/dev/null || continue
    [ ! -e "$cgroup/pids.max" ] || break
    rmdir "$cgroup"
  done
  echo 1 >"$cgroup/pids.max" || return
  lift() { echo max >"$cgroup/pids.max"; }
  # shellcheck disable=SC2016
  background sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" "$FORKD" "$W:steady" >>out 2>>log
  master=$background
}

@test "sixteen descriptors are enough" {
  limited -n 16 -w 0 -n 2 "$W:steady"
  eventually has_workers 2
  signal HUP
  eventually logged "reload complete"
  eventually logged_times 3 "exited with status 0"
  stops_with 0
}
# limited FLAG LIMIT ARGUMENT ...: forkd with an ulimit.
limited() {
  # shellcheck disable=SC2016
  background sh -c 'ulimit "$0" "$1" && shift && exec "$@"' "$1" "$2" "$FORKD" "${@:3}" >>out 2>>log
  master=$background
}

@test "too few descriptors for the sockets end it with 1 and the reason" {
  limited -n 16 $(printf -- '-b ./s%s ' 1 2 3 4 5 6 7 8 9 10 11 12 13 14) "$W:steady"
  ends_with 1
  logged "cannot listen on ./s1[34]: Too many open files" || logged "cannot .*: No file descriptors available"
  never compgen -G "s[0-9]*"
}

@test "without descriptors a reload is off and a worker waits; later both work" {
  command -v prlimit >/dev/null || skip "no prlimit"
  # It says so each time that it was loaded.
  run_forkd -w 0 "$W:arguments"
  eventually printed "^worker 0:"
  # A reload that succeeds shows a healthy worker: from then on the master does not give up.
  signal HUP
  eventually logged "reload complete"
  prlimit --pid "$master" --nofile=3:
  signal HUP
  eventually logged "error: reload failed: cannot load $W:arguments: .*; the pool keeps its code"
  # One more each time, until there are enough: the reason is always the same.
  limit=3
  until logged_times 2 "reload complete"; do
    limit=$((limit + 1))
    prlimit --pid "$master" --nofile=$limit:
    ended=$(grep -c "reload failed\|reload complete" log)
    signal HUP
    eventually logged_at_least $((ended + 1)) "reload failed\|reload complete"
  done
  [ "$(sed -n 's/.*reload failed: cannot load .*: \(.*\); the.*/\1/p' log | sort -u | wc -l)" -eq 1 ]
  prlimit --pid "$master" --nofile=3:
  loaded=$(grep -c "^worker 0:" out)
  kill -KILL "$(pid_of 0)"
  eventually logged "error: worker 0 .*could not start: cannot load $W:arguments: "
  prlimit --pid "$master" --nofile=64:
  eventually printed_times $((loaded + 1)) "^worker 0:"
  signal HUP
  eventually logged_times 3 "reload complete"
  stops_with 0
}

@test "a stack of 64 KiB is enough, also for what fails" {
  needs_linux "the code is pinned"
  cp "$W" .
  limited -s 64 -w 0 -n 2 ./workers.so:steady
  eventually has_workers 2
  signal HUP
  eventually logged "reload complete"
  eventually logged_times 3 "exited with status 0"
  echo nonsense >new
  mv new workers.so
  signal HUP
  eventually logged "error: reload failed: worker 1024 .* could not start: cannot load"
  signal USR1
  eventually has_workers 3
  stops_with 0
}
