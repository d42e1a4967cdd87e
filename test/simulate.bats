#!/usr/bin/env bats
# The master's loop on virtual time, against simulated workers and a kernel that fails (simulate.cpp).
# A seed that breaks a rule says which, and what went before; `simulate SEED 1 -v` shows all of it.

load helper

@test "whatever happens, in whatever order, the pool keeps its rules" {
  "$BIN/simulate" "${SEED:-1}" "${SEEDS:-800}"
}

@test "the same seed gives the same run" {
  "$BIN/simulate" 7 20 -v >first
  "$BIN/simulate" 7 20 -v >second
  [ -s first ]
  cmp first second
}
