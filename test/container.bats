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
  (unset CXXFLAGS && sh "$ROOT/test/tools/image.sh" "$IMAGES") >"$BATS_FILE_TMPDIR/images.txt"
  sed -n 's/.*skipped/# &/p' "$BATS_FILE_TMPDIR/images.txt" >&3

  # The example in a hurry, and a next version of it.
  sed 's/sleep(1)/usleep(10000)/' "$ROOT/test/examples/worker.cpp" >"$IMAGES/ping.cpp"
  sed 's/ping/pong/' "$IMAGES/ping.cpp" >"$IMAGES/pong.cpp"
  cp "$ROOT/test/workers/workers.cpp" "$IMAGES"
  local name
  for name in ping pong workers; do
    [ ! -e "$IMAGES/glibc" ] || build glibc "$CC" "$CXX" $name
    [ ! -e "$IMAGES/musl" ] || build musl "$(musl "$CC")" "$(musl "$CXX")" $name
  done
}

# build IMAGE CC CXX NAME
build() {
  "$3" -I"$ROOT" -O1 -fPIC -c -o "$IMAGES/$4.o" "$IMAGES/$4.cpp" &&
    "$2" -shared -pthread -o "$IMAGES/$1.$4.so" "$IMAGES/$4.o"
}

# musl COMPILER: the one for musl; that is COMPILER itself where there is only musl.
musl() { if [ -e "$IMAGES/glibc" ]; then echo musl-gcc; else echo "$1"; fi; }

declare -gA masters inits

# make_roots [IMAGE ...]: a folder for each image there is (of those named), in it the image as root.
make_roots() {
  # shellcheck disable=SC2016
  { unshare --pid --fork --mount chroot / true && [ -e "/proc/$$/task/$$/children" ]; } 2>/dev/null ||
    skip "cannot make a PID namespace here: needs root and unshare"
  local image
  images=
  [ $# -gt 0 ] || set -- glibc musl static
  for image; do
    [ -e "$IMAGES/$image" ] || continue
    images="$images $image"
    mkdir "$image"
    cp -R "$IMAGES/$image" "$image/root"
    chmod -R a+rX "$image/root"
    [ "$image" = static ] || cp "$IMAGES/$image.ping.so" "$image/root/worker.so"
  done
  [ -n "$images" ] || skip "none of the images was built"
}

# each COMMAND ...: runs it in every folder, with $image, $master (what its exit status is) and $init
# (forkd) set. It is done for all before the next step, so that the images' waits overlap.
each() {
  for image in $images; do
    cd "$BATS_TEST_TMPDIR/$image" || return
    master=${masters[$image]:-} init=${inits[$image]:-}
    "$@" || { echo "image: $image"; return 1; }
  done
}

# The worker of an image: the example, ten milliseconds a ping.
work() { if [ "$image" = static ]; then echo /ping 10; else echo ./worker.so:run; fi; }

# enter KIND COMMAND ...: becomes the command, as PID 1 in the root.
enter() {
  local kind=$1
  shift
  case $kind in
    bare) exec unshare --pid --fork chroot root "$@" ;;
    user) exec unshare --pid --fork chroot --userspec=65534:65534 root "$@" ;;
    proc)
      mkdir root/proc
      exec unshare --pid --fork --mount-proc="$PWD/root/proc" chroot root "$@"
      ;;
    dev)
      mkdir root/dev
      inside_mounts 'mount --bind /dev root/dev' "$@"
      ;;
    readonly) inside_mounts 'mount --bind root root && mount -o remount,bind,ro root' "$@" ;;
  esac
}
inside_mounts() {
  local mounts=$1
  shift
  # shellcheck disable=SC2016
  exec unshare --pid --fork --mount sh -ec "$mounts"' && exec chroot root "$@"' sh "$@"
}

# run_init KIND ARGUMENT ...: starts /forkd with the arguments in the background.
run_init() {
  (enter "$1" /forkd "${@:2}") >>out 2>>log 3>&- &
  took_off
}
run_init_without_input() {
  (enter "$1" /forkd "${@:2}") <&- >>out 2>>log 3>&- &
  took_off
}
run_init_without_descriptors() {
  (enter "$1" /forkd "${@:2}") <&- >&- 2>&- 3>&- &
  took_off
}
took_off() {
  masters[$image]=$!
}

# Whether PID 1 has become forkd and catches TERM. Nothing but builtins and short lines, so that it
# is known within a fraction of a millisecond: see proc(5) for the fields.
is_up() {
  local pid=$init stat=()
  [ -n "$pid" ] || read -r pid <"/proc/$master/task/$master/children" || [ -n "$pid" ] || return
  read -r -a stat <"/proc/${pid% }/stat" || return
  [ "${stat[1]}" = "(forkd)" ] && [ $((stat[33] & 1 << 14)) -ne 0 ] || return
  init=${stat[0]} inits[$image]=${stat[0]}
} 2>/dev/null

workers() { living "$init"; }
workers_are() { [ "$(workers | wc -l)" -eq "$1" ]; }
signal_init() { kill -s "$1" "$init"; }

