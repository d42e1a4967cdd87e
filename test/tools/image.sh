#!/bin/sh
# Builds root folders for containers, each with nothing but forkd, a worker and what they need at
# run time, and prints what is in them:
#
#   musl    forkd, worker.so, the loader, which is musl's libc too
#   glibc   forkd, worker.so, the loader, libc
#   static  forkd and a command worker: a static program loads no shared objects
#
# usage: test/tools/image.sh [folder]     (default: build); with CC, CXX and CXXFLAGS as in Makefile
set -eu

cd "$(dirname "$0")/../.."
images=${1:-build}
CC=${CC:-cc} CXX=${CXX:-c++} CXXFLAGS=${CXXFLAGS:--O2}
export CC CXX CXXFLAGS
unset MAKEFLAGS MFLAGS MAKELEVEL LDFLAGS  # of the make that runs this

make=$(command -v make || command -v bmake)
objects=$images/objects
trap 'rm -rf "$objects"' EXIT
for image in musl glibc static; do rm -rf "${images:?}/$image"; done

# compile FLAGS TARGET ...: by the rules of the Makefile, but not in its folder; without symbols.
compile() {
  flags=$1
  shift
  rm -rf "$objects"
  mkdir -p "$objects/test/examples"
  cp Makefile forkd.cpp "$objects"
  cp test/examples/worker.cpp "$objects/test/examples"
  (cd "$objects" && "$make" CC="$CC" CXX="$CXX" LDFLAGS="-s $flags" "$@") >/dev/null
}

# fill IMAGE FILE ...: its folder with forkd, and with each further file at the path it has here.
fill() {
  image=$images/$1
  shift
  mkdir -p "$image"
  cp "$objects/forkd" "$image"
  for file; do
    mkdir -p "$image$(dirname "$file")"
    cp "$file" "$image$file"
  done
}

# show IMAGE: its files and their sizes in bytes.
show() {
  (cd "$images/$1" && find . -type f -exec wc -c {} \; | LC_ALL=C sort -k 2) | awk -v name="$1" '
    { sum += $1; sub(/^\./, "", $2); line[NR] = sprintf("  %8d %s", $1, $2) }
    END { printf "%s: %d files, %d bytes\n", name, NR, sum; for (i = 1; i <= NR; i++) print line[i] }'
}

# The path of the loader stands in the program, and tells which libc it is for.
compile '' forkd worker.so
loader=$(tr -c '[:graph:]' '\n' <"$objects/forkd" | grep '^/.*/ld[-.]' | head -n 1)
case $loader in
  */ld-musl-*)
    echo "glibc: skipped, $CC is for musl"
    ;;
  *)
    # Every path that ldd prints is needed; the vdso has none.
    # shellcheck disable=SC2046
    fill glibc $(ldd "$objects/forkd" "$objects/worker.so" | tr -s '[:space:]' '\n' |
      grep '^/.*[^:]$' | sort -u)
    cp "$objects/worker.so" "$images/glibc"
    show glibc
    command -v musl-gcc >/dev/null || {
      echo "musl, static: skipped, there is no musl-gcc"
      exit
    }
    CC=musl-gcc CXX=musl-gcc
    compile '' forkd worker.so
    loader=$(tr -c '[:graph:]' '\n' <"$objects/forkd" | grep '^/lib/ld-musl-')
    ;;
esac

fill musl "$loader"
cp "$objects/worker.so" "$images/musl"
show musl

compile -static forkd
fill static
"$CC" -O2 -static -s -o "$images/static/ping" test/workers/ping.c
show static
