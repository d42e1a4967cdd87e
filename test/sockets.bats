#!/usr/bin/env bats
# -b: the sockets that forkd opens, and what becomes of connections while workers come and go.

load helper
load reload

HTTPD=$BIN/httpd.so
CLIENT=$BIN/client

# ports NAME ...: gives each of these variables a port that nobody listens on.
ports() { eval "$("$CLIENT" -n $# - | paste -d = <(printf '%s\n' "$@") -)"; }

# answers [OPTION ...] ADDRESS ...: waits until a request at each is answered in full.
answers() { "$CLIENT" -r "$@" >answer; }

# A worker that leaves a trace, and with which forkd gives up soon, in case it is started.
never='touch started; exit 1'

needs_v6() { has_v6 || skip "no IPv6 here"; }
has_v6() { grep -qs '^0*1 ' /proc/net/if_inet6; }

# fails_with STATUS LINE COMMAND ...: that ends with that status and one line, which is a pattern of
# bash. Nothing is started.
fails_with() {
  local status=0 wanted=$1 pattern=$2 line=
  shift 2
  "$@" >out 2>err </dev/null || status=$?
  { read -r line && ! read -r _; } <err && [ "$status" -eq "$wanted" ] && [ ! -e started ] &&
    [[ $line == $pattern ]] && return
  echo "$*: status $status, stderr '$(cat err)', wanted $pattern"
  return 1
}

# malformed MUST ADDRESS ...: each is refused as a wrong use, and MUST says what would be right.
malformed() {
  local must=$1 address
  shift
  for address; do
    fails_with 2 "forkd: wrong --bind '${address//[*[]/?}': $must *" "$FORKD" -b "$address" sh -c "$never" || return
  done
}

# cannot_listen REASON ADDRESS [COMMAND ...]: that ends forkd, run by the command.
cannot_listen() {
  local reason=$1 address=$2
  shift 2
  fails_with 1 "forkd\[*]: critical: cannot listen on ${address//[*[]/?}: $reason" "$@" "$FORKD" -b "$address" sh -c "$never"
}

# leave_stale PATH: as a master that was killed leaves its socket.
leave_stale() {
  run_forkd -b "$1" sleep 1000
  eventually has_workers 1
  worker=$(living "$master")
  kill -KILL "$master" "$worker"
  eventually gone_or_zombie "$master"
  eventually gone_or_zombie "$worker"
  [ -S "$1" ]
}

# --- addresses

@test "-b listens on each address, of IPv4, of IPv6, of all or of a Unix socket" {
  ports one two three four five six
  v4="127.0.0.1:$one 127.0.0.2:$one 127.0.0.1:$two 127.0.0.2:$two"
  run_forkd -b "127.0.0.1:$one" --bind "127.0.0.2:$one" --bind=":$two" -b ./one -b "$PWD/two" "$HTTPD:run"
  answers $v4 ./one "$PWD/two"
  [ -S one ]
  [ -S two ]
  has_v6 || return 0
  # An IPv6 address alone leaves the same port of IPv4 to somebody else, or to a second -b.
  run_forkd -b "[::1]:$three" -b ":$four" -b "[::]:$five" -b "0.0.0.0:$five" "$HTTPD:run"
  answers "[::1]:$three" "[::1]:$four" "127.0.0.1:$four" "[::1]:$five" "127.0.0.1:$five"
  run "$CLIENT" "127.0.0.1:$three"
  [ "$output" = "ok 0 refused 1 cut 0 other 0" ]
}

@test "an address that is none is a usage error" {
  malformed "must be" '' 80 x localhost:80 example.com:80 127.0.0.1 1.2.3:80 1.2.3.4.5:80 300.1.1.1:80 '*:80' \
    '[::1]' '::1:80' '[::1:80' '::1]:80' '[]:80' '[127.0.0.1]:80' '[::g]:80' '[::1]80' 'x::1]:80' '@name' 1.2.3.4 1.2.3.4:5:80 \
    "$(printf '%060d' 0):80" "[$(printf '%060d' 0)]:80" "[::$(printf '%0100d' 1)]:80"
  malformed "the port must be a number from 1 to 65535" : 127.0.0.1: '[::1]:' :0 127.0.0.1:0 '[::1]:0' :65536 :4294967376 \
    :99999999999999999999 :-1 :+80 :8x ': 80' ':80 ' :0x50 :http
  malformed "the path of a socket has at most" "./$(printf '%0120d' 0)"
}

