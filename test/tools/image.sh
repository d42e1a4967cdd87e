#!/bin/sh
# Builds root folders for containers, each with nothing but forkd, workers and what they need at run
# time, and prints what is in them:
#
#   musl    forkd, worker.so, httpd.so, the loader, which is musl's libc too
#   glibc   forkd, worker.so, httpd.so, the loader, libc
#   static  forkd and a command worker: a static program loads no shared objects
#
# usage: test/tools/image.sh [folder]     (default: build); with CC, CXX and CXXFLAGS as in Makefile
set -eu

cd "$(dirname "$0")/../.."
images=${1:-build}
CC=${CC:-cc} CXX=${CXX:-c++} CXXFLAGS=${CXXFLAGS:--Os}
export CC CXX CXXFLAGS
unset MAKEFLAGS MFLAGS MAKELEVEL LDFLAGS  # of the make that runs this

make=$(command -v make || command -v bmake)
objects=$images/objects
trap 'rm -rf "$objects"' EXIT
for image in musl glibc static objects; do rm -rf "${images:?}/$image"; done

# compile NAME CC CXX: forkd and the examples in the folder of that name, by the rules of the Makefile
# and without symbols.
compile() {
  mkdir -p "$objects/$1/test/examples"
  cp Makefile forkd.cpp "$objects/$1"
  cp test/examples/worker.cpp test/examples/httpd.cpp "$objects/$1/test/examples"
  (cd "$objects/$1" && "$make" CC="$2" CXX="$3" LDFLAGS=-s forkd worker.so httpd.so) >/dev/null
}

# fill IMAGE NAME FILE ...: its folder with the forkd of that name, and with each further file at the path
# it has here.
fill() {
  image=$images/$1
  mkdir -p "$image"
  cp "$objects/$2/forkd" "$image"
  shift 2
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

# loader NAME: that of the forkd of that name. Its path stands in the program, and tells which libc it is
# for.
loader() { tr -c '[:graph:]' '\n' <"$objects/$1/forkd" | grep '^/.*/ld[-.]' | head -n 1; }

has_musl=$(command -v musl-gcc) || :
# Both at the same time: a compiler has one core for itself.
[ -z "$has_musl" ] || compile musl musl-gcc musl-gcc &
compile own "$CC" "$CXX"
wait $!
case $(loader own) in
  */ld-musl-*)
    echo "glibc: skipped, $CC is for musl"
    musl=own
    ;;
  *)
    # Every path that ldd prints is needed; the vdso has none.
    # shellcheck disable=SC2046
    fill glibc own $(ldd "$objects"/own/forkd "$objects"/own/*.so | tr -s '[:space:]' '\n' |
      grep '^/.*[^:]$' | sort -u)
    cp "$objects"/own/*.so "$images/glibc"
    show glibc
    [ -n "$has_musl" ] || {
      echo "musl, static: skipped, there is no musl-gcc"
      exit
    }
    CC=musl-gcc musl=musl
    ;;
esac

fill musl $musl "$(loader $musl)"
cp "$objects/$musl"/*.so "$images/musl"
show musl

"$CC" -static -pthread -s -o "$objects/$musl/forkd" "$objects/$musl/forkd.o"
fill static $musl
"$CC" -O2 -static -s -o "$images/static/ping" test/workers/ping.c
show static
