#!/usr/bin/env bats
# The build: what it makes, what it needs, and what it leaves.

load helper

# What has been built once, for several tests: without optimization, which takes three times as long.
setup_file() {
  mkdir "$BATS_FILE_TMPDIR/tree"
  cd "$BATS_FILE_TMPDIR/tree" || return
  copy_tree
  make_here
}

# copy_tree: the sources, as a fresh clone has them.
# copy_built: what has been built, too.
copy_tree() { cp -R "$ROOT/forkd.cpp" "$ROOT/Makefile" "$ROOT/test" "$ROOT/man" "$ROOT/README" .; }
copy_built() { cp -Rp "$BATS_FILE_TMPDIR/tree/." .; }

# by_itself COMMAND ...: a make that knows nothing of the one that runs the tests; what it says is in make.log.
by_itself() { env -u MAKEFLAGS -u MAKELEVEL "$@" >make.log 2>&1 || { cat make.log; return 1; }; }
make_here() { by_itself -u CPPFLAGS -u LDFLAGS CXXFLAGS=-O0 "${MAKE:-make}" "$@"; }

@test "make builds the tool, the header, the library and the examples, and clean removes them all" {
  copy_tree
  find . -type f | sort >../before
  copy_built
  for file in forkd forkd.h libforkd.a worker.so httpd.so; do [ -e $file ]; done
  make_here clean
  rm make.log
  find . -type f | sort >../after
  diff ../before ../after
}

@test "the tool needs the C library and the loader alone" {
  command -v ldd >/dev/null || skip "no ldd"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  case $CC in *musl*) skip "the ldd here is not musl's" ;; esac
  run ldd "$FORKD"
  [ "$status" -eq 0 ]
  ! echo "$output" | grep -v -E 'libc\.|ld-|linux-vdso|linux-gate|ld-musl'
}

@test "-pie and -static are for the tool, not for workers, and the build says that a static tool loads none" {
  copy_tree
  printf '#!/bin/sh\necho "$@"\n' >compiler
  chmod +x compiler
  make_here CC=./compiler CXX=./compiler LDFLAGS='-pie -static -s' SHARED=-shared forkd worker.so httpd.so
  grep -x -e '-rdynamic -pthread -o forkd forkd.o -pie -static -s' make.log
  grep -x -e '-shared -o worker.so worker.o -s' make.log
  grep -x -e '-shared -o httpd.so httpd.o -s' make.log
  grep -x 'forkd is static: it loads no shared objects, and runs commands only' make.log
  make_here CC=./compiler CXX=./compiler forkd
  never grep 'is static' make.log
}

@test "the tool exports the API and nothing else of its own" {
  command -v nm >/dev/null || skip "no nm"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  [ "$(nm -D "$FORKD" | awk '$2 == "T" && $3 ~ /forkd/ { print $3 }' | sort | tr '\n' ' ')" = \
    "forkd_run forkd_stop_fd forkd_worker_number forkd_yield " ]
}

