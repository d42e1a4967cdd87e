#!/usr/bin/env bats
# -b: the sockets that forkd opens, and what becomes of connections while workers come and go.

load helper

bats_require_minimum_version 1.5.0

HTTPD=$BIN/httpd.so
CLIENT=$BIN/client

free_port() { "$CLIENT" -; }

# answers ADDRESS [OPTION ...]: whether a request there is answered in full.
answers() {
  local address=$1
  shift
  "$CLIENT" "$@" "$address" >answer
}

# A worker that leaves a trace, and with which forkd gives up soon, in case it is started.
never='touch started; exit 1'

needs_v6() { grep -qs '^0*1 ' /proc/net/if_inet6 || skip "no IPv6 here"; }

# malformed ADDRESS ...: each is refused as a wrong use, and nothing is started.
malformed() {
  local address
  : "${must=must be}"
  for address; do
    run --separate-stderr "$FORKD" -b "$address" sh -c "$never"
    echo "'$address': status $status, stderr '$stderr'"
    [ "$status" -eq 2 ] && [ "${#stderr_lines[@]}" -eq 1 ] && [ ! -e started ] || return 1
    [[ $stderr == "forkd: wrong address '$address': $must "* ]] || return 1
  done
}

# cannot_listen REASON ADDRESS [OPTION ...]: that ends forkd with one line, and nothing is started.
cannot_listen() {
  local reason=$1 address=$2
  shift 2
  run --separate-stderr "$FORKD" "$@" -b "$address" sh -c "$never"
  echo "status $status, stderr '$stderr'"
  [ "$status" -eq 1 ] && [ "${#stderr_lines[@]}" -eq 1 ] && [ ! -e started ] || return 1
  [[ $stderr == "forkd: cannot listen on $address: "*$reason* ]]
}

# clients ADDRESS: four that send a request every few milliseconds until all_answered, two of them
# over a new connection each time. They end by themselves, too, only much later.
clients() {
  background "$CLIENT" -c 2 -n 50000 -p 1 "$1" >plain
  plain=$background
  background "$CLIENT" -k -c 2 -n 50000 -p 1 "$1" >kept
  kept=$background
}

all_answered() {
  kill -TERM "$plain" "$kept"
  wait "$plain" "$kept" || :
  cat plain kept
  grep -q '^ok [0-9][0-9][0-9]* refused 0 cut 0 other 0$' plain &&
    grep -q '^ok [0-9][0-9][0-9]* refused 0 cut 0 other 0$' kept
}

# --- addresses

@test "-b listens on an IPv4 address" {
  port=$(free_port)
  run_forkd -b "127.0.0.1:$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
}

@test "-b listens on an IPv6 address, and not on IPv4 then" {
  needs_v6
  port=$(free_port)
  run_forkd -b "[::1]:$port" "$HTTPD:run"
  eventually answers "[::1]:$port"
  run "$CLIENT" "127.0.0.1:$port"
  [ "$output" = "ok 0 refused 1 cut 0 other 0" ]
  # So the same port on IPv4 is free for somebody else, or for a second -b.
  run_forkd -b "[::]:$((port + 1))" -b "0.0.0.0:$((port + 1))" "$HTTPD:run"
  eventually answers "[::1]:$((port + 1))"
  eventually answers "127.0.0.1:$((port + 1))"
}

@test "-b :PORT listens on all IPv4 addresses" {
  port=$(free_port)
  run_forkd -b ":$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
  eventually answers "127.0.0.2:$port"
}

@test "-b :PORT listens on IPv6, too" {
  needs_v6
  port=$(free_port)
  run_forkd -b ":$port" "$HTTPD:run"
  eventually answers "[::1]:$port"
  answers "127.0.0.1:$port"
}

@test "-b with a slash listens on a Unix socket" {
  run_forkd -b ./one -b "$PWD/two" "$HTTPD:run"
  eventually answers ./one
  answers "$PWD/two"
  [ -S one ]
  [ -S two ]
}

@test "-b may be given several times" {
  port=$(free_port)
  run_forkd --bind "127.0.0.1:$port" -b ./one --bind="127.0.0.2:$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
  answers "127.0.0.2:$port"
  answers ./one
}

