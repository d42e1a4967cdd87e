#!/usr/bin/env bats
# The build: what it makes, what it needs, and what it leaves.

load helper

# A copy of the sources, as a fresh clone has them.
setup() {
  cd "$BATS_TEST_TMPDIR" || return
  cp -R "$ROOT/forkd.cpp" "$ROOT/Makefile" "$ROOT/test" "$ROOT/man" "$ROOT/README" .
}
make_here() { env -u MAKEFLAGS -u MAKELEVEL -u CXXFLAGS -u LDFLAGS "${MAKE:-make}" "$@" >make.log 2>&1 || { cat make.log; return 1; }; }

@test "make builds the tool, the header, the library and the examples, and clean removes them all" {
  find . -type f | sort >before
  make_here
  for file in forkd forkd.h libforkd.a worker.so httpd.so; do [ -e $file ]; done
  make_here clean
  rm make.log
  find . -type f | sort >after
  diff <(grep -v -e before -e after before) <(grep -v -e before -e after after)
}

@test "the tool needs the C library and the loader alone" {
  command -v ldd >/dev/null || skip "no ldd"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  case $CC in *musl*) skip "the ldd here is not musl's" ;; esac
  run ldd "$FORKD"
  [ "$status" -eq 0 ]
  ! echo "$output" | grep -v -E 'libc\.|ld-|linux-vdso|linux-gate|ld-musl'
}

@test "the tool exports the API and nothing else of its own" {
  command -v nm >/dev/null || skip "no nm"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  [ "$(nm -D "$FORKD" | awk '$2 == "T" && $3 ~ /forkd/ { print $3 }' | sort | tr '\n' ' ')" = \
    "forkd_run forkd_stop_fd forkd_worker_number forkd_yield " ]
}

@test "forkd.h is what forkd.cpp says, and compiles as C and as C++" {
  make_here forkd.h
  size=$(wc -l <forkd.h)
  [ "$size" -ge 30 ]
  # Every line of it stands in forkd.cpp, in the same order and without a gap.
  first=$(grep -n -x -F "$(head -n 1 forkd.h)" forkd.cpp | cut -d: -f1)
  diff forkd.h <(tail -n "+$first" forkd.cpp | head -n "$size")
  printf '#include "forkd.h"\nint main(void) { return forkd_yield(); }\n' >use.c
  cp use.c use.cpp
  "$CC" -Wall -Wextra -Wpedantic -Werror -I. -c use.c
  "$CC" -std=c99 -Wpedantic -Werror -I. -c use.c
  "$CXX" -std=c++11 -Wall -Wextra -Wpedantic -I. -c use.cpp
}

@test "after make install a program elsewhere is compiled, linked and run; uninstall removes all" {
  mkdir elsewhere
  make_here install DESTDIR="$PWD/root" PREFIX=/usr
  (cd root && find . -type f | sort) >files
  [ "$(grep -c . files)" -ge 5 ]
  for file in bin/forkd include/forkd.h lib/libforkd.a share/man/man1/forkd.1 share/man/man3/forkd.3; do
    grep -x "./usr/$file" files
  done
  cat >elsewhere/app.c <<'C'
#include <forkd.h>
static int run(int argc, char **argv) { return !(argc == 1 && argv[1] == 0 && forkd_worker_number() == 0); }
int main(int argc, char **argv) { return forkd_run(run, argc, argv, 0); }
C
  "$CC" -I"$PWD/root/usr/include" -o elsewhere/app elsewhere/app.c -L"$PWD/root/usr/lib" -lforkd -pthread $LDFLAGS
  elsewhere/app >>out 2>>log 3>&- &
  master=$!
  eventually logged "worker 0 (pid [0-9]*) exited with status 0"
  stops_with 0
  if command -v man >/dev/null; then
    for page in forkd_yield forkd_stop_fd forkd_worker_number forkd_run; do
      MANPATH=$PWD/root/usr/share/man man -w $page
    done
  fi
  make_here uninstall DESTDIR="$PWD/root" PREFIX=/usr
  [ -z "$(find root -type f -o -type l)" ]
}

@test "the user's CC, CXX, CXXFLAGS and LDFLAGS are used" {
  make_here CXXFLAGS='-O0 -DSOMETHING_OF_THE_USER' LDFLAGS='-Wl,-O1'
  grep -q -e '-c.*forkd.cpp' make.log
  grep -q -e '-DSOMETHING_OF_THE_USER' make.log
  grep -q -e '-o forkd .*-Wl,-O1' make.log
}

@test "bmake builds the same" {
  command -v bmake >/dev/null || skip "no bmake"
  MAKE=bmake make_here
  for file in forkd forkd.h libforkd.a worker.so; do [ -e $file ]; done
  ./forkd --version
}

@test "make test says what is missing when there is no bats" {
  make_here forkd forkd.h libforkd.a worker.so
  run env -u MAKEFLAGS -u MAKELEVEL "${MAKE:-make}" test BATS=no-such-bats
  [ "$status" -ne 0 ]
  [[ $output == *"bats"*"install"* ]]
}
