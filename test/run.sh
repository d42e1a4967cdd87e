#!/bin/sh
# Runs the suite, a few files at a time: most of its tests wait for something. What they run is built
# once before. Prints what failed and what was skipped, the numbers of each, and the time.
#
# usage: test/run.sh [BATS [NAME ...]]     the program, and those files test/NAME.bats only; with JOBS
#                                          (default 10), and the variables of test/setup_suite.bash
set -u

bats=${1:-bats}
[ $# -eq 0 ] || shift
here=$(cd "$(dirname "$0")" && pwd)
cd "$here" || exit 1
command -v "$bats" >/dev/null || {
  echo "make test needs $bats: install bats, see README" >&2
  exit 1
}
results=$(mktemp -d) || exit 1
trap 'rm -rf "$results"' EXIT
# Those that take long come first, then the others by their size. (A name that is not there any more is
# left out.)
long='forkd_run service_manager build reload_roll reload_back reload_trial state restart timeout readme manual'
[ $# -gt 0 ] || {
  # shellcheck disable=SC2012,SC2046 # names without spaces
  set -- $(for name in $long; do [ ! -e "$name.bats" ] || echo "$name"; done) \
    $(ls -S ./*.bats | sed 's|./\(.*\).bats|\1|')
  echo "$(cat ./*.bats | grep -c '^@test') tests; on two idle cores they take about a minute"
}
began=$(date +%s)

export BIN="$results/bin" # where the first that comes builds for all

# Each job takes the next file that nobody has taken yet.
job() {
  for name; do
    ! mkdir "$results/$name.taken" 2>/dev/null ||
      "$bats" "$here/$name.bats" >"$results/$name.bats" 2>&1
  done
}
jobs=
for _ in $(seq "${JOBS:-10}"); do
  job "$@" &
  jobs="$jobs $!"
done
# shellcheck disable=SC2086 # a list of pids
wait $jobs

cat "$results"/*.bats | awk -v seconds=$(($(date +%s) - began)) '
  /^ok .*# skip/ { skipped++; print; next }
  /^ok / { passed++; next }
  /^1\.\.[0-9]+$/ { planned += substr($0, 4); next }
  /^not ok / { failed++ }
  { print }
  END {
    missing = planned - passed - failed - skipped
    if (missing) print missing " tests did not run"
    printf "%d passed, %d failed, %d skipped in %d s\n", passed, failed + missing, skipped, seconds
    exit failed + missing || !passed
  }'