@test "a malformed address is a usage error" {
  malformed '' 80 x localhost:80 example.com:80 127.0.0.1 1.2.3:80 1.2.3.4.5:80 300.1.1.1:80 '*:80' \
    '[::1]' '::1:80' '[::1:80' '::1]:80' '[]:80' '[127.0.0.1]:80' '[::g]:80' '[::1]80' 'x::1]:80' '@name' 1.2.3.4 1.2.3.4:5:80 \
    "$(printf '%060d' 0):80" "[$(printf '%060d' 0)]:80" "[::$(printf '%0100d' 1)]:80"
}

# parsed ADDRESS ...: each is well formed, though it is none of this machine.
parsed() { for address; do cannot_listen "" "$address" || return; done; }

@test "an address may have the first port, the last one and all its digits" {
  parsed 192.0.2.1:1 192.0.2.1:65535 '[2001:db8::1]:1' '[2001:db8::1]:65535' 192.0.2.1:065535 \
    '[2001:0db8:0000:0000:0000:0000:100.100.100.100]:4711'
}

@test "a port that is none is a usage error" {
  must="the port must be a number from 1 to 65535"
  malformed : 127.0.0.1: '[::1]:' :0 127.0.0.1:0 '[::1]:0' :65536 :4294967376 :99999999999999999999 \
    :-1 :+80 :8x ': 80' ':80 ' :0x50 :http
}

@test "a port in use ends forkd, and says so" {
  port=$(free_port)
  run_forkd -b "127.0.0.1:$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
  cannot_listen "in use" "127.0.0.1:$port"
  cannot_listen "in use" ":$port"
  answers "127.0.0.1:$port"
}

@test "a foreign address ends forkd, and says so" {
  cannot_listen ddress "192.0.2.1:$(free_port)"
  # It is no reason to listen on IPv4 instead.
  cannot_listen ddress "[2001:db8::1]:$(free_port)"
}

@test "up to 64 addresses may be given, and workers get them in that order" {
  paths=$(printf ' ./%s' $(seq 64))
  run_forkd $(printf ' -b ./%s' $(seq 64)) "$W:sockets"
  eventually printed "^sockets:$paths\$"
  answers_nobody=$(printf ' -b ./x%s' $(seq 65))
  run --separate-stderr "$FORKD" $answers_nobody sh -c "$never"
  [ "$status" -eq 2 ]
  [[ $stderr == "forkd: more than 64 addresses "* ]]
  [ ! -e started ]
  [ ! -e x1 ]
}

@test "the path of a Unix socket may be as long as the system allows" {
  [ "$(uname)" = Linux ] || skip "knows the longest path of Linux"
  longest=./$(printf '%0105d' 0)
  run_forkd -b "$longest" "$HTTPD:run"
  eventually answers "$longest"
  must="the path of a socket has at most 107 bytes"
  malformed "${longest}0"
  stops_with 0
  [ ! -e "$longest" ]
}

@test "a path that is too long, or begins with unix:, is a usage error that shows the way" {
  must="the path of a socket has at most"
  malformed "./$(printf '%0120d' 0)"
  must="give the path alone: ./x"
  malformed unix:./x
  # Elsewhere the word is part of the path.
  run_forkd -b ./unix:x "$HTTPD:run"
  eventually answers ./unix:x
}

@test "a port that still has old connections may be listened on again" {
  port=$(free_port)
  # The server is the one that ends a connection: the kernel keeps it for a minute.
  for address in "127.0.0.1:$port" ":$port"; do
    run_forkd -b "$address" "$HTTPD:run"
    eventually answers "127.0.0.1:$port"
    stops_with 0
  done
}

@test "a burst of clients waits in the queue of a socket until a worker comes" {
  grep -qs . /proc/net/unix || skip "no /proc/net/unix"
  run_forkd -b "$PWD/socket" "$HTTPD:run"
  eventually answers "$PWD/socket"
  worker=$(pid_of 0)
  kill -STOP "$worker"
  background "$CLIENT" -c 60 "$PWD/socket" >burst
  eventually queued 60
  kill -CONT "$worker"
  wait "$background"
  [ "$(cat burst)" = "ok 60 refused 0 cut 0 other 0" ]
}
queued() { [ "$(grep -c " $PWD/socket\$" /proc/net/unix)" -gt "$1" ]; }

