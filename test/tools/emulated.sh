#!/bin/sh
# The core of the tests on another processor: cross-built, and run by an emulator that runs each
# process of forkd in a process of its own. So fork, signals and the memory they share are the real
# thing. Tests that an emulator cannot run say so themselves (not_emulated in test/helper.bash).
#
# usage: test/tools/emulated.sh [architecture [bats]]
#        aarch64 (the default), armhf (32 bits) or s390x (big endian)
set -eu

arch=${1:-aarch64} bats=${2:-bats}
cd "$(dirname "$0")/../.."

subjects='command_line workers signals'
case $arch in
  aarch64) target=aarch64-linux-gnu processor=aarch64 subjects="$subjects commands reload_code reload_trial shutdown" ;;
  armhf) target=arm-linux-gnueabihf processor=arm subjects="$subjects commands reload_code reload_trial shutdown" ;;
  s390x) target=s390x-linux-gnu processor=s390x ;;
  *)
    echo "emulated: unknown architecture '$arch': must be aarch64, armhf or s390x" >&2
    exit 2
    ;;
esac
CC=$target-gcc CXX=$target-g++
qemu=$(command -v qemu-$processor || command -v qemu-$processor-static || :)
for tool in "$bats" "$CC" "$CXX" "${qemu:-qemu-$processor}"; do
  command -v "$tool" >/dev/null || {
    echo "emulated: skipped $arch, there is no $tool (Debian: bats g++-$target qemu-user)"
    exit 0
  }
done
unset MAKEFLAGS MFLAGS MAKELEVEL CPPFLAGS CXXFLAGS LDFLAGS # of the make that runs this
make=$(command -v make || command -v bmake)

# A copy of the tree, since the tests build beside what they test.
build=$(pwd)/build/$arch
rm -rf "$build"
mkdir -p "$build"
cp -R Makefile forkd.cpp test man "$build"
cd "$build"
"$make" -s CC=$CC CXX=$CXX CXXFLAGS='-O2 -Werror' forkd forkd.h libforkd.a

# The kernel runs no foreign program by itself, so what the tests start is the emulator.
cat >emulated-forkd <<WRAPPER
#!/bin/sh
exec "$qemu" -L "\${QEMU_LD_PREFIX:-/usr/$target}" "$build/forkd" "\$@"
WRAPPER
chmod +x emulated-forkd

files=
for subject in $subjects; do files="$files test/$subject.bats"; done
# shellcheck disable=SC2086 # a list of files
EMULATED=$arch FORKD=$build/emulated-forkd CC=$CC CXX=$CXX "$bats" -T $files
