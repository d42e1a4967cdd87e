#!/usr/bin/env bats
# The examples of the manual pages, taken from the pages themselves.

load helper

# block PAGE TEXT: the first literal block of that page which has the text, as it is shown.
block() {
  awk -v text="$2" '
    /^\.Bd -literal/ { inside = 1; shown = ""; next }
    /^\.Ed/ { if (inside && index(shown, text)) { printf "%s", shown; exit } inside = 0; next }
    inside { gsub(/\\en/, "\\n"); gsub(/\\\(dq/, "\""); gsub(/\\-/, "-"); shown = shown $0 "\n" }' \
    "$ROOT/man/$1" | grep . || { echo "no block with '$2' in $1" >&2; return 1; }
}

# commands PAGE TEXT: those of a block, without the prompt.
commands() { block "$1" "$2" | sed -n 's/^\$ //p'; }

# What make install would put in place, and the compilers with the flags that the suite runs with.
setup() {
  cd "$BATS_TEST_TMPDIR" || return
  W=$BIN/workers.so
  master=
  mkdir bin
  ln -s "$FORKD" bin/forkd
  printf '#!/bin/sh\nexec %s "$@" %s\n' "$(command -v "$CXX")" "$LDFLAGS" >bin/c++
  printf '#!/bin/sh\nexec %s -L"%s" "$@" %s\n' "$(command -v "$CC")" "$ROOT" "$LDFLAGS" >bin/cc
  chmod +x bin/cc bin/c++
  export PATH="$PWD/bin:$PATH" CPATH="$ROOT" LIBRARY_PATH="$ROOT"
}

@test "the worker of forkd(1) lives the life that its examples tell" {
  command -v pkill >/dev/null || skip "no pkill"
  block forkd.1 'printf("ping from' >worker.c
  {
    commands forkd.1 '2>forkd.log'
    echo 'until grep -q "worker 1 .*started" forkd.log; do sleep 0.05; done'
    commands forkd.1 'kill -s USR1'
    # The pause is the reader's; what shall be seen after it is waited for here.
    commands forkd.1 'kill -s HUP' | sed 's/sleep 9;/until grep -q complete forkd.log; do sleep 0.05; done;/'
    commands forkd.1 'pkill -HUP'
    commands forkd.1 'wait $pid'
  } >life.sh
  cat life.sh
  background timeout 60 sh -e life.sh >out 2>&1
  eventually gone_or_zombie "$background"
  cp forkd.log log
  [ "$(tail -n 1 out)" = 0 ]
  printed "reload succeeded"
  logged "the target is now 3\|the target is now 1"
}

@test "a shell script as a worker ends between two tasks" {
  block forkd.1 'cat job.sh' | sed -n '/^trap/,/^done/p' >job.sh
  sh -c "exec $(commands forkd.1 'cat job.sh' | tail -n 1)" >>out 2>>log 3>&- &
  master=$!
  eventually printed "task of worker 1"
  stops_with 0
  logged_times 2 "exited with status 0"
}

@test "a command whose path has a colon is run through env" {
  printf '#!/bin/sh\necho "mode $MODE"\nexec sleep 100\n' >job:1
  chmod +x job:1
  sh -c "exec $(commands forkd.1 'MODE=fast')" >>out 2>>log 3>&- &
  master=$!
  eventually printed "mode fast"
}

@test "the server of forkd(3) greets its clients" {
  block forkd.3 'extern "C" int serve()' >hello.cpp
  sh -e -c "$(commands forkd.3 'hello.so' | head -n 1)"
  port=$("$BIN/client" -)
  sh -c "exec $(commands forkd.1 'hello.sock' | sed "s/8080/$port/")" >>out 2>>log 3>&- &
  master=$!
  eventually test -S hello.sock
  command -v curl >/dev/null || skip "no curl"
  eventually sh -c "curl --http0.9 -s localhost:$port >answer"
  grep '^worker [0-3]$' answer
  stops_with 0
}

@test "the application of forkd(3) runs" {
  block forkd.3 'static double table' >app.c
  sh -e -c "$(commands forkd.3 './app hello' | head -n 1)"
  sh -c "exec $(commands forkd.3 './app hello' | tail -n 1)" >>out 2>>log 3>&- &
  master=$!
  eventually printed "^hello: 0.5"
  stops_with 0
}

@test "the consumers of a queue end at once, while they wait for a job" {
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null || skip "no Redis"
  echo '#include <hiredis/hiredis.h>' | cc -fsyntax-only -x c - 2>/dev/null || skip "no hiredis"
  background redis-server --port 0 --unixsocket "$PWD/redis" --save '' >redis.log
  eventually test -S redis
  for command in BRPOP BLMOVE; do
    # The server is found at a path here.
    block forkd.3 "\"$command jobs" | sed 's/redisConnect(.*6379)/redisConnectUnix("redis")/' >consumer.c
    grep -q redisConnectUnix consumer.c
    rm -f consumer.so out log
    cc -Wall -Wno-unused-parameter -Werror -fPIC -shared -o consumer.so consumer.c -lhiredis
    run_forkd -n 2 -g 50 ./consumer.so:run
    eventually logged "worker 1 .*started"
    redis-cli -s redis RPUSH jobs first second
    eventually empty_list jobs
    [ "$command" = BRPOP ] || eventually empty_list running
    start=$SECONDS
    stops_with 0
    # Half of the grace period later a signal would have come.
    [ $((SECONDS - start)) -lt 20 ]
    printed_times 1 "^job first$"
    printed_times 1 "^job second$"
  done
}
empty_list() { [ "$(redis-cli -s redis LLEN "$1")" = 0 ]; }

@test "the units for systemd are valid" {
  command -v systemd-analyze >/dev/null || skip "no systemd-analyze"
  block forkd.1 'Type=notify' | sed "s|/usr/local/bin/forkd|$(type -P true)|" >workers.service
  block forkd.1 'ListenStream=' >workers.socket
  SYSTEMD_UNIT_PATH=$PWD: run systemd-analyze verify ./workers.service ./workers.socket
  echo "$output"
  [ "$status" -eq 0 ]
  never grep workers <<<"$output"
}