# without_v6 CALL=ERROR: listens on all addresses; the first such system call fails, as without IPv6.
without_v6() {
  port=$(free_port)
  : >out
  strace -o trace -e trace="${1%%=*}" -e inject="${1%%=*}:error=${1#*=}:when=1" \
    "$FORKD" -b ":$port" "$W:sockets" >>out 2>>log 3>&- &
  tracer=$!
  eventually printed "^sockets: $port\$"
  # One of IPv4, which nobody else can have on any address.
  cannot_listen "in use" "127.0.0.2:$port" || return
  master=$(living "$tracer")
  kill -TERM "$master"
  eventually gone_or_zombie "$tracer"
}

@test "-b :PORT listens on IPv4 where there is no IPv6, or where it is off" {
  command -v strace >/dev/null || skip "no strace"
  without_v6 socket=EAFNOSUPPORT
  without_v6 bind=EADDRNOTAVAIL
}

@test "-b :PORT does not do with IPv4 when only the IPv6 port is in use" {
  needs_v6
  port=$(free_port)
  run_forkd -b "[::]:$port" "$HTTPD:run"
  eventually answers "[::1]:$port"
  cannot_listen "in use" ":$port"
}

@test "what the kernel says about an address is what forkd says, except for the ports below 1024" {
  command -v strace >/dev/null || skip "no strace"
  touch file 127.0.0.1:1023
  for case in "EACCES 127.0.0.1:1023 ports below 1024 need" "EACCES :1023 ports below 1024 need" \
    "EACCES 127.0.0.1:1024 Permission denied" "EADDRINUSE 127.0.0.1:1023 Address" "EACCES ./path Permission denied" \
    "EACCES ./file Permission denied"; do
    read -r error address reason <<<"$case"
    run strace -o trace -e trace=bind -e inject=bind:error="$error" "$FORKD" -b "$address" sh -c "$never"
    echo "$output"
    grep -q INJECTED trace || skip "strace cannot make bind fail here"
    [ "$status" -eq 1 ]
    [[ $output == "forkd: cannot listen on $address: $reason"* ]]
  done
}

@test "a folder that somebody else has locked does not keep a socket from being made there" {
  command -v flock >/dev/null || skip "no flock"
  background flock . sh -c 'touch locked; exec sleep 1000'
  eventually [ -e locked ]
  run_forkd -b ./socket "$HTTPD:run"
  eventually answers ./socket
}

@test "a port below 1024 that is not to be had says what it needs" {
  command -v setpriv >/dev/null && [ "$(id -u)" -eq 0 ] || skip "needs root and setpriv"
  [ "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" -ge 1024 ] || skip "every port is to be had here"
  run setpriv --bounding-set -net_bind_service --inh-caps -net_bind_service "$FORKD" -b 127.0.0.1:999 true
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == *"127.0.0.1:999: ports below 1024 need CAP_NET_BIND_SERVICE"* ]]
}

@test "-b :PORT listens on IPv4 where no socket is for IPv6 and IPv4" {
  command -v strace >/dev/null || skip "no strace"
  port=$(free_port)
  # The second is IPV6_V6ONLY, after SO_REUSEADDR.
  strace -o trace -e trace=setsockopt -e inject=setsockopt:error=EINVAL:when=2 \
    "$FORKD" -b ":$port" "$HTTPD:run" >>out 2>>log 3>&- &
  background=$!
  eventually answers "127.0.0.1:$port"
  kill -TERM "$(children "$background")"
  wait "$background"
}

@test "of two that start on one stale path at the same moment one wins, and the other says so" {
  command -v strace >/dev/null || skip "no strace"
  for calls in unlink,unlinkat listen; do
    rm -f ./path log log2
    leave_stale ./path
    for log in log log2; do
      strace -o trace -e trace="$calls" -e inject="$calls:delay_enter=300000" \
        "$FORKD" -b ./path "$HTTPD:run" >>out 2>>$log 3>&- &
      first=${second:-} second=$!
    done
    eventually one_is_gone
    cat log log2 | grep -q "cannot listen on ./path: Address.* in use"
    eventually answers ./path
    kill -TERM $(living "$first") $(living "$second")
    wait "$first" "$second" || :
  done
}
one_is_gone() { gone_or_zombie "$first" || gone_or_zombie "$second"; }

