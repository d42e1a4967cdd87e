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
  begin
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
  [ "$(grep -c '^```[a-zA-Z]' "$ROOT/README")" -eq 12 ]
  [ "$(grep -c '^```sh$' "$ROOT/README")" -eq 7 ]
}

# What differs from run to run: pids and times.
alike() { sed -e 's/pid [0-9]*/pid PID/' -e 's/after [0-9.]* s/after TIME s/'; }

@test "the transcript at the top is what a run prints" {
  printf '#include <unistd.h>\nint run(void) { usleep(500000); return 1; }\n' >broken.c
  cc -shared -fPIC -o broken.so broken.c
  rm worker.so
  cp "$ROOT/worker.so" worker.so
  cp worker.so mended.so
  block transcript 1 | alike >transcript
  [ "$(grep -c '^\$ ' transcript)" -eq 3 ]
  run_line "$(sed -n '1s/^\$ \(.*\) >.*/\1/p' transcript)"
  eventually logged "worker 1 .*started"
  sed -n 's/^\$ //p' transcript | sed 1d >commands
  while read -r command; do
    echo "$ $command"
    sh -c "$command" 2>&1
  done <commands | alike >happened
  sed 1d transcript | diff - happened
  stops_with 0
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

@test "the worker of the README compiles, runs, and is deployed anew by the script" {
  block cpp 1 >ping.cpp
  sh -e -c "$(block sh 3 | sed '$d')"
  # Without a warm-up, so that the reload takes no seconds.
  run_line "$(block sh 3 | sed -n '$s/forkd/forkd -w 0/p')"
  eventually printed "^ping from worker 0$"
  eventually printed "^ping from worker 1$"
  block sh 4 >deploy.sh
  sh deploy.sh
  logged_times 1 "reload complete"
  # Code that cannot be compiled is not deployed, and code that cannot be loaded fails.
  echo 'mistake' >>ping.cpp
  never sh deploy.sh
  printf 'void missing();\nextern "C" int run() { missing(); return 0; }\n' >ping.cpp
  never sh deploy.sh
  logged_times 1 "reload failed"
  stops_with 0
}

@test "the server of the README serves, and is reloaded without traffic" {
  command -v curl >/dev/null || skip "no curl"
  block cpp 3 >hello.cpp
  sh -e -c "$(block sh 6 | sed '$d')"
  port=$("$BIN/client" -)
  run_line "$(block sh 6 | sed -n "\$s/forkd/forkd -w 0/; \$s/8080/$port/p")"
  eventually sh -c "$(block sh 7 | sed "s/8080/$port/")" >answer 2>/dev/null
  [ "$(tail -n 1 answer)" = hello ]
  signal HUP
  eventually logged "reload complete"
  sh -c "$(block sh 7 | sed "s/8080/$port/")" >answer
  [ "$(tail -n 1 answer)" = hello ]
  stops_with 0
}

@test "the application runs" {
  block cpp 2 >app.cpp
  sh -e -c "$(block sh 5 | sed '$d')"
  run_line "$(block sh 5 | tail -n 1)"
  eventually printed_times 2 "^ping$"
  stops_with 0
}

# The README's Dockerfile, step by step: a folder for each stage, and musl-gcc as Alpine's compiler.

# words LIST: those of a JSON array, a line each.
words() { echo "$1" | sed -e 's/^[^[]*\["//' -e 's/"\][^]]*$//' -e 's/", *"/\n/g'; }

# ignored NAME: whether .dockerignore has it.
ignored() {
  local pattern
  while read -r pattern; do
    # shellcheck disable=SC2254 # it is a pattern
    case $1 in $pattern) return ;; esac
  done < <(grep -v '^#' "$ROOT/.dockerignore")
  return 1
}

