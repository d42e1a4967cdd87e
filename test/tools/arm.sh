#!/bin/sh
# The core of the tests on 64-bit Arm: cross-built, and run by an emulator that runs each process of
# forkd in a process of its own. So fork, signals and the memory they share are the real thing.
#
# Left out is what looks at a process with the host's eyes, which see the emulator: its signal
# dispositions, its system calls, its limits; and what counts the tenths of a second that a worker
# lives, which an emulator needs to start.
#
# usage: test/tools/arm.sh [bats]     the program that runs the tests
set -eu

bats=${1:-bats}
target=aarch64-linux-gnu
cd "$(dirname "$0")/../.."

CC=$target-gcc CXX=$target-g++
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || :)
for tool in "$bats" "$CC" "$CXX" "${qemu:-qemu-aarch64}"; do
  command -v "$tool" >/dev/null || {
    echo "arm: skipped, there is no $tool (Debian: bats g++-aarch64-linux-gnu qemu-user)"
    exit 0
  }
done
unset MAKEFLAGS MFLAGS MAKELEVEL CXXFLAGS LDFLAGS # of the make that runs this
make=$(command -v make || command -v bmake)

# A copy of the tree, since the tests build beside what they test.
build=$(pwd)/build/arm
rm -rf "$build"
mkdir -p "$build"
cp -R Makefile forkd.cpp test man "$build"
cd "$build"
"$make" CC=$CC CXX=$CXX forkd forkd.h worker.so >/dev/null

# The kernel runs no foreign program by itself, so what the tests start is the emulator.
cat >forkd-arm <<EOF
#!/bin/sh
exec "$qemu" -L "\${QEMU_LD_PREFIX:-/usr/$target}" "$build/forkd" "\$@"
EOF
chmod +x forkd-arm

# not_here FILE NAME: a test, by the beginning of its name, that is skipped.
not_here() {
  grep -q "^@test \"$2" "test/$1.bats" || {
    echo "arm: test/$1.bats has no test '$2...' any more" >&2
    exit 1
  }
  sed "/^@test \"$2/a\\
  skip \"not under an emulator\"" "test/$1.bats" >edited
  mv edited "test/$1.bats"
}
not_here workers 'a worker starts with the signal mask and the dispositions'
not_here commands 'a command starts with the signal dispositions'
not_here workers 'function workers are called forkd'
# It runs what it has built itself.
not_here shutdown 'a second signal is one that came'
# Hundreds of emulators are too much to ask for.
not_here workers 'hundreds of workers'
not_here signals 'USR1 adds no worker beyond the 1024th'
not_here reload 'a reload works for a pool of 1024'

FORKD=$build/forkd-arm CC=$CC CXX=$CXX "$bats" -T test/command_line.bats test/workers.bats test/commands.bats \
  test/signals.bats test/reload.bats test/shutdown.bats
