#!/usr/bin/env bats
# The examples of the manual pages, taken from the pages themselves.

load helper

# block PAGE TEXT: the first literal block of that page which has the text, as it is shown.
block() {
  awk -v text="$2" '
    /^\.Bd -literal/ { inside = 1; shown = ""; next }
    /^\.Ed/ { if (inside && index(shown, text)) { printf "%s", shown; exit } inside = 0; next }
    inside { gsub(/\\en/, "\\n"); gsub(/\\er/, "\\r"); gsub(/\\\(dq/, "\""); gsub(/\\-/, "-"); shown = shown $0 "\n" }' \
    "$ROOT/man/$1" | grep . || { echo "no block with '$2' in $1" >&2; return 1; }
}

# commands PAGE TEXT: those of a block, without the prompt.
commands() { block "$1" "$2" | sed -n 's/^\$ //p'; }

# What make install would put in place, and the compilers with the flags that the suite runs with.
setup() {
  begin
  mkdir bin
  ln -s "$FORKD" bin/forkd
  printf '#!/bin/sh\nexec %s "$@" %s\n' "$(command -v "$CXX")" "$LDFLAGS" >bin/c++
  printf '#!/bin/sh\nexec %s -L"%s" "$@" %s\n' "$(command -v "$CC")" "$ROOT" "$LDFLAGS" >bin/cc
  chmod +x bin/cc bin/c++
  export PATH="$PWD/bin:$PATH" CPATH="$ROOT" LIBRARY_PATH="$ROOT"
}

# Without a warm-up, so that no reload takes seconds.
quick() { sed 's/forkd -/forkd -w 0 -/'; }

@test "the worker of forkd(1) lives the life that its examples tell" {
  command -v pkill >/dev/null || skip "no pkill"
  block forkd.1 'printf("ping from' >worker.c
  {
    commands forkd.1 '2>forkd.log' | quick
    block forkd.1 'mv worker.so.new'
    block forkd.1 'target()'
    # (A worker that has just been added may not be healthy yet.)
    echo 'until grep -qx healthy=8 state; do sleep 0.1; done'
    block forkd.1 'awk -F='
    commands forkd.1 'kill -s USR1'
  } >life.sh
  cat life.sh
  background timeout 60 sh -e life.sh >out 2>&1
  eventually gone_or_zombie "$background"
  cp forkd.log log
  cat out
  [ "$(tail -n 1 out)" = 0 ]
  printed "^reload complete"
  logged "the target is now 8"
  logged "the target is now 9"
  logged_times 2 "the target is now 8"
}

@test "the health check fails while a worker is missing, and where there is no state" {
  block forkd.1 'awk -F=' >check.sh
  never sh check.sh
  printf 'target=10\nhealthy=9\n' >state
  never sh check.sh
  printf 'target=10\nhealthy=10\n' >state
  sh check.sh
}

@test "a release whose reload has failed is left again" {
  mkdir release-1 release-2
  cp "$ROOT/worker.so" release-1/w.so
  echo 'no code' >release-2/w.so
  ln -s release-1 current
  grep -q '^\.Ql forkd \\-s state current/w.so:run' "$ROOT/man/forkd.1"
  forkd -w 0 -s state current/w.so:run >>out 2>>log 3>&- &
  master=$!
  eventually logged "worker 0 .*started"
  block forkd.1 'ln -sfn release-2' >deploy.sh
  never sh -e deploy.sh
  [ "$(readlink current)" = release-1 ]
  cp "$ROOT/worker.so" release-2/w.so
  sh -e deploy.sh
  [ "$(readlink current)" = release-2 ]
  stops_with 0
}

@test "one forkd under another is upgraded, and its socket stays" {
  cp "$FORKD" forkd
  cp "$FORKD" forkd.new
  cp "$ROOT/httpd.so" .
  port=$("$BIN/client" -)
  commands forkd.1 'mv forkd.new' >upgrade.sh
  sh -c "exec $(sed -n "1s/8080/$port/; 1s/ &\$//p" upgrade.sh)" >>out 2>>log 3>&- &
  master=$!
  eventually "$BIN/client" "127.0.0.1:$port" >answer
  sh -e -c "$(sed 1d upgrade.sh)"
  "$BIN/client" "127.0.0.1:$port" >answer
  stops_with 0
}

@test "workers in other languages yield" {
  case $CC in *musl*) skip "the languages here are not built for musl" ;; esac
  cat >job.py <<'PYTHON'
import time
def task():
    print("Python", flush=True)
    time.sleep(0.05)
PYTHON
  # What the recipes leave to the reader: the task.
  block forkd.1 Python.h >py.c
  { block forkd.1 no_mangle && echo 'fn task() { println!("Rust"); std::thread::sleep(std::time::Duration::from_millis(50)); }'; } >job.rs
  sed -i '/^\$/d' py.c job.rs
  tried=0
  for language in Python Rust; do
    case $language in
      Python) command -v python3-config >/dev/null || continue; text=Python.h object=py.so ;;
      Rust) command -v rustc >/dev/null || continue; text=no_mangle object=job.so ;;
    esac
    sh -e -c "$(commands forkd.1 $text)" || { echo "$language does not build here"; continue; }
    PYTHONPATH=. run_forkd -w 0 ./$object:run
    eventually printed "$language"
    stops_with 0
    tried=$((tried + 1))
  done
  [ "$tried" -gt 0 ] || skip "neither Python's headers nor Rust"
}