@test "a path in a folder that does not exist ends forkd, and says so" {
  cannot_listen "No such file" ./missing/socket
}

@test "a Unix socket that is in use ends forkd, and stays" {
  run_forkd -b ./socket "$HTTPD:run"
  eventually answers ./socket
  cannot_listen "in use" ./socket
  answers ./socket
}

@test "a Unix socket that is in use stays also where a full queue refuses connections" {
  command -v strace >/dev/null || skip "no strace"
  case $CPPFLAGS in *-DFORKD_PORTABLE*) ;; *) skip "on Linux a full queue does not refuse" ;; esac
  run_forkd -b ./socket "$HTTPD:run"
  eventually answers ./socket
  run strace -o trace -e trace=connect -e inject=connect:error=ECONNREFUSED:when=1 \
    "$FORKD" -b ./socket sh -c "$never"
  [ "$status" -eq 1 ] && [ ! -e started ]
  [[ $output == *"cannot listen on ./socket: Address"*" in use"* ]]
  answers ./socket
}

@test "a Unix socket that cannot be looked at is not taken for a stale one" {
  command -v strace >/dev/null || skip "no strace"
  run_forkd -b ./socket "$HTTPD:run"
  eventually answers ./socket
  run strace -o trace -e trace=socket -e inject=socket:error=EMFILE:when=2 "$FORKD" -b ./socket sh -c "$never"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == "forkd: cannot listen on ./socket: Address"*" in use"* ]]
  answers ./socket
}

@test "a Unix socket that is in use, but has no room for a further client, is not a stale one" {
  run_forkd "$W:fills_queue" ./socket
  eventually printed full
  ls -i socket >before
  background "$FORKD" -b ./socket sh -c "$never" 2>log2
  eventually gone_or_zombie "$background"
  grep "forkd: cannot listen on ./socket: Address.* in use" log2
  ls -i socket | diff before -
}

@test "a file at the path of a Unix socket ends forkd, and stays" {
  echo precious >file
  mkdir folder
  ln -s nowhere link
  leave_stale ./socket
  ln -s socket link2
  cannot_listen exists ./file
  cannot_listen exists ./folder
  cannot_listen exists ./link
  cannot_listen exists ./link2
  [ "$(cat file)" = precious ]
  [ -d folder ]
  [ -L link ]
  [ -L link2 ]
  [ -S socket ]
}

@test "an address that fails leaves nothing behind of those before it" {
  echo precious >file
  cannot_listen exists ./file -b ./socket
  [ ! -e socket ]
  [ "$(cat file)" = precious ]
}

# leave_stale PATH: as a master that was killed leaves its socket.
leave_stale() {
  run_forkd -b "$1" "$HTTPD:run"
  eventually answers "$1"
  workers=$(living "$master")
  kill -KILL "$master" $workers
  for pid in "$master" $workers; do eventually gone_or_zombie "$pid"; done
  [ -S "$1" ]
}

@test "a stale Unix socket is replaced" {
  leave_stale ./socket
  run_forkd -b ./socket "$HTTPD:run"
  eventually answers ./socket
  stops_with 0
}

@test "forkd removes the files of its Unix sockets at the end" {
  run_forkd -b ./socket -b "$PWD/two" "$HTTPD:run"
  eventually answers ./socket
  stops_with 0
  [ ! -e socket ]
  [ ! -e two ]
  run "$FORKD" -b ./socket ./missing.so:run
  [ "$status" -eq 1 ]
  [ ! -e socket ]
}

@test "forkd does not remove what somebody has put in the place of its Unix socket" {
  run_forkd -b ./one -b ./two -b ./three "$HTTPD:run"
  first=$master
  eventually answers ./two
  rm one two
  echo precious >one
  mv three four
  ln -s four three
  run_forkd -b ./two "$HTTPD:run"
  eventually answers ./two
  kill -TERM "$first"
  eventually gone_or_zombie "$first"
  [ "$(cat one)" = precious ]
  [ -L three ]
  [ -S four ]
  answers ./two
}

