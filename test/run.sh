#!/bin/sh
# Runs the suite, a few files at a time: most of its tests wait for something. What they run is built
# once before. Prints what failed and what was skipped, the numbers of each, and the time.
#
# usage: test/run.sh [bats]     with JOBS (default 8), and the variables of test/setup_suite.bash
set -u

bats=${1:-bats}
here=$(cd "$(dirname "$0")" && pwd)
command -v "$bats" >/dev/null || {
  echo "make test needs $bats: install bats, see README" >&2
  exit 1
}
results=$(mktemp -d) || exit 1
trap 'rm -rf "$results"' EXIT
echo "$(cat "$here"/*.bats | grep -c '^@test') tests; on two idle cores they take about a minute"
began=$(date +%s)

export BIN="$results/bin" # where the first that comes builds for all

# Each job takes the next file that nobody has taken yet; those that take long first: some that mostly
# wait, then the others by their size.
long='failures timeout_abort races container build giving_up roll timeout readme manual'
job() {
  # shellcheck disable=SC2045,SC2086 # no name of these has a space
  for path in $(printf "$here/%s.bats " $long) $(ls -S "$here"/*.bats); do
    file=${path##*/}
    ! mkdir "$results/$file.taken" 2>/dev/null || "$bats" "$path" >"$results/$file" 2>&1
  done
}
jobs=
for number in $(seq "${JOBS:-8}"); do
  job "$number" &
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