@test "forkd.h is what forkd.cpp says, and compiles as C and as C++" {
  copy_built
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

# fake NAME: a compiler that notes how it was called, and makes an empty file.
fake() {
  mkdir -p fake
  cat >"fake/$1" <<'SH'
#!/bin/sh
echo "${0##*/} $*" >>commands
while [ "$1" != -o ]; do shift; done
: >"$2"
SH
  chmod +x "fake/$1"
}

@test "make runs the user's compilers with the user's flags, and again for other ones, and for nothing else" {
  copy_tree
  for name in cc c++ other; do fake $name; done
  flags='CC=fake/cc CXX=fake/c++ CPPFLAGS=-DPRE CXXFLAGS=-DOPT LDFLAGS=-Llink LDLIBS=-llib'
  make=${MAKE:-make}
  by_itself "$make" $flags
  [ "$(grep -c '^c++ .*-DPRE.* -DOPT.* -c -o [a-z]*\.o .*\.cpp$' commands)" -eq 3 ]
  [ "$(grep -c '^cc .*-o [a-z.]* .*-Llink.* -llib$' commands)" -eq 3 ]
  [ "$(wc -l <commands)" -eq 6 ]
  by_itself "$make" $flags
  [ "$(wc -l <commands)" -eq 6 ]
  # The environment is as good, and so is the other make.
  mv commands expected
  for command in "env $flags $make -e" "bmake $flags"; do
    command -v "${command%% *}" >/dev/null || continue
    rm -f commands
    by_itself "$make" clean
    by_itself $command
    diff expected commands
  done
  by_itself "$make" $flags
  for change in CPPFLAGS=-DOTHER CXXFLAGS=-DOTHER LDFLAGS=-Lother LDLIBS=-lother CC=fake/other CXX=fake/other; do
    echo "$change"
    for further in "$change" ''; do
      : >commands
      by_itself "$make" $flags $further
      [ "$(wc -l <commands)" -eq 6 ]
    done
  done
}

@test "two builds are the same, byte for byte" {
  [ "$(uname)" = Linux ] || skip "what ar(1) writes depends on the system"
  copy_tree
  make_here
  for file in forkd forkd.o libforkd.a worker.so httpd.so; do cmp $file "$BATS_FILE_TMPDIR/tree/$file"; done
}

@test "after make install a program elsewhere is compiled, linked and run; uninstall removes all" {
  copy_built
  mkdir elsewhere
  dest="$PWD/a root"
  where="PREFIX=/usr LIBDIR=/usr/lib/some-machine"
  make_here install DESTDIR="$dest" $where
  never grep -e ' -c ' make.log # nothing is built again
  (cd "$dest" && find . -type f | sort) >files
  for file in bin/forkd include/forkd.h lib/some-machine/libforkd.a lib/some-machine/pkgconfig/forkd.pc \
    share/man/man1/forkd.1 share/man/man3/forkd.3; do
    grep -x "./usr/$file" files
  done
  cat >elsewhere/app.c <<'C'
#include <forkd.h>
static int run(int argc, char **argv) { return !(argc == 1 && argv[1] == 0 && forkd_worker_number() == 0); }
int main(int argc, char **argv) { return forkd_run(run, argc, argv, 0); }
C
  "$CC" -I"$dest/usr/include" -o elsewhere/app elsewhere/app.c -L"$dest/usr/lib/some-machine" -lforkd -pthread $LDFLAGS
  elsewhere/app >>out 2>>log 3>&- &
  master=$!
  eventually logged "worker 0 (pid [0-9]*) exited with status 0"
  stops_with 0
  if command -v man >/dev/null; then
    for page in forkd_yield forkd_stop_fd forkd_worker_number forkd_run; do
      MANPATH="$dest/usr/share/man" man -w $page
    done
  fi
  make_here uninstall DESTDIR="$dest" $where
  [ -z "$(find "$dest" -type f -o -type l)" ]
}

@test "each folder of make install may be chosen" {
  copy_built
  folders="BINDIR=$PWD/b LIBDIR=$PWD/l INCLUDEDIR=$PWD/i MANDIR=$PWD/m"
  make_here install $folders
  for file in b/forkd l/libforkd.a l/pkgconfig/forkd.pc i/forkd.h m/man1/forkd.1 m/man3/forkd_run.3; do [ -e $file ]; done
  grep -x "Cflags: -I$PWD/i" l/pkgconfig/forkd.pc
  grep -x "Libs: -L$PWD/l -lforkd -pthread" l/pkgconfig/forkd.pc
  make_here uninstall $folders
  [ -z "$(find b l i m -type f -o -type l)" ]
}

@test "the README's application is built by what pkg-config says" {
  command -v pkg-config >/dev/null || skip "no pkg-config"
  copy_built
  make_here install PREFIX="$PWD/root"
  awk '$0 == "```" { inside = 0 } inside { print } /^```cpp/ { inside = ++number == 2 }' README >app.cpp
  export PKG_CONFIG_PATH=$PWD/root/lib/pkgconfig
  [ "$(pkg-config --modversion forkd)" = "$(./forkd --version | cut -d' ' -f2)" ]
  [ "$(pkg-config --define-variable=prefix=/moved --cflags --libs-only-L forkd | xargs)" = "-I/moved/include -L/moved/lib" ]
  "$CXX" -std=c++20 -o app app.cpp $(pkg-config --cflags --libs forkd) $LDFLAGS
  ./app >>out 2>>log 3>&- &
  master=$!
  eventually printed ping
  stops_with 0
}

@test "a Debian package is built from the tree, hardened, and its forkd runs" {
  [ -n "${PACKAGE:-}" ] || skip "only with PACKAGE=yes: it takes long"
  command -v dh >/dev/null && command -v dpkg-buildpackage >/dev/null || skip "no debhelper"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
  [ "$CC" = cc ] || skip "a package is for the system's own compiler"
  copy_tree
  mkdir -p debian/source
  printf 'Source: forkd\nMaintainer: nobody <nobody@localhost>\nBuild-Depends: debhelper-compat (= 13)\n\n' >debian/control
  printf 'Package: forkd\nArchitecture: any\nDepends: ${shlibs:Depends}\nDescription: process manager\n' >>debian/control
  printf 'forkd (1.0) unstable; urgency=low\n\n  * A test.\n\n -- nobody <nobody@localhost>  Thu, 01 Jan 1970 00:00:00 +0000\n' >debian/changelog
  echo '3.0 (native)' >debian/source/format
  cat >debian/rules <<'RULES'
#!/usr/bin/make -f
include /usr/share/dpkg/architecture.mk
export DEB_BUILD_MAINT_OPTIONS = hardening=+all
%:
	dh $@
override_dh_auto_test:
override_dh_auto_install:
	dh_auto_install -- PREFIX=/usr LIBDIR=/usr/lib/$(DEB_HOST_MULTIARCH)
RULES
  chmod +x debian/rules
  env -u MAKEFLAGS -u MAKELEVEL -u CC -u CXX -u CPPFLAGS -u LDFLAGS dpkg-buildpackage -b -d -us -uc >build.log 2>&1 || { tail -n 30 build.log; return 1; }
  dpkg -x ../forkd_1.0_*.deb root
  root/usr/bin/forkd --version
  [ -n "$(find root/usr/lib/*/ -name libforkd.a)" ]
  readelf -d root/usr/bin/forkd | grep BIND_NOW
  readelf -h root/usr/bin/forkd | grep 'DYN'
  grep -q -e '-D_FORTIFY_SOURCE' build.log
  run_forkd_of_package
}
run_forkd_of_package() {
  root/usr/bin/forkd "$W:steady" >>out 2>>log 3>&- &
  master=$!
  eventually logged "worker 0 .*started"
  stops_with 0
}

@test "make test says what is missing when there is no bats" {
  copy_tree
  run make_here test BATS=no-such-bats
  [ "$status" -ne 0 ]
  [[ $output == *"bats"*"install"* ]]
}