# --- what a worker gets

@test "a worker is told how many sockets there are, and that they are meant for it" {
  run_forkd -n 2 -b ./one -b ./two "$W:environment" LISTEN_FDS
  eventually printed_lines 2
  [ "$(grep -c '^LISTEN_FDS=2 ' out)" -eq 2 ]
  stops_with 0
  : >out
  run_forkd -n 2 -b ./one "$W:environment" LISTEN_PID
  eventually printed_lines 2
  sed 's/^LISTEN_PID=\([0-9]*\) pid=\1$/same/' out | sort | uniq -c >pids
  [ "$(cat pids)" = "      2 same" ] || [ "$(awk '{ print $1, $2 }' pids)" = "2 same" ]
}

@test "a command worker is told so, too" {
  run_forkd -b ./one sh -c 'echo "$LISTEN_FDS $LISTEN_PID $$"; exec sleep 1000'
  eventually printed '^1 '
  read -r count pid own <out
  [ "$count" -eq 1 ]
  [ "$pid" -eq "$own" ]
}

@test "without sockets a worker is not told of any, not even of somebody else's" {
  LISTEN_FDS=2 LISTEN_PID=1 run_forkd "$W:environment" LISTEN_FDS
  eventually printed '^LISTEN_FDS=(unset)'
  LISTEN_FDS=2 LISTEN_PID=1 run_forkd "$W:environment" LISTEN_PID
  eventually printed '^LISTEN_PID=(unset)'
}

@test "the sockets are descriptors 3 and up, whatever forkd has inherited" {
  for inherited in '3</dev/null' '4</dev/null' '3</dev/null 4</dev/null 5</dev/null 6</dev/null' \
    '3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-' '0<&-' '0<&- 1>&- 2>&-' '0<&- 1>&- 2>&- 4</dev/null'; do
    background sh -c "exec \"\$@\" >>out 2>>log $inherited" - "$FORKD" -b ./one -b ./two "$HTTPD:run"
    master=$background
    echo "with '$inherited'"
    eventually answers ./one
    answers ./two
    stops_with 0
  done
}

@test "a socket never takes the place of a standard descriptor that forkd was started without" {
  background sh -c 'exec "$@" 0<&- 1>&- 2>&-' - "$FORKD" -b ./one -b ./two \
    sh -c 'cat <&0 && echo x >&1 && echo x >&2 && touch open; exec sleep 1000'
  eventually [ -e open ]
}

@test "what keeps a stale Unix socket from being replaced is said" {
  command -v strace >/dev/null || skip "no strace"
  leave_stale ./socket
  run strace -o trace -e trace=bind -e inject=bind:error=EACCES:when=2 "$FORKD" -b ./socket sh -c "$never"
  grep -q INJECTED trace || skip "strace cannot make bind fail here"
  [ "$status" -eq 1 ]
  [[ $output == "forkd: cannot listen on ./socket: Permission denied"* ]]
}

@test "no descriptor of forkd's own reaches a worker beside the sockets" {
  # What was there at descriptor 3 makes way for the first socket.
  for inherited in '3<&-' '3</dev/null'; do
    : >out
    leave_stale ./one
    NOTIFY_SOCKET=$PWD/nobody \
      background sh -c "exec \"\$@\" $inherited 4<&- 5<&- 6<&- 7<&- 8<&- 9<&- >>out 2>>log" - \
      "$FORKD" -b ./one -b ./two "$W:descriptors"
    master=$background
    eventually printed '^open:'
    cat out
    # Above 9 there may be some that the shell could not close; forkd's would be the next free ones.
    printed '^open: 0 1 2 3 4\( [1-9][0-9]\)*$'
    stops_with 0
  done
}

@test "sockets come in the order of the command line, after those that forkd was given" {
  port=$(free_port)
  run_forkd -b ./one -b "127.0.0.1:$port" -b ./two -- "$FORKD" -b ./four -b "127.0.0.2:$((port + 1))" -b ./three "$W:sockets"
  eventually printed "^sockets: ./one $port ./two ./four $((port + 1)) ./three\$"
  stops_with 0
}