@test "an address may have the first port, the last one and all its digits" {
  # Each is well formed, though it is none of this machine.
  for address in 192.0.2.1:1 192.0.2.1:65535 '[2001:db8::1]:1' '[2001:db8::1]:65535' 192.0.2.1:065535 \
    '[2001:0db8:0000:0000:0000:0000:100.100.100.100]:4711'; do
    cannot_listen '*' "$address"
  done
}

@test "the path of a Unix socket may be as long as the system allows, and have unix: in it" {
  [ "$(uname)" = Linux ] || skip "knows the longest path of Linux"
  longest=./$(printf '%0105d' 0)
  run_forkd -b "$longest" -b ./unix:x "$HTTPD:run"
  answers "$longest" ./unix:x
  malformed "the path of a socket has at most 107 bytes" "${longest}0"
  stops_with 0
  [ ! -e "$longest" ]
}

@test "up to 64 addresses may be given, and workers get them in that order" {
  run_forkd $(printf ' -b ./%s' {1..64}) "$W:sockets"
  eventually printed "^sockets:$(printf ' ./%s' {1..64})\$"
  fails_with 2 "forkd: more than 64 addresses *" "$FORKD" $(printf ' -b ./x%s' {1..65}) sh -c "$never"
  [ ! -e x1 ]
}

@test "an address that is in use, or foreign, ends forkd, which says so" {
  ports one two three
  run_forkd -b "127.0.0.1:$one" -b ./socket "$HTTPD:run"
  answers "127.0.0.1:$one" ./socket
  cannot_listen "*in use*" "127.0.0.1:$one"
  cannot_listen "*in use*" ":$one"
  cannot_listen "*in use*" ./socket
  cannot_listen "*ddress*" "192.0.2.1:$two"
  # It is no reason to listen on IPv4 instead.
  cannot_listen "*ddress*" "[2001:db8::1]:$two"
  answers "127.0.0.1:$one" ./socket
  has_v6 || return 0
  # Neither is one that only IPv6 has in use.
  run_forkd -b "[::]:$three" "$HTTPD:run"
  answers "[::1]:$three"
  cannot_listen "*in use*" ":$three"
}

@test "what is no Unix socket ends forkd and stays, and nothing is left of the addresses before it" {
  echo precious >file
  mkdir folder
  ln -s nowhere link
  leave_stale ./socket
  ln -s socket link2
  for path in ./file ./folder ./link ./link2; do cannot_listen "*exists*" "$path"; done
  cannot_listen "No such file*" ./missing/socket
  fails_with 1 "forkd\[*]: critical: cannot listen on ./file: *exists*" "$FORKD" -b ./one -b ./file sh -c "$never"
  [ ! -e one ]
  [ "$(cat file)" = precious ]
  [ -d folder ]
  [ -L link ]
  [ -L link2 ]
  [ -S socket ]
}

@test "a stale Unix socket is replaced, and what keeps it from that is said" {
  leave_stale ./socket
  if command -v strace >/dev/null; then
    cannot_listen "Permission denied*" ./socket strace -o trace -e trace=bind -e inject=bind:error=EACCES:when=2
    leave_stale ./socket
  fi
  run_forkd -b ./socket "$HTTPD:run"
  answers ./socket
  stops_with 0
}

@test "a Unix socket that cannot be looked at, or has no room for a further client, is not a stale one" {
  run_forkd "$W:fills_queue" ./full
  run_forkd -b ./socket "$HTTPD:run"
  eventually printed full
  ls -i full >before
  cannot_listen "Address*in use*" ./full
  ls -i full | diff before -
  answers ./socket
  if command -v strace >/dev/null; then
    cannot_listen "Address*in use*" ./socket strace -o trace -e trace=socket -e inject=socket:error=EMFILE:when=2
    answers ./socket
  fi
}

