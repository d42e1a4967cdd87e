#!/usr/bin/env bats
# Races that many reloads in a row make wide.

load helper

@test "quick reloads of a pool of one, one after the other, wait for no clock" {
  start_one -w 0
  eventually runs 1 1
  for round in $(seq "${RELOADS:-50}"); do
    signal HUP
    eventually logged_times "$round" "reload complete"
  done
  # One that missed its moment is over when the master looks the next time: a second later.
  sed -n 's/.*reload complete after \([0-9.]*\) s.*/\1/p' log | sort -n | awk '
    { took[NR] = $1 }
    END {
      for (i = 1; i <= NR; i++) if (took[i] >= took[int((NR + 1) / 2)] + 0.9) late++
      printf "%d of %d took a second more than most\n", late, NR
      exit late > NR / 20
    }'
}
