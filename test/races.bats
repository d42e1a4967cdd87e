#!/usr/bin/env bats
# Races made wide: steps in every order (room.cpp), and many reloads in a row.

load helper

@test "never more workers are let go than there is room, whatever the order of the steps" {
  "$BIN/room" "${ROLLS:-100}"
}

@test "a request that comes while a worker takes room is not lost" {
  "$BIN/room" "${ROLLS:-100}" signals
}

@test "a hundred quick reloads of a pool of one wait for no clock" {
  start_one
  eventually runs 1 1
  for round in $(seq 100); do
    deploy two
    signal HUP
    eventually logged_times "$round" "reload complete"
  done
  # A reload that missed its moment is over when the master looks the next time: a second later.
  slow=$(grep -c "reload complete after [1-9]" log) || :
  echo "$slow of 100 took a second or more"
  [ "$slow" -le 5 ]
}