@test "a port that still has old connections may be listened on again" {
  ports one
  # The server is the one that ends a connection: the kernel keeps it for a minute.
  for address in "127.0.0.1:$one" ":$one"; do
    run_forkd -b "$address" "$HTTPD:run"
    answers "127.0.0.1:$one"
    stops_with 0
  done
}

@test "a burst of clients waits in the queue of a socket until a worker comes" {
  grep -qs . /proc/net/unix || skip "no /proc/net/unix"
  run_forkd -b "$PWD/socket" "$HTTPD:run"
  answers "$PWD/socket"
  worker=$(pid_of 0)
  kill -STOP "$worker"
  background "$CLIENT" -c 60 "$PWD/socket" >burst
  eventually queued 61
  kill -CONT "$worker"
  wait "$background"
  [ "$(cat burst)" = "ok 60 refused 0 cut 0 other 0" ]
}
queued() { await line /proc/net/unix "$1" - " $PWD/socket\$"; }
questions="$questions queued"

# without_v6 CALL=ERROR[:when=N]: listens on all addresses; such a system call fails, as without IPv6.
without_v6() {
  ports one
  : >out
  background strace -o trace -e trace="${1%%=*}" -e inject="${1%%=*}:error=${1#*=}" "$FORKD" -b ":$one" "$W:sockets" >>out 2>>log
  tracer=$background
  eventually printed "^sockets: $one\$"
  # One of IPv4, which nobody else can have on any address.
  cannot_listen "*in use*" "127.0.0.2:$one" || return
  kill -TERM "$(living "$tracer")"
  eventually gone_or_zombie "$tracer"
}

@test "-b :PORT listens on IPv4 where there is no IPv6, where it is off, and where no socket is for both" {
  command -v strace >/dev/null || skip "no strace"
  without_v6 socket=EAFNOSUPPORT:when=1
  without_v6 bind=EADDRNOTAVAIL:when=1
  # The second is IPV6_V6ONLY, after SO_REUSEADDR.
  without_v6 setsockopt=EINVAL:when=2
}

@test "what the kernel says about an address is what forkd says, except for the ports below 1024" {
  command -v strace >/dev/null || skip "no strace"
  touch file 127.0.0.1:1023
  for case in "EACCES 127.0.0.1:1023 a port below 1024 needs" "EACCES :1023 a port below 1024 needs" \
    "EACCES 127.0.0.1:1024 Permission denied" "EADDRINUSE 127.0.0.1:1023 Address" "EACCES ./path Permission denied" \
    "EACCES ./file Permission denied"; do
    read -r error address reason <<<"$case"
    cannot_listen "$reason*" "$address" strace -o trace -e trace=bind -e inject=bind:error="$error"
  done
}

@test "a port below 1024 that is not to be had says what it needs" {
  command -v setpriv >/dev/null && [ "$(id -u)" -eq 0 ] || skip "needs root and setpriv"
  [ "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" -ge 1024 ] || skip "every port is to be had here"
  run setpriv --bounding-set -net_bind_service --inh-caps -net_bind_service "$FORKD" -b 127.0.0.1:999 true
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == *"127.0.0.1:999: a port below 1024 needs CAP_NET_BIND_SERVICE"* ]]
}

@test "forkd removes the files of its Unix sockets at the end, also when it has failed" {
  run_forkd -b ./socket -b "$PWD/two" "$HTTPD:run"
  answers ./socket
  stops_with 0
  [ ! -e socket ]
  [ ! -e two ]
  fails=0
  "$FORKD" -b ./socket ./missing.so:run 2>err || fails=$?
  [ "$fails" -eq 1 ]
  [ ! -e socket ]
}

@test "forkd does not remove what somebody has put in the place of its Unix socket" {
  run_forkd -b ./one -b ./two -b ./three "$HTTPD:run"
  first=$master
  answers ./two
  rm one two
  echo precious >one
  mv three four
  ln -s four three
  run_forkd -b ./two "$HTTPD:run"
  answers ./two
  kill -TERM "$first"
  eventually gone_or_zombie "$first"
  [ "$(cat one)" = precious ]
  [ -L three ]
  [ -S four ]
  answers ./two
}

# --- what a worker gets

