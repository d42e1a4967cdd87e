# Reloads: pools whose workers do what files say, see workers/versioned.cpp.

# start OPTION ...: a pool on version 1.
# start_virtual OPTION ...: the same in virtual time, which stands still until the test lets it go.
start() {
  deploy one
  run_forkd "$@" ./code.so:obeys
}
start_virtual() {
  deploy one
  echo 0 >time
  run_virtual "$@" ./code.so:obeys
}

# reload NAME: deploys that and sends HUP.
reload() {
  deploy "$1"
  signal HUP
}

# order FILE WORDS: tells workers what to do; in one step, since they may look at any moment.
order() {
  echo "$2" >order
  mv order "$1"
}

# waits FILE [COUNT]: so many workers have begun to wait there.
# is_ready VERSION NUMBER [COUNT]: so many such workers have begun their tasks. ready_pid: the pid of the last.
waits() { await line out "${2:-1}" - "^waits $1\$"; }
is_ready() { await line out "${3:-1}" - "^ready $1 $2 "; }
ready_pid() { await group last out "^ready $1 $2 pid \([0-9]*\)\$"; }
# has_open COUNT: the master has so many descriptors.
has_open() { [ ! -e /proc/self/fd ] || [ "$(open_files)" -eq "$1" ]; }
open_files() { set -- "/proc/$master/fd"/*; echo $#; }
questions="$questions waits is_ready"

# pids: those of the workers, in a fixed order.
pids() { living "$master" | sort | tr '\n' ' '; }

# time_to MS: virtual time may go on up to then. (time_until waits until it has, which it does only
# while something is due.)
time_to() {
  echo "$1" >next_time
  mv next_time time
}