# copy SOURCE ... TARGET: the instruction COPY.
copy() {
  local from=$ROOT source file target=$stage${*: -1}
  if [[ $1 == --from=* ]]; then
    from=$PWD/${1#--from=}
    shift
  fi
  mkdir -p "$target"
  for source in "${@:1:$#-1}"; do
    [ "$source" != . ] || source='*'
    for file in "$from"/$source; do
      { [ "$from" = "$ROOT" ] && ignored "${file##*/}"; } || cp -RL "$file" "$target" || return
    done
  done
}

# build_image: makes the folder image, and sets user, entrypoint and cmd.
build_image() {
  local instruction rest stage pattern workdir=/
  printf '#!/bin/sh\n' >bin/apk
  chmod +x bin/apk
  block Dockerfile 1 >Dockerfile
  while read -r instruction rest; do
    case $instruction in
      FROM)
        stage=$PWD/image
        [ "$rest" = scratch ] || stage=$PWD/${rest##* }
        mkdir -p "$stage/lib"
        [ "$rest" = scratch ] || cp -L /lib/ld-musl-*.so.1 "$stage/lib"
        ;;
      WORKDIR) workdir=$rest ;;
      RUN) (cd "$stage$workdir" && env -u MAKEFLAGS -u MAKELEVEL -u LDFLAGS CC=musl-gcc CXX=musl-gcc sh -e -c "$rest" >&2) || return ;;
      COPY)
        set -f
        # shellcheck disable=SC2086 # words, not expanded yet
        set -- $rest
        set +f
        copy "$@" || return
        ;;
      USER) user=$rest ;;
      ENTRYPOINT) entrypoint=$(words "$rest") ;;
      CMD) cmd=$(words "$rest") ;;
      STOPSIGNAL) [ "$rest" = SIGTERM ] ;;
      '') ;;
      *) echo "unknown: $instruction" && return 1 ;;
    esac || return
  done <Dockerfile
}

# run_container ARGUMENT ...: the image with the arguments in the place of CMD; $container is forkd.
run_container() {
  background unshare --pid --fork --kill-child chroot --userspec="$user" image $entrypoint "$@" >>out 2>>log
  namespace=$background
  eventually has_child "$namespace"
  container=$(children "$namespace")
}
has_child() { [ -n "$(children "$1")" ]; }
container_ends_with() {
  eventually gone_or_zombie "$namespace"
  local status=0
  wait "$namespace" || status=$?
  [ "$status" -eq "$1" ]
}

@test "the image of the Dockerfile runs, alone and as the manifest for Kubernetes says" {
  command -v musl-gcc >/dev/null || skip "no musl-gcc"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  unshare --pid --fork chroot / true 2>/dev/null || skip "cannot make a PID namespace here"
  build_image
  [ "$(cd image && find . -type f | sort | tr '\n' ' ')" = "./forkd ./httpd.so ./lib/ld-musl-$(uname -m).so.1 ./worker.so " ]

  run_container $cmd
  eventually printed "^ping$"
  kill -TERM "$container"
  container_ends_with 0

  # A port that is free here in the place of 8080, and no warm-up.
  port=$("$BIN/client" -)
  args=$(words "$(grep 'args:' "$ROOT/man/forkd.1")" | sed "s/8080/$port/")
  grep -q 'containerPort: 8080' "$ROOT/man/forkd.1"
  # The volume.
  mkdir -m 1777 "image$(sed -n 's/.*mountPath: \([^}]*\)}.*/\1/p' "$ROOT/man/forkd.1")"
  rm log
  run_container -w 0 $args
  eventually "$BIN/client" "127.0.0.1:$port" >answer
  reload=$(sed -n 's/^\$ kubectl exec [^ ]* -- //p' "$ROOT/man/forkd.1")
  nsenter --target "$container" --pid chroot --userspec="$user" image $reload
  logged "reload complete"
  eventually "$BIN/client" "127.0.0.1:$port" >answer
  kill -TERM "$container"
  container_ends_with 0
}

@test "the manifest for Kubernetes gives the pool time to end" {
  grep -A99 '^apiVersion' "$ROOT/man/forkd.1" | sed '/^\.Ed/,$d' >manifest
  grace=$(sed -n 's/.*"-g", "\([0-9]*\)".*/\1/p' manifest)
  pause=$(sed -n 's/.*sleep: {seconds: \([0-9]*\)}.*/\1/p' manifest)
  [ "$(sed -n 's/.*terminationGracePeriodSeconds: //p' manifest)" -eq $((pause + grace + 2)) ]
  command -v python3 >/dev/null && python3 -c 'import yaml' 2>/dev/null || skip "no YAML parser"
  python3 -c 'import sys, yaml; yaml.safe_load(sys.stdin)' <manifest
}

@test "the table of signals names each signal that the manual has" {
  for name in USR1 USR2 HUP INT QUIT TERM; do
    sed -n '/signal to the master/,/^Deploying/s/^    //p' "$ROOT/README" | grep -q -w "$name"
    sed -n '/^To the master/,/^\.El/s/^\.It //p' "$ROOT/man/forkd.1" | grep -q -w "$name"
  done
}