@test "the names of the sockets are passed on as long as they fit them" {
  given() { run_forkd -b ./one -b ./two -- sh -c 'LISTEN_FDNAMES=a:b exec "$@"' - "$FORKD" "$@"; }
  given "$W:environment" LISTEN_FDNAMES
  eventually printed "^LISTEN_FDNAMES=a:b "
  stops_with 0
  given -b ./three "$W:environment" LISTEN_FDNAMES
  eventually printed "^LISTEN_FDNAMES=(unset)"
  stops_with 0
  : >out
  LISTEN_FDNAMES=a:b run_forkd "$W:environment" LISTEN_FDNAMES
  eventually printed "^LISTEN_FDNAMES=(unset)"
  stops_with 0
  : >out
  LISTEN_FDNAMES=a:b run_forkd -b ./one "$W:environment" LISTEN_FDNAMES
  eventually printed "^LISTEN_FDNAMES=(unset)"
}

@test "a LISTEN_FDS that is for another process, or is no number of sockets, counts for nothing" {
  for variables in 'LISTEN_FDS=1 LISTEN_PID=1' LISTEN_FDS=1 'LISTEN_FDS=1 LISTEN_PID=' \
    'LISTEN_FDS=-1 LISTEN_PID=$$' 'LISTEN_FDS=0 LISTEN_PID=$$' 'LISTEN_FDS=x LISTEN_PID=$$' \
    'LISTEN_FDS= LISTEN_PID=$$' 'LISTEN_PID=$$'; do
    : >out
    background sh -c "$variables exec \"\$@\" >>out 2>>log 3>&-" - "$FORKD" -b ./one "$W:sockets"
    master=$background
    echo "with $variables"
    eventually printed "^sockets: ./one\$"
    stops_with 0
  done
}

@test "a LISTEN_PIDFDID, which names forkd itself, is not passed on" {
  LISTEN_PIDFDID=123 run_forkd "$W:environment" LISTEN_PIDFDID
  eventually printed "^LISTEN_PIDFDID=(unset)"
}

@test "sockets that forkd was promised, but not given, end it" {
  run --separate-stderr sh -c 'LISTEN_FDS=9223372036854775807 LISTEN_PID=$$ exec "$FORKD" sh -c "$0" 3>&-' "$never"
  [ "$status" -eq 1 ]
  [ "${#stderr_lines[@]}" -eq 1 ]
  run --separate-stderr sh -c 'LISTEN_FDS=7 LISTEN_PID=$$ exec "$FORKD" sh -c "$0" 3>&-' "$never"
  [ "$status" -eq 1 ]
  [ "${#stderr_lines[@]}" -eq 1 ]
  [ ! -e started ]
  [[ $stderr == "forkd: LISTEN_FDS is '7', but descriptor 3 is not open" ]]
  run --separate-stderr sh -c 'LISTEN_FDS=2 LISTEN_PID=$$ exec "$FORKD" -b ./one sh -c "$0" 3</dev/null 4<&-' "$never"
  [ "$status" -eq 1 ]
  [ "${#stderr_lines[@]}" -eq 1 ]
  [ ! -e started ]
  [ ! -e one ]
  [[ $stderr == "forkd: LISTEN_FDS is '2', but descriptor 4 is not open" ]]
}