# The file of the worker's code. A process that runs one that was replaced has it as deleted.
code() { if [ "$image" = static ]; then echo ping; else echo worker.so; fi; }
runs_code() { grep -q "/$(code)\$" "/proc/$1/maps" 2>/dev/null; }

# Another file at the same path. (Of the command it is a copy.)
deploy() {
  cp "$(if [ "$image" = static ]; then echo root/ping; else echo "$IMAGES/$image.pong.so"; fi)" new
  chmod a+rx new
  mv new "root/$(code)"
}

reload() {
  old=$(workers)
  runs_code "$old"
  deploy
  ! runs_code "$old" || return
  signal_init HUP
}
# One worker, on the new code: the old and the extra one have ended.
is_reloaded() { workers_are 1 && runs_code "$(workers)" && { [ -z "$prints" ] || logged "reload succeeded"; }; }

# serves STARTER KIND: what a container is told in its life. $prints: it can.
serves() {
  kind=$2
  each start_work "$1"
  each eventually is_up
  each eventually workers_are 1
  [ -z "$prints" ] || each eventually printed ping
  each signal_init USR1
  each eventually workers_are 2
  each signal_init USR2
  each eventually workers_are 1
  each_reloading reload
  each_reloading eventually is_reloaded
  each signal_init TERM
  each ends_with 0
}
start_work() { "$1" "$kind" -w 1 $(work); }

# A command is healthy only after a second: so its reload is looked at in one test, not in all.
each_reloading() {
  local all=$images
  [ -n "$reloads_commands" ] || images=${images/static/}
  each "$@"
  images=$all
}

prints=yes
reloads_commands=

@test "each image has nothing but what it needs, and runs" {
  make_roots
  cat "$BATS_FILE_TMPDIR/images.txt"
  for image in $images; do
    cp "$IMAGES/$image/worker.so" $image/root 2>/dev/null || [ "$image" = static ]
    case $image in
      glibc) files=4 ;;
      musl) files=3 ;;
      static) files=2 ;;
    esac
    [ "$(find $image/root -type f | wc -l)" -eq $files ]
  done
  kind=bare
  each start_work run_init
  each eventually printed ping
  each eventually is_up
  each signal_init TERM
  each ends_with 0
  each logged "^forkd\[1\]: info: worker 0 (pid [0-9]*) exited with status 0"
}

@test "alone in a root without /proc and /dev" {
  make_roots
  reloads_commands=yes
  serves run_init bare
  each prints_as_new_code_does
}
prints_as_new_code_does() { [ "$image" = static ] || printed pong; }

@test "without /proc a worker that is added after a deploy runs the file at the path, and holds none" {
  make_roots glibc musl
  kind=bare
  each start_work run_init
  each eventually is_up
  each eventually workers_are 1
  each deploy
  each signal_init USR1
  each eventually printed pong
  each stays_the_same_size
  each signal_init TERM
  each ends_with 0
}
# Each worker has as many descriptors as the first one, which has the path's file.
stays_the_same_size() { [ "$(for worker in $(workers); do ls "/proc/$worker/fd" | wc -l; done | sort -u | wc -l)" -eq 1 ]; }

@test "with /proc" {
  make_roots
  serves run_init proc
}

@test "with /dev" {
  make_roots
  serves run_init dev
}

@test "with a root that is read-only" {
  make_roots
  serves run_init readonly
}

@test "as an unprivileged user" {
  chroot --userspec=65534:65534 / true 2>/dev/null || skip "no chroot --userspec"
  make_roots
  serves run_init user
}

@test "with standard input closed" {
  make_roots
  serves run_init_without_input bare
}

@test "with 0, 1 and 2 closed, and no /dev/null to stand in for them" {
  make_roots
  prints=
  serves run_init_without_descriptors bare
}

# Or what the worker prints would go into its own stop descriptor, which then is readable.
@test "with 0, 1 and 2 closed, and no /dev/null, what a worker opens lies elsewhere" {
  make_roots glibc musl
  each add_workers
  each run_init_without_descriptors bare ./workers.so:polls
  each eventually is_up
  each eventually has_stop_descriptor
  each signal_init TERM
  each ends_with 0
}
has_stop_descriptor() {
  local worker
  worker=$(workers)
  [ -n "$worker" ] || return
  ls -l "/proc/$worker/fd" >descriptors 2>/dev/null
  grep -q ' [3-9] -> pipe:' descriptors && ! grep -q ' [0-2] -> pipe:' descriptors
}

@test "with 0, 1 and 2 closed, and /dev/null" {
  make_roots
  prints=
  serves run_init_without_descriptors dev
}