# gives VARIABLES OPTIONS EXPECTED: a worker's environment is that of forkd with those variables alone,
# but for FORKD_WORKER, and EXPECTED instead of all LISTEN_ variables. "@" is the own pid,
# and descriptors 3 and 4 are open.
gives() {
  : >out
  background env -i sh -c "exec env -i A=1 ${1/@/\$\$} Z=2 \"\$@\" >>out 2>>log 3</dev/null 4<&3" - "$FORKD" $2 "$W:prints_environment"
  master=$background
  eventually printed "^pid "
  stops_with 0
  {
    echo A=1
    echo FORKD_WORKER=0
    for word in $3; do echo "${word/%@/$(sed -n 's/^pid //p' out)}"; done
    echo Z=2
  } | LC_ALL=C sort >wanted
  echo "with $1 $2"
  grep -v "^pid " out | LC_ALL=C sort | diff wanted -
}

@test "a worker gets the environment of forkd, and is told of the sockets alone that are meant for it" {
  not_emulated "the emulator has an environment of its own"
  own="LISTEN_FDS=2 LISTEN_PID=@"
  gives "" "" ""
  gives "" "-b ./one -b ./two" "$own"
  gives "FORKD_WORKER=7 NOTIFY_SOCKET=/nowhere" "" ""
  gives "FORKD_WORKER=7" "-b ./one -b ./two" "$own"
  gives "NOTIFY_SOCKET=/nowhere" "-b ./one -b ./two" "$own"
  foreign="LISTEN_FDS=2 LISTEN_PID=1 LISTEN_FDNAMES=a:b LISTEN_PIDFDID=123"
  gives "$foreign" "" ""
  gives "$foreign" "-b ./one -b ./two" "$own"
  # Those that forkd was given are passed on, with their names as long as these fit.
  given="LISTEN_FDS=2 LISTEN_PID=@ LISTEN_FDNAMES=a:b LISTEN_PIDFDID=123"
  gives "$given" "" "$own LISTEN_FDNAMES=a:b"
  gives "$given" "-b ./one" "LISTEN_FDS=3 LISTEN_PID=@"
}

@test "a command worker is told so, too" {
  run_forkd -n 2 -b ./one sh -c 'echo "$LISTEN_FDS $LISTEN_PID $$ $FORKD_WORKER"; exec sleep 1000'
  eventually printed_lines 2
  sort -k 4 out | awk '{ print $1, $2 == $3, $4 }' | diff <(printf '1 1 0\n1 1 1\n') -
}

@test "the sockets are descriptors 3 and up, whatever forkd has inherited" {
  masters= i=0
  for inherited in '3</dev/null' '4</dev/null' '3</dev/null 4</dev/null 5</dev/null 6</dev/null' \
    '3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-' '0<&-' '0<&- 1>&- 2>&-' '0<&- 1>&- 2>&- 4</dev/null'; do
    i=$((i + 1))
    background sh -c "exec \"\$@\" >>out 2>>log $inherited" - "$FORKD" -b ./one$i -b ./two$i "$HTTPD:run"
    masters="$masters $background"
    echo "with '$inherited'"
    answers ./one$i ./two$i
  done
  kill -TERM $masters
  for master in $masters; do ends_with 0; done
}

@test "a socket never takes the place of a standard descriptor that forkd was started without" {
  background sh -c 'exec "$@" 0<&- 1>&- 2>&-' - "$FORKD" -b ./one -b ./two \
    sh -c 'cat <&0 && echo x >&1 && echo x >&2 && touch open; exec sleep 1000'
  eventually [ -e open ]
}

@test "no descriptor of forkd's own reaches a worker beside the sockets" {
  # What was there at descriptor 3 makes way for the first socket.
  for inherited in '3<&-' '3</dev/null'; do
    : >out
    NOTIFY_SOCKET=$PWD/nobody \
      background sh -c "exec \"\$@\" $inherited 4<&- 5<&- 6<&- 7<&- 8<&- 9<&- >>out 2>>log" - \
      "$FORKD" -b ./one -b ./two "$W:descriptors"
    master=$background
    eventually printed '^open:'
    cat out
    # Above 9 there may be some that the shell could not close; forkd's would be the next free ones.
    printed '^open: 0 1 2 3 4\( [1-9][0-9]\)*$'
    stops_with 0
    # A stale socket in its way makes no difference.
    leave_stale ./one
  done
}

