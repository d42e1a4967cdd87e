# Builds what the tests run, once: in a folder of this run, or in $BIN for several runs.

setup_suite() {
  ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
  FORKD=${FORKD:-$ROOT/forkd}
  BIN=${BIN:-$BATS_SUITE_TMPDIR/bin}
  export ROOT FORKD BIN CC=${CC:-cc} CXX=${CXX:-c++} LDFLAGS=${LDFLAGS:-}
  [ -x "$FORKD" ] || { echo "no $FORKD: run make first" >&2; return 1; }
  [ ! -e "$BIN/undefined.so" ] || return 0
  mkdir -p "$BIN"
  so workers workers.cpp
  so worker worker.cpp
  so one versioned.cpp '-DVERSION="1"'
  so two versioned.cpp '-DVERSION="2"'
  so ctor_crash constructor.cpp -DCRASH
  so ctor_exit constructor.cpp -DEXIT
  so ctor_hang constructor.cpp -DHANG
  so ctor_files constructor.cpp -DFILES
  so ctor_slow constructor.cpp -DSLOW
  so hang_0 versioned.cpp '-DVERSION="2"' '-DHANGS="0"'
  so undefined undefined.cpp
}

# so NAME SOURCE [FLAG ...]: a shared object, linked as the Makefile links worker.so.
so() {
  local name=$1 source=$2
  shift 2
  "$CXX" -I"$ROOT" -O1 -fPIC "$@" -c -o "$BIN/$name.o" "$BATS_TEST_DIRNAME/$source" &&
    "$CC" -shared -pthread -o "$BIN/$name.so" "$BIN/$name.o"
}