# The orphans' zombies would stay children of forkd.
@test "no zombie stays of the orphans that a worker leaves behind" {
  make_roots glibc musl
  each add_workers
  each run_init bare ./workers.so:leaves_orphans
  each eventually is_up
  each eventually first_worker_has_children 3
  each kill_first_worker
  each eventually all_gone
  each signal_init TERM
  each ends_with 0
}
add_workers() { cp "$IMAGES/$image.workers.so" root/workers.so; }
first_worker_has_children() { [ "$(children "$(workers | head -n 1)" | wc -l)" -eq "$1" ]; }
kill_first_worker() {
  local worker
  worker=$(workers | head -n 1)
  echo "$worker" $(children "$worker") >dying
  kill -KILL "$worker"
}
all_gone() {
  local pid
  for pid in $(cat dying); do ! kill -0 "$pid" 2>/dev/null || return; done
}

@test "an orphan that ignores TERM is killed with the namespace, and the status stays 0" {
  make_roots glibc musl
  each add_workers
  each run_init bare -g 2 ./workers.so:leaves_stubborn_orphan
  each eventually is_up
  each eventually printed stubborn
  each remember_orphan
  each signal_init TERM
  each ends_with 0
  each eventually all_gone
}
remember_orphan() { children "$(workers)" >dying; }

# With a limit on processes, the one place where forkd cannot go on but has to wait.
recovers_from_failing_fork() {
  eventually logged "error: cannot fork: .*; next try in 0\.[124]00 s"
  signal USR1
  eventually logged_at_least 3 "cannot fork"
  kill -0 "$master"
  ! logged "giving up"
  "$@"
  eventually has_workers 2
  stops_with 0
}

@test "a cgroup's limit of one process: fork fails, and the pool comes up when it is lifted" {
  make_cgroup || skip "no cgroup with a limit on processes to be had here"
  echo 1 >"$cgroup/pids.max"
  # shellcheck disable=SC2016
  run_in_cgroup "$W:steady"
  recovers_from_failing_fork lift_cgroup
  # It is in use until the last process in it has been reaped.
  eventually rmdir "$cgroup"
}
lift_cgroup() { echo max >"$cgroup/pids.max"; }
make_cgroup() {
  local base
  for base in /sys/fs/cgroup/pids /sys/fs/cgroup; do
    cgroup=$base/forkd-test-$$
    mkdir "$cgroup" 2>/dev/null || continue
    [ ! -e "$cgroup/pids.max" ] || return 0
    rmdir "$cgroup"
  done
  return 1
}
run_in_cgroup() {
  # shellcheck disable=SC2016
  sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" "$FORKD" "$@" >>out 2>>log 3>&- &
  master=$!
}

@test "a user's limit of one process: fork fails, and the pool comes up when it is lifted" {
  # Root may be exempt from it. The user is one that runs nothing else.
  as_user="setpriv --reuid=$((2000000000 + $$)) --regid=65534 --clear-groups"
  $as_user prlimit --nproc=1: true 2>/dev/null || skip "needs root, setpriv and prlimit"
  # Folders above may be closed to the user, the one it is in is not.
  mkdir root && cp "$FORKD" root/forkd && cp "$BIN/workers.so" root && chmod -R a+rX root
  cd root
  background $as_user prlimit --nproc=1: ./forkd ./workers.so:steady >>../out 2>>../log
  master=$background
  cd ..
  recovers_from_failing_fork $as_user prlimit --pid "$master" --nproc=100:
}

@test "sixteen descriptors are enough" {
  limited -n 16 -n 2 "$BIN/workers.so:steady"
  eventually has_workers 2
  signal HUP
  eventually logged "reload succeeded"
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
  local addresses=
  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do addresses="$addresses -b ./s$i"; done
  limited -n 16 $addresses "$W:steady"
  ends_with 1
  logged "cannot listen on ./s1[34]: Too many open files" || logged "cannot .*: No file descriptors available"
  ! ls s? s??
}

@test "without descriptors a reload is off and a worker waits; later both work" {
  command -v prlimit >/dev/null || skip "no prlimit"
  run_forkd "$W:steady"
  eventually has_workers 1
  # A reload that succeeds shows a healthy worker: from then on the master does not give up.
  signal HUP
  eventually logged "worker 1024 .*exited with status 0"
  prlimit --pid "$master" --nofile=3:
  signal HUP
  eventually logged "error: reload failed: cannot load $W:steady: .*; the pool keeps its code"
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
  kill -KILL "$(pid_of 0)"
  eventually logged "error: worker 0 .*could not start: cannot load $W:steady: "
  prlimit --pid "$master" --nofile=64:
  last=$(pid_of 0)
  eventually is_replaced 0 "$last"
  signal HUP
  eventually logged_times 3 "reload succeeded"
  stops_with 0
}

@test "a stack of 64 KiB is enough, also for what fails" {
  needs_linux "the code is pinned"
  cp "$BIN/workers.so" .
  limited -s 64 -n 2 ./workers.so:steady
  eventually has_workers 2
  signal HUP
  eventually logged "reload succeeded"
  eventually logged_times 3 "exited with status 0"
  echo nonsense >new
  mv new workers.so
  signal HUP
  eventually logged "error: reload failed: worker 1024 .* could not start: cannot load"
  signal USR1
  eventually has_workers 3
  stops_with 0
}