@test "sockets come in the order of the command line, after those that forkd was given" {
  ports one two
  run_forkd -b ./one -b "127.0.0.1:$one" -b ./two -- "$FORKD" -b ./four -b "127.0.0.2:$two" -b ./three "$W:sockets"
  eventually printed "^sockets: ./one $one ./two ./four $two ./three\$"
  stops_with 0
}

@test "a LISTEN_FDS that is for another process, or is no number of sockets, counts for nothing" {
  masters= i=0
  for variables in 'LISTEN_FDS=1 LISTEN_PID=1' LISTEN_FDS=1 'LISTEN_FDS=1 LISTEN_PID=' \
    'LISTEN_FDS=-1 LISTEN_PID=$$' 'LISTEN_FDS=0 LISTEN_PID=$$' 'LISTEN_FDS=x LISTEN_PID=$$' \
    'LISTEN_FDS= LISTEN_PID=$$' 'LISTEN_PID=$$'; do
    i=$((i + 1))
    background sh -c "$variables exec \"\$@\" >>out 2>>log 3>&-" - "$FORKD" -b ./one$i "$W:sockets"
    masters="$masters $background"
    echo "with $variables"
    eventually printed "^sockets: ./one$i\$"
  done
  kill -TERM $masters
  for master in $masters; do ends_with 0; done
}

@test "sockets that forkd was promised, but not given, end it" {
  promised() { fails_with 1 "$1" sh -c "LISTEN_FDS=$2 LISTEN_PID=\$\$ exec \"\$@\" $3" - "$FORKD" -b ./one sh -c "$never"; }
  promised "forkd\[*]: critical: LISTEN_FDS is *, but descriptor 3 is not open" 9223372036854775807 '3>&-'
  promised "forkd\[*]: critical: LISTEN_FDS is 7, but descriptor 3 is not open" 7 '3>&-'
  promised "forkd\[*]: critical: LISTEN_FDS is 2, but descriptor 4 is not open" 2 '3</dev/null 4<&-'
  [ ! -e one ]
}

@test "a worker in Python takes its sockets, and answers during a reload" {
  command -v python3 >/dev/null || skip "no python3"
  ports port
  run_forkd -w 0.5 -b "127.0.0.1:$port" -b ./one -- python3 "$ROOT/test/workers/listen.py"
  answers "127.0.0.1:$port"
  answers -v ./one
  grep -q python answer
  background "$CLIENT" -n 50000 -p 5 "127.0.0.1:$port" >plain
  signal HUP
  eventually logged "reload complete"
  # Python may not have come as far as its handler of TERM by then.
  eventually logged "worker 1024 .* \(exited with status 0\|was ended by signal 15\)"
  kill -TERM "$background"
  wait "$background" || :
  grep -q '^ok [0-9]* refused 0 cut 0 other 0$' plain
}

# closed_on_exec PID: all descriptors from 3 on, apart from those that the test has itself.
closed_on_exec() {
  for fd in /proc/"$1"/fdinfo/*; do
    number=${fd##*/}
    [ "$number" -lt 3 ] || [ -e "/proc/$$/fd/$number" ] && continue
    flags=$(sed -n 's/^flags:[^0-9]*//p' "$fd")
    echo "descriptor $number, flags $flags"
    [ $((flags & 02000000)) -ne 0 ] || return 1
  done
}

@test "a program that master or worker execute gets no descriptor of forkd's own" {
  grep -qs flags /proc/self/fdinfo/0 || skip "no /proc/PID/fdinfo"
  mkfifo pipe
  background cat pipe
  NOTIFY_SOCKET=$PWD/nobody "$FORKD" "$W:polls" >>out 2>pipe 3>&- &
  master=$!
  eventually printed polling
  [ "$(ls "/proc/$master/fd" | wc -l)" -ge 7 ]
  closed_on_exec "$master"
  closed_on_exec "$(living "$master")"
}

