#!/usr/bin/env bats
# The README's examples, taken from the file itself.

load helper

# block LANGUAGE NUMBER: the text of that fenced block of the README, counted from 1.
block() {
  awk -v fence="\`\`\`$1" -v want="$2" '
    $0 == "```" && inside { inside = 0; next }
    inside && number == want { print }
    $0 == fence { number++; inside = 1 }' "$ROOT/README"
}

# The commands are run where a user would: in a folder with the sources, where make was run.
setup() {
  cd "$BATS_TEST_TMPDIR" || return
  ln -s "$FORKD" "$ROOT/forkd.h" "$ROOT/libforkd.a" "$ROOT/worker.so" "$ROOT/httpd.so" .
  mkdir bin
  # c++ and cc are the compilers that the suite runs with, flags included.
  printf '#!/bin/sh\nexec %s "$@" %s\n' "$(command -v "$CXX")" "$LDFLAGS" >bin/c++
  printf '#!/bin/sh\nexec %s "$@" %s\n' "$(command -v "$CC")" "$LDFLAGS" >bin/cc
  chmod +x bin/*
  export PATH="$PWD/bin:$PATH"
}

# Runs a line of the README in the background, as typed.
run_line() {
  sh -c "exec $1" >>out 2>>log 3>&- &
  master=$!
}

@test "every block of the README is one that a test here knows" {
  [ "$(grep -c '^```[a-zA-Z]' "$ROOT/README")" -eq 13 ]
  [ "$(grep -c '^```sh$' "$ROOT/README")" -eq 8 ]
}

@test "the first command builds and runs" {
  [ "$(block sh 1)" = "make && ./forkd -n 2 ./worker.so:run" ]
  run_line "$(block sh 1 | sed 's/^make && //')"
  eventually printed_times 2 "^ping$"
  stops_with 0
}

@test "the test command is make's" {
  [ "$(block sh 2)" = "make test" ]
  grep -q '^test:' "$ROOT/Makefile"
}

@test "the worker of the README compiles, runs, and can be redeployed while it runs" {
  block cpp 1 >ping.cpp
  sh -e -c "$(block sh 3 | sed '$d')"
  run_line "$(block sh 3 | tail -n 1)"
  eventually printed "^ping from worker 0$"
  eventually printed "^ping from worker 1$"
  master=$master sh -e -c "$(block sh 4)"
  eventually logged "reload succeeded"
  stops_with 0
}

@test "the server of the README serves" {
  command -v curl >/dev/null || skip "no curl"
  port=$((20000 + $$ % 20000))
  run_line "$(block sh 5 | sed "s/8080/$port/")"
  eventually sh -c "$(block sh 6 | sed "s/8080/$port/")" >answer 2>/dev/null
  grep -q worker answer
  stops_with 0
}

@test "the application in C++ runs" {
  block cpp 2 >app.cpp
  sh -e -c "$(block sh 7 | sed '$d')"
  run_line "$(block sh 7 | tail -n 1)"
  eventually printed_times 2 "^ping$"
  stops_with 0
}

@test "the application in C runs" {
  block c 1 >app.c
  sh -e -c "$(block sh 8 | sed '$d')"
  run_line "$(block sh 8 | tail -n 1)"
  eventually printed_times 2 "^ping$"
  stops_with 0
}

@test "the manifest is valid YAML" {
  command -v python3 >/dev/null && python3 -c 'import yaml' 2>/dev/null || skip "no YAML parser"
  block yaml 1 | python3 -c '
import sys, yaml
pod = yaml.safe_load(sys.stdin)["spec"]["template"]["spec"]
grace = int(pod["containers"][0]["args"][3])
assert grace < pod["terminationGracePeriodSeconds"]'
}

@test "the container's files are those that make image builds" {
  grep -q '^FROM scratch$' "$ROOT/README"
  for file in ld-musl forkd worker.so; do block Dockerfile 1 | grep -q "COPY.*$file"; done
  block Dockerfile 1 | grep -q '^STOPSIGNAL SIGTERM$'
}

@test "the table of signals names each signal that the manual has" {
  for name in USR1 USR2 HUP INT QUIT TERM; do
    grep '^|' "$ROOT/README" | grep -q -w "$name"
    grep -q "SIG$name\|Dv SIG$name\|$name" "$ROOT/man/forkd.1"
  done
}
