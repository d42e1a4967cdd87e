# Builds what the tests run, once: in a folder of this run, or in $BIN for several runs.

setup_suite() {
  ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
  FORKD=${FORKD:-$ROOT/forkd}
  BIN=${BIN:-$BATS_SUITE_TMPDIR/bin}
  SHARED=${SHARED:-$([ "$(uname)" = Darwin ] && echo -shared -undefined dynamic_lookup || echo -shared)}
  export ROOT FORKD BIN CC=${CC:-cc} CXX=${CXX:-c++} CPPFLAGS=${CPPFLAGS:-} LDFLAGS=${LDFLAGS:-} SHARED
  [ -x "$FORKD" ] || { echo "no $FORKD: run make first" >&2; return 1; }
  # Of several runs that share the folder the first one builds.
  mkdir -p "$BIN"
  if mkdir "$BIN/building" 2>/dev/null; then
    build_all || { touch "$BIN/failed"; return 1; }
    touch "$BIN/built"
  fi
  until [ -e "$BIN/built" ]; do
    [ ! -e "$BIN/failed" ] || { echo "what the tests run was not built, see above" >&2; return 1; }
    sleep 0.1
  done
  # Each test file is run by a shell of its own, and reads this first.
  export BASH_ENV=$BIN/begin
}

build_all() {
  mkfifo "$BIN/silent"
  cat >"$BIN/begin" <<'SH'
case $0 in
  *bats-exec-file)
    unset BASH_ENV
    exec "$BIN/default_signals" bash "$0" "$@"
    ;;
esac
SH
  OPTIMIZE=${OPTIMIZE:--O0} # none: compiling costs more than running
  # All at the same time: compilers are processes like any other.
  local job jobs=
  start so workers workers/workers.cpp
  start so worker examples/worker.cpp
  start so httpd examples/httpd.cpp
  start so one workers/versioned.cpp '-DVERSION="1"'
  start so two workers/versioned.cpp '-DVERSION="2"'
  start so hang_0 workers/versioned.cpp '-DVERSION="2"' '-DHANGS="0"'
  start so replaces workers/versioned.cpp '-DVERSION="2"' -DREPLACES
  start so ctor_crash workers/constructor.cpp -DCRASH
  start so ctor_exit workers/constructor.cpp -DEXIT
  start so ctor_hang workers/constructor.cpp -DHANG
  start so ctor_files workers/constructor.cpp -DFILES
  start so ctor_slow workers/constructor.cpp -DSLOW
  start so ctor_waits workers/constructor.cpp -DWAITS
  start so moves workers/moves.cpp
  start so undefined workers/undefined.cpp
  start helper await
  start helper default_signals
  start tool client
  start tool moments
  start tool notify_sink
  start tool slow_log
  start simulation
  start application
  start application_in_cxx
  start throwing_application
  for job in $jobs; do wait "$job" || return; done
}
start() {
  "$@" 3>&- &
  jobs="$jobs $!"
}

# so NAME SOURCE [FLAG ...]: a shared object, linked as the Makefile links worker.so.
so() {
  local name=$1 source=$2
  shift 2
  "$CXX" -I"$ROOT" "$OPTIMIZE" -fPIC "$@" -c -o "$BIN/$name.o" "$ROOT/test/$source" &&
    "$CC" $SHARED -pthread -o "$BIN/$name.so" "$BIN/$name.o"
}

# helper NAME: a program of test/tools that the tests themselves need: for this machine, also when what
# they test is for another one. Static it starts in half the time.
helper() {
  local cc=$CC
  [ -z "${EMULATED:-}" ] || cc=cc
  "$cc" -static -o "$BIN/$1" "$ROOT/test/tools/$1.c" 2>/dev/null ||
    "$cc" -o "$BIN/$1" "$ROOT/test/tools/$1.c"
}

# tool NAME [FLAG ...]: a program of test/tools. It needs no C++ library.
tool() {
  local name=$1
  shift
  "$CXX" $CPPFLAGS -std=c++20 "$OPTIMIZE" -fno-exceptions -fno-rtti "$@" -c -o "$BIN/$name.o" "$ROOT/test/tools/$name.cpp" &&
    "$CC" $LDFLAGS -pthread -o "$BIN/$name" "$BIN/$name.o"
}

# The simulation of the master, which has forkd.cpp in itself.
simulation() {
  "$CXX" -std=c++20 -O1 -fno-exceptions -fno-rtti -c -o "$BIN/simulate.o" "$ROOT/test/tools/simulate.cpp" &&
    "$CC" $LDFLAGS -pthread -o "$BIN/simulate" "$BIN/simulate.o"
}

# The application in C, linked with forkd in both ways.
application() {
  "$CC" -Wall -Wextra -I"$ROOT" -c -o "$BIN/application.o" "$ROOT/test/workers/application.c" &&
    "$CC" $LDFLAGS -pthread -o "$BIN/with_object" "$BIN/application.o" "$ROOT/forkd.o" &&
    "$CC" $LDFLAGS -pthread -o "$BIN/with_archive" "$BIN/application.o" -L"$ROOT" -lforkd
}

application_in_cxx() {
  "$CXX" -std=c++20 -fno-exceptions -fno-rtti -I"$ROOT" -c -o "$BIN/in_cxx.o" "$ROOT/test/workers/application.cpp" &&
    "$CC" $LDFLAGS -pthread -o "$BIN/in_cxx" "$BIN/in_cxx.o" -L"$ROOT" -lforkd
}

# The only one that needs the C++ library, which is not there for musl: its test is skipped then.
throwing_application() {
  "$CXX" -std=c++20 -I"$ROOT" -o "$BIN/throws" "$ROOT/test/workers/throws.cpp" "$ROOT/forkd.o" \
    $LDFLAGS -pthread 2>/dev/null || :
}