@test "no descriptor of forkd's own is 0, 1 or 2, also in an application that has closed them" {
  [ -d /proc/self/fd ] || skip "no /proc/PID/fd"
  "$BIN/with_archive" run <&- >&- 2>&- 3>&- &
  master=$!
  eventually has_workers 2
  ls "/proc/$master/fd" >descriptors
  never grep -x '[012]' descriptors
  grep -x '[3-9]' descriptors
}

# flags_of FD: those of the master's descriptor.
flags_of() { sed -n 's/^flags:[^0-9]*//p' "/proc/$master/fdinfo/$1"; }
is_nonblocking() { [ $(($(flags_of "$1") & 04000)) -ne 0 ]; }

@test "O_NONBLOCK of the sockets is as before when a reload has failed, also after a trial that was dropped" {
  grep -qs flags /proc/self/fdinfo/0 || skip "no /proc/PID/fdinfo"
  cp "$W" code.so
  run_forkd -t 1000 -w 0 -s state -b ./one ./code.so:waits_nonblocking set
  # Its worker has looked for the file.
  eventually await line state 1 - "^healthy=1"
  touch set
  signal HUP
  eventually is_nonblocking 3
  echo junk >next.so
  mv next.so code.so
  signal HUP
  eventually logged "reload failed: "
  never is_nonblocking 3
}

@test "O_NONBLOCK of the sockets is as before when a reload has failed, in its trial or in its roll" {
  grep -qs flags /proc/self/fdinfo/0 || skip "no /proc/PID/fdinfo"
  cp "$W" code.so
  # The second one has it from the start.
  # Long enough that a worker that ends at once is never healthy, however slow the machine is.
  run_forkd -w 0.5 -n 2 -b ./one -b ./two ./code.so:last_nonblocking "@told"
  eventually has_workers 2
  eventually is_nonblocking 4
  # Elsewhere there is no code to go back to.
  numbers="1024 1"
  case $CPPFLAGS in *-DFORKD_PORTABLE*) numbers=1024 ;; esac
  for number in $numbers; do
    deploy workers
    # In a roll the second failure leads back.
    case $number in 1) echo "1 2" >@told ;; *) echo "$number 1" >@told ;; esac
    signal HUP
    eventually logged "reload failed: worker $number .* exited with status 3"
    [ $number = 1024 ] || eventually logged "back on the previous code"
    never is_nonblocking 3
    is_nonblocking 4
  done
}

@test "O_NONBLOCK of the sockets is as the new code had it when the pool cannot go back" {
  grep -qs flags /proc/self/fdinfo/0 || skip "no /proc/PID/fdinfo"
  needs_linux "the code is pinned"
  start -n 2 -w 0 -b ./one
  eventually is_ready 1 0
  eventually is_ready 1 1
  order first.2.1024 nonblock
  order load.2.1 fail
  order load.1.1025 wait
  reload two
  eventually waits load.1.1025
  never is_nonblocking 3
  order load.1.1025 fail
  eventually logged "stands still: cannot go back"
  eventually is_nonblocking 3
}

@test "a program that a worker leaves behind does not hold the port" {
  ports one
  run_forkd -b "127.0.0.1:$one" "$W:leaves_program" child
  eventually test -s child
  stops_with 0
  kill -0 "$(cat child)"
  run_forkd -b "127.0.0.1:$one" "$HTTPD:run"
  answers "127.0.0.1:$one"
  kill -KILL "$(cat child)"
}

# --- connections while workers come and go

# reload_to FILE: puts that at the path, and sends HUP.
reload_to() {
  cp "$1" next.so
  mv next.so w.so
  signal HUP
}

