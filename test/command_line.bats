#!/usr/bin/env bats
# The command line: what is accepted, and how what is not is refused.

load helper

# refused MESSAGE ARGUMENT ...: one line that holds MESSAGE, status 2, nothing on standard output.
refused() {
  local message=$1
  shift
  run --separate-stderr "$FORKD" "$@"
  echo "status $status, output '$output', stderr '$stderr'"
  [ "$status" -eq 2 ] && [ -z "$output" ] && [ "${#stderr_lines[@]}" -eq 1 ] || return 1
  case $stderr in
    "forkd: "*"$message"*"--help"*) ;;
    *) return 1 ;;
  esac
}

# accepted ARGUMENT ...: the command line is in order, as shows in that forkd goes on to look for the code.
accepted() {
  run "$FORKD" "$@"
  echo "$*: status $status, output '$output'"
  [ "$status" -eq 1 ] && [[ $output == *"cannot load "* ]]
}

bats_require_minimum_version 1.5.0

@test "--help prints the usage on standard output and exits with 0" {
  for option in -h --help; do
    run --separate-stderr "$FORKD" $option
    [ "$status" -eq 0 ]
    [ -z "$stderr" ]
    [[ $output == "usage: forkd "* ]]
  done
}

@test "--help lists every option of the manual" {
  run "$FORKD" --help
  sed -n 's/^\.It Fl \([a-zA-Z]\) .*Fl Fl \([a-z-]*\).*/-\1, --\2/p; s/^\.It Fl \([a-zA-Z]\) , Fl Fl \([a-z-]*\)$/-\1, --\2/p' \
    "$ROOT/man/forkd.1" | sort -u >options
  [ "$(wc -l <options)" -ge 8 ]
  while read -r option; do [[ $output == *"$option"* ]] || { echo "no $option"; return 1; }; done <options
}

@test "--version prints one line and exits with 0" {
  for option in -V --version; do
    run --separate-stderr "$FORKD" $option
    [ "$status" -eq 0 ]
    [[ $output =~ ^forkd\ [0-9]+\.[0-9]+$ ]]
  done
}

@test "--help into a full device is a failure" {
  [ -e /dev/full ] || skip "no /dev/full"
  run sh -c '"$FORKD" --help >/dev/full'
  [ "$status" -eq 1 ]
}

@test "no worker is a usage error" { refused "no worker"; }

@test "an empty worker is a usage error" { refused "empty worker ''" ''; }

@test "a shared object without a symbol is a usage error that shows the way" {
  refused "./x.so:SYMBOL" ./x.so
}

@test "an empty symbol is a usage error" { refused "empty symbol" ./x.so:; }

@test "an empty path is a usage error" { refused "empty path" :run; }

@test "a path that is longer than the system allows is a usage error" {
  [ "$(uname)" = Linux ] || skip "knows the longest path of Linux"
  longest=$(printf './%.0s' $(seq 2047))x
  accepted "$longest:run"
  refused "the path of a worker has at most 4095 bytes" "x$longest:run"
  # One without a slash is taken from the current folder, which adds to it.
  longest=$(printf '%04093d' 0)
  accepted "$longest:run"
  refused "the path of a worker has at most 4095 bytes" "0$longest:run"
}

@test "an unknown option is named" {
  refused "unknown option '-x'" -x ./w.so:run
  refused "unknown option '-x'" -l info -xV ./w.so:run
  refused "unknown option '--nonsense'" --nonsense ./w.so:run
  refused "option '--help' takes no value" --help=yes
  refused "unknown option '-x'" --grace=3 -xh ./w.so:run
}

@test "an option without its argument is named" {
  refused "option '-n' needs an argument" -n
  refused "option '--grace' needs an argument" --grace
}

@test "a number of workers that is none, or out of range, is a usage error" {
  for number in 0 -1 1025 99999999999999999999 x 4x '' ' 4' 0x10 1.5 +2; do
    refused "'$number': must be a whole number from 1 to 1024" -n "$number" ./w.so:run
  done
}

@test "seconds that are none, or negative, are a usage error" {
  for seconds in -1 x 4x '' . 1e3 inf nan 0x10 ' 1' 1,5 99999999999999999999; do
    refused "wrong grace period '$seconds': must be seconds" -g "$seconds" ./w.so:run
    refused "wrong timeout '$seconds': must be seconds" -t "$seconds" ./w.so:run
  done
}

@test "seconds may have a fraction" {
  run_forkd -g 0.25 -t .5 "$W:steady"
  eventually logged "worker 0 (pid [0-9]*) started"
  stops_with 0
}

@test "a level that does not exist is a usage error that lists those that do" {
  refused "'loud': must be debug, info, warning, error or critical" -l loud ./w.so:run
  refused "must be debug" -l INFO ./w.so:run
}

@test "a timeout for a command, which cannot yield, is a usage error" {
  refused "'sleep' is a command" -t 1 sleep 1
}

@test "a newline in an argument does not break the line" {
  refused "wrong log level 'a?b'" -l $'a\nb' ./w.so:run
}

@test "options end at the first operand" {
  run_forkd "$W:arguments" -n 7 --help
  eventually printed "worker 0: \[$W:arguments\] \[-n\] \[7\] \[--help\] end"
  has_workers 1
}

@test "-- ends the options" {
  run_forkd -n 2 -- "$W:steady"
  eventually has_workers 2
}

@test "long options may be abbreviated and may take their argument after an equals sign" {
  run_forkd --num=2 --log-level=debug "$W:steady"
  eventually has_workers 2
}