@test "a shell script as a worker ends between two tasks" {
  block forkd.1 'cat job.sh' | sed -n '/^trap/,/^done/p' >job.sh
  sh -c "exec $(commands forkd.1 'cat job.sh' | grep 'sh job.sh')" >>out 2>>log 3>&- &
  master=$!
  eventually printed "task of worker 0"
  eventually printed "task of worker 1"
  stops_with 0
  logged_times 2 "exited with status 0"
}

@test "a command whose path has a colon is run through env" {
  printf '#!/bin/sh\necho "mode $MODE"\nexec sleep 100\n' >job:1
  chmod +x job:1
  sh -c "exec $(commands forkd.1 'MODE=fast' | tail -n 1)" >>out 2>>log 3>&- &
  master=$!
  eventually printed "mode fast"
}

@test "the server of forkd(3) greets its clients" {
  block forkd.3 'extern "C" int serve()' >hello.cpp
  sh -e -c "$(commands forkd.3 'hello.so' | head -n 1)"
  port=$("$BIN/client" -)
  sh -c "exec $(commands forkd.3 'hello.so' | sed -n "2s/8080/$port/p")" >>out 2>>log 3>&- &
  master=$!
  command -v curl >/dev/null || skip "no curl"
  eventually sh -c "curl -s localhost:$port >answer"
  [ "$(cat answer)" = hello ]
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
  # The server is found at a path here.
  block forkd.3 '"BRPOP jobs' | sed 's/redisConnect(.*6379)/redisConnectUnix("redis")/' >BRPOP.c
  grep -q redisConnectUnix BRPOP.c
  # The same with the other loop.
  {
    echo '#include <poll.h>'
    sed '/while (forkd_yield/,$d' BRPOP.c
    block forkd.3 '"BLMOVE jobs'
    sed -n '/redisFree/,$p' BRPOP.c
  } >BLMOVE.c
  for command in BRPOP BLMOVE; do
    cp $command.c consumer.c
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
  [ "$(grep -c "$(type -P true)" workers.service)" -eq 2 ]
  block forkd.1 'ListenStream=' >workers.socket
  SYSTEMD_UNIT_PATH=$PWD: run systemd-analyze verify ./workers.service ./workers.socket
  echo "$output"
  [ "$status" -eq 0 ]
  never grep workers <<<"$output"
}