@test "no connection is refused and no answer cut by reloads, resizes, broken deploys and ends of workers" {
  ports port
  cp "$HTTPD" w.so
  run_forkd -w 0 -n 3 -b "127.0.0.1:$port" ./w.so:run
  answers "127.0.0.1:$port"
  # Four clients send a request every few milliseconds, two of them over a new connection each time.
  # They end by themselves, too, only much later.
  background "$CLIENT" -c 2 -n 50000 -p 2 "127.0.0.1:$port" >plain
  plain=$background
  background "$CLIENT" -k -c 2 -n 50000 -p 2 "127.0.0.1:$port" >kept
  for i in {1..5}; do
    reload_to "$HTTPD"
    eventually logged_times "$i" "reload complete"
    eventually has_workers 3
  done
  for _ in 1 2; do
    for step in USR1:4 USR1:5 USR2:4 USR2:3; do
      signal "${step%:*}"
      eventually has_workers "${step#*:}"
    done
  done
  for _ in {1..5}; do
    old=$(living "$master")
    kill -TERM $old
    eventually new_pids "$old"
    eventually has_workers 3
  done
  case $CPPFLAGS in
    *-DFORKD_PORTABLE*) ;; # there the code is not pinned
    *)
      for broken in "$BIN/undefined.so" "$BIN/ctor_crash.so" "$BATS_TEST_FILENAME"; do
        reload_to "$broken"
        eventually logged "reload failed"
        : >log
      done
      # It is also the pool's code that a new worker runs.
      old=$(living "$master")
      kill -TERM $old
      eventually new_pids "$old"
      reload_to "$HTTPD"
      eventually logged "reload complete"
      ;;
  esac
  kill -TERM "$plain" "$background"
  wait "$plain" "$background" || :
  cat plain kept
  for answers in plain kept; do grep -q '^ok [0-9][0-9][0-9]* refused 0 cut 0 other 0$' "$answers"; done
  stops_with 0
}

answered() { await line "$1" 1 - "pid $2"; }
has_sent() { await line "$1" 1 - "^sent\$"; }
questions="$questions answered has_sent"

@test "a worker that is killed in the middle of a request costs that request only" {
  run_forkd -n 2 -b ./socket "$HTTPD:run"
  answers ./socket
  eventually logged_times 2 "started$"
  victim=$(pid_of 0)
  survivor=$(pid_of 1)
  # Each of them gets a client that has been answered once and is halfway through its next request.
  kill -STOP "$survivor"
  eventually is_state "$survivor" T
  background "$CLIENT" -kv -n 2 -w go ./socket >counts
  unlucky=$background
  eventually answered counts "$victim"
  kill -CONT "$survivor"
  kill -STOP "$victim"
  eventually is_state "$victim" T
  background "$CLIENT" -kv -n 2 -w go ./socket >whole
  lucky=$background
  eventually answered whole "$survivor"
  kill -KILL "$victim"
  touch go
  wait "$unlucky" || :
  wait "$lucky"
  [ "$(tail -n 1 counts)" = "ok 1 refused 0 cut 1 other 0" ]
  [ "$(tail -n 1 whole)" = "ok 2 refused 0 cut 0 other 0" ]
  answers -n 50 ./socket
  eventually is_replaced 0 "$victim"
  stops_with 0
}

@test "a request that has begun is answered before its worker ends, and a silent client does not hold it up" {
  run_forkd -g 1000 -b ./socket "$HTTPD:run"
  answers ./socket
  background "$CLIENT" -kv -n 2 -p 60000 ./socket >idle
  background "$CLIENT" -kv -n 2 -w go ./socket >whole
  eventually answered idle ""
  eventually answered whole ""
  # It gives those that it has a second, so it finds the request when it finds that it is to end.
  worker=$(pid_of 0)
  kill -STOP "$worker"
  eventually is_state "$worker" T
  signal TERM
  eventually logged "shutting down"
  touch go
  eventually has_sent whole
  kill -CONT "$worker"
  wait "$background"
  [ "$(tail -n 1 whole)" = "ok 2 refused 0 cut 0 other 0" ]
  ends_with 0
}

@test "a worker that shuts the sockets down ends them for its own time only" {
  ports one two
  addresses=127.0.0.1:$one
  ! has_v6 || addresses="$addresses [::1]:$two"
  run_forkd -w 0 $(printf ' -b %s' $addresses) "$W:shuts_down_sockets" go
  eventually printed "shut down"
  "$CLIENT" ${addresses%% *} | grep 'ok 0 refused 1'
  touch go
  eventually starts_of 0 2
  for address in $addresses; do
    host=${address%:*} host=${host//[][]/}
    (exec 5<>"/dev/tcp/$host/${address##*:}")
  done
}
