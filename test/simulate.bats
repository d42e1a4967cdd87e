#!/usr/bin/env bats
# The master's loop on virtual time, against simulated workers and a kernel that fails (tools/simulate.cpp).
# A seed that breaks a rule is printed, with what went before.

load helper

@test "whatever happens, in whatever order, the pool keeps its rules" {
  "$BIN/simulate" "${SEED:-1}" "${SEEDS:-150}" >out || { tail -n 60 out; false; }
}

@test "the same seed gives the same run" {
  "$BIN/simulate" 7 20 -v >first
  "$BIN/simulate" 7 20 -v >second
  [ -s first ]
  cmp first second
}
