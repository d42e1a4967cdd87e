#!/bin/sh
# Runs what the machine has of the linters, says what it skipped, and fails when one complains.

status=0
cd "$(dirname "$0")/../.." || exit 1

# lint TOOL DESCRIPTION COMMAND ...: the command, if there is that tool.
lint() {
  tool=$1 what=$2
  shift 2
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "lint: skipped $what: no $tool"
  elif "$@"; then
    echo "lint: $what: ok"
  else
    echo "lint: $what: failed"
    status=1
  fi
}

make forkd.h >/dev/null || exit 1

# (Which other manuals there are depends on the machine.)
lint mandoc "manual pages" sh -c \
  '! mandoc -T lint -W style man/forkd.1 man/forkd.3 2>&1 | grep -v -e "manual not found" -e "mandoc.db lacks"'
lint shellcheck "scripts" shellcheck test/*.sh test/*/*.sh .ci/run
# Bats runs each test in a subshell and sets variables that shellcheck does not know (2030, 2031,
# 2034, 2154), and a name may be an array in another test (2128, 2178). That a list of pids is split
# into words is meant (2046, 2086, 2206, 2207), and so are patterns (2053, 2062), a file that is called
# as a command is (2238), and `a= b=` (1007).
lint shellcheck "tests" shellcheck -S warning -s bats \
  -e SC2030,SC2031,SC2034,SC2154,SC2128,SC2178,SC2046,SC2086,SC2206,SC2207,SC2053,SC2062,SC2238,SC1007 \
  test/*.bats test/*.bash
lint clang-format "format of the code" clang-format --dry-run --Werror forkd.cpp
lint clang-tidy "forkd.cpp, by clang-tidy" clang-tidy --quiet forkd.cpp -- -std=c++20 -fno-exceptions -fno-rtti
lint cppcheck "forkd.cpp, by cppcheck" cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c++20 \
  --enable=warning,performance,portability forkd.cpp
exit $status