@test "a worker in Python takes its sockets, and answers during a reload" {
  command -v python3 >/dev/null || skip "no python3"
  port=$(free_port)
  run_forkd -w 0.5 -b "127.0.0.1:$port" -b ./one -- python3 "$ROOT/test/workers/listen.py"
  eventually answers "127.0.0.1:$port"
  answers ./one -v
  grep -q python answer
  background "$CLIENT" -n 50000 -p 5 "127.0.0.1:$port" >plain
  signal HUP
  eventually logged "reload succeeded"
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

# --- connections while workers come and go

@test "no connection is refused and no answer cut during 20 reloads" {
  port=$(free_port)
  run_forkd -n 3 -b "127.0.0.1:$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
  clients "127.0.0.1:$port"
  for i in $(seq 20); do
    signal HUP
    eventually logged_times "$i" "reload succeeded"
    eventually logged_times "$i" "worker 1024 .* exited with status 0"
  done
  all_answered
  stops_with 0
}

@test "no connection is refused and no answer cut while the pool grows and shrinks" {
  port=$(free_port)
  run_forkd -b "127.0.0.1:$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
  clients "127.0.0.1:$port"
  for _ in 1 2 3 4 5; do
    signal USR1
    eventually has_workers 2
    signal USR1
    eventually has_workers 3
    signal USR2
    eventually has_workers 2
    signal USR2
    eventually has_workers 1
  done
  all_answered
  stops_with 0
}

@test "no connection is refused and no answer cut while workers are ended a hundred times" {
  port=$(free_port)
  run_forkd -n 10 -b "127.0.0.1:$port" "$HTTPD:run"
  eventually answers "127.0.0.1:$port"
  eventually logged_times 10 "started$"
  clients "127.0.0.1:$port"
  for i in $(seq 10); do
    kill -TERM $(sed -n 's/.*worker [0-9] (pid \([0-9]*\)) started$/\1/p' log | tail -n 10)
    eventually logged_times $((i * 10 + 10)) "started$"
  done
  all_answered
  logged_times 100 "exited with status 0"
  stops_with 0
}

@test "no connection is refused and no answer cut by a broken deploy" {
  needs_linux "the code is pinned"
  port=$(free_port)
  cp "$HTTPD" w.so
  run_forkd -n 2 -b "127.0.0.1:$port" ./w.so:run
  eventually answers "127.0.0.1:$port"
  clients "127.0.0.1:$port"
  for broken in "$BIN/undefined.so" "$BIN/ctor_crash.so" "$BATS_TEST_FILENAME"; do
    cp "$broken" new
    mv new w.so
    before=$(grep -c "reload failed" log || :)
    signal HUP
    eventually logged_times $((before + 1)) "reload failed"
    old=$(pid_of 0)
    kill -TERM "$old"
    eventually is_replaced 0 "$old"
  done
  cp "$HTTPD" new
  mv new w.so
  signal HUP
  eventually logged "reload succeeded"
  eventually logged "worker 1024 .* exited with status 0"
  all_answered
  stops_with 0
}

@test "a worker that is killed in the middle of a request costs that request only" {
  run_forkd -n 2 -b ./socket "$HTTPD:run"
  eventually answers ./socket
  eventually logged_times 2 "started$"
  victim=$(pid_of 0)
  survivor=$(pid_of 1)
  # Each of them gets a client that has been answered once and is halfway through its next request.
  kill -STOP "$survivor"
  eventually is_state "$survivor" T
  background "$CLIENT" -kv -n 2 -w go ./socket >counts
  unlucky=$background
  eventually grep -q "pid $victim" counts
  kill -CONT "$survivor"
  kill -STOP "$victim"
  eventually is_state "$victim" T
  background "$CLIENT" -kv -n 2 -w go ./socket >whole
  lucky=$background
  eventually grep -q "pid $survivor" whole
  kill -KILL "$victim"
  touch go
  wait "$unlucky" || :
  wait "$lucky"
  [ "$(tail -n 1 counts)" = "ok 1 refused 0 cut 1 other 0" ]
  [ "$(tail -n 1 whole)" = "ok 2 refused 0 cut 0 other 0" ]
  answers ./socket -n 50
  eventually is_replaced 0 "$victim"
  stops_with 0
}

@test "a request that has begun is answered before its worker ends" {
  run_forkd -b ./socket "$HTTPD:run"
  eventually answers ./socket
  background "$CLIENT" -kv -n 2 -w go ./socket >whole
  eventually grep -q "pid" whole
  signal TERM
  eventually logged "shutting down"
  touch go
  wait "$background"
  [ "$(tail -n 1 whole)" = "ok 2 refused 0 cut 0 other 0" ]
  ends_with 0
}

@test "a client that keeps its connection and says nothing does not hold up the end" {
  run_forkd -g 5 -b ./socket "$HTTPD:run"
  eventually answers ./socket
  background "$CLIENT" -kv -n 2 -p 60000 ./socket >idle
  eventually grep -q "pid" idle
  stops_with 0
}
