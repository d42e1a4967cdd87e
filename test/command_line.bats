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
  [ "$status" -eq 1 ]
  [[ $output == *"cannot load "* ]]
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

@test "--help names forms, defaults, limits and signals" {
  "$FORKD" --help >help
  [ -z "$(tail -c 1 help)" ]
  tr -s ' \n' ' ' <help >text
  for words in "usage: forkd \[-hV\] \[-b address\]... \[-g seconds\] \[-l level\] \[-n number\] \[-t seconds\] \[-w seconds\] worker \[argument ...\]" \
    "PATH:SYMBOL" "--bind ADDRESS listen on V4:PORT, \[V6\]:PORT, :PORT or a path with a slash" \
    "--grace SECONDS [^-]*0: for ever (default 8)" "--log-level LEVEL debug, info, warning, error or critical (default info)" \
    "--num-workers N initial number of workers, 1 to 1024 (default 1)" "--timeout SECONDS [^-]*0: never (default 0)" \
    "--warm-up SECONDS .*-t); 0: [^-]*(default 8)" "USR1 adds .*USR2 removes .*HUP .*INT, QUIT and TERM shut down"; do
    grep -q -e "$words" text || { echo "no $words"; return 1; }
  done
}

@test "--version prints one line and exits with 0" {
  for option in -V --version; do
    run --separate-stderr "$FORKD" $option
    [ "$status" -eq 0 ]
    [[ $output =~ ^forkd\ [0-9]+\.[0-9]+$ ]]
  done
  # The log names the same one.
  run "$FORKD" ./nowhere.so:run
  [[ ${lines[0]} == *"info: $("$FORKD" -V) runs ./nowhere.so:run, workers: 1" ]]
}

@test "the first of --help and --version wins, in a group of letters, too, and nothing is started" {
  for options in -hV '-h -V' '-n 3 -l debug --help --version' '-h -x'; do
    [[ $("$FORKD" $options "$W:steady" 2>&1) == "usage: "* ]]
  done
  for options in -Vh '-V -h' '-V -n 0'; do
    [[ $("$FORKD" $options "$W:steady" 2>&1) == "forkd "*.* ]]
  done
}

@test "--help and --version into a full device, or a closed one, are a failure" {
  [ -e /dev/full ] || skip "no /dev/full"
  for option in --help --version; do
    run sh -c "\"\$FORKD\" $option >/dev/full"
    [ "$status" -eq 1 ]
    run sh -c "\"\$FORKD\" $option >&-"
    [ "$status" -eq 1 ]
  done
}

@test "no worker is a usage error" { refused "no worker"; }

@test "an empty worker is a usage error" { refused "empty worker ''" ''; }

@test "a shared object without a symbol is a usage error that shows the way" {
  refused "'./x.so' names no function: give ./x.so:SYMBOL" ./x.so
  refused "'.so' names no function" .so
  # A name that only has .so within it is that of a command.
  printf '#!/bin/sh\ntouch started; exec sleep 1000\n' >x.so.sh
  chmod +x x.so.sh
  run_forkd ./x.so.sh
  eventually [ -e started ]
}

@test "an empty symbol is a usage error" { refused "empty symbol" ./x.so:; }

@test "an empty path is a usage error" { refused "empty path" :run; }

@test "the last colon ends the path, and what follows it is the symbol" {
  cp "$W" we:ird.so
  run_forkd we:ird.so:steady
  eventually has_workers 1
  # A slash in the symbol does not make a path of the name before it.
  cp "$W" plain.so
  run "$FORKD" plain.so:no/where
  [ "$status" -eq 1 ]
  [[ $output == *"no function 'no/where' is exported"* ]]
}

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
  refused "unknown option '--nonsense' (" --nonsense=3 ./w.so:run
  # One that fits two options is none.
  refused "unknown option '--' (" --=x ./w.so:run
}

@test "an option without its argument is named" {
  refused "option '-n' needs an argument" -n
  refused "option '--grace' needs an argument" --grace
  refused "option '-b' needs an argument" -n 2 -b
}

@test "a number of workers is decimal, from 1 to 1024, and the last one counts" {
  for number in 1 01 9 010 1024; do
    accepted -n 7 -n "$number" ./missing.so:run
    [[ $output == *", workers: $((10#$number))"$'\n'* ]]
  done
}

@test "a number of workers that is none, or out of range, is a usage error" {
  for number in 0 -1 1025 4294967297 99999999999999999999 x 4x '' ' 4' '4 ' 0x10 1.5 +2 1e1 :; do
    refused "'$number': must be a whole number from 1 to 1024" -n "$number" ./w.so:run
  done
}

@test "seconds that are none, or negative, are a usage error" {
  for seconds in -1 -0 +5 x 4x '' . 1.2.3 1e3 inf nan 0x10 ' 1' '1 ' 1,5 1000000000.5 1000000001 99999999999999999999; do
    refused "wrong grace period '$seconds': must be seconds from 0 to 1000000000, such as" -g "$seconds" ./w.so:run
  done
  for seconds in -1 '' 1000000001; do
    refused "wrong timeout '$seconds': must be seconds" -t "$seconds" ./w.so:run
    refused "wrong warm-up '$seconds': must be seconds" -w "$seconds" ./w.so:run
  done
}

@test "seconds go from 0 to a billion" {
  for seconds in 0 0.0 .0 00 9 01.50 8. 999999999.999 1000000000 1000000000.0; do
    accepted -g "$seconds" -t "$seconds" -w "$seconds" ./missing.so:run
  done
}

@test "a time that is very short is not 0, which would mean never" {
  # For a command only a timeout that is off is in order.
  for seconds in 0.0001 .0000000000000000000000000001; do
    refused "'false' is a command" -t "$seconds" false
  done
  run_forkd -g 0.0001 "$W:hangs"
  eventually printed hangs
  stops_with 3
}

@test "a timeout of 0 is none, and a command may have it" {
  for seconds in 0 0.0; do
    rm -f log
    run_forkd -t "$seconds" sleep 1000
    eventually has_workers 1
    stops_with 0
  done
}

@test "seconds may have a fraction" {
  run_forkd -g 4.25 -t 4.5 "$W:steady"
  eventually logged "worker 0 (pid [0-9]*) started"
  stops_with 0
}

@test "a level that does not exist is a usage error that lists those that do" {
  refused "'loud': must be debug, info, warning, error or critical" -l loud ./w.so:run
  for level in INFO inf infos debu warn err crit notice emergency '' 6; do
    refused "'$level': must be debug" -l "$level" ./w.so:run
  done
}

@test "a timeout for a command, which cannot yield, is a usage error" {
  refused "'false' is a command" -t 1 false
}

# The order of the lines in one log says which time is the longest.
@test "the grace period and the warm-up are 8 seconds if nothing else is said" {
  graces='' warm_ups=''
  for option in '-g 9 -w 9' '' '-g 7 -w 7'; do
    run_forkd $option "$W:hangs"
    graces="$master $graces"
    run_forkd $option sleep 1000
    warm_ups="$master $warm_ups"
  done
  eventually logged_times 6 "started$"
  eventually printed_times 3 hangs
  for pid in $graces; do terms="$pid ${terms:-}"; done
  for pid in $warm_ups; do hups="$pid ${hups:-}"; done
  kill -TERM $terms
  kill -HUP $hups
  eventually logged_times 3 "was ended by signal 9"
  eventually logged_times 3 "reload succeeded"
  [ "$(sed -n 's/forkd.\([0-9]*\).*was ended by signal 9.*/\1/p' log | tr '\n' ' ')" = "$graces" ]
  [ "$(sed -n 's/forkd.\([0-9]*\).*reload succeeded.*/\1/p' log | tr '\n' ' ')" = "$warm_ups" ]
}

@test "no control character in an argument breaks the line, and other characters stay" {
  refused "wrong log level 'a?b'" -l $'a\nb' ./w.so:run
  refused "wrong log level '?a? b??'" -l $'\001a\t b\033\177' ./w.so:run
  refused "wrong log level 'größer ~!'" -l 'größer ~!' ./w.so:run
}

@test "a very long argument is cut, and the line still ends with the hint" {
  refused "wrong log level '00000" -l "$(printf '%0100000d' 0)" ./w.so:run
  [ "${#stderr}" -lt 1000 ]
  refused "the port must be a number" -b "127.0.0.1:$(printf '%0300d' 0)" ./w.so:run
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

@test "an option may be written in each of its forms" {
  for form in '-n 3' -n3 '--num-workers 3' --num-workers=3 '--num 3' --n=3; do
    accepted $form ./missing.so:run
    [[ $output == *", workers: 3"* ]]
  done
  # Each of these has another default, and shows in what is refused.
  for option in bind:address grace:'grace period' log-level:'log level' timeout:timeout warm-up:warm-up; do
    letter=${option%"${option#?}"} name=${option%:*}
    for form in -$letter --$name --$letter; do
      refused "wrong ${option#*:} '-x'" $form -x ./w.so:run
      refused "wrong ${option#*:} 'x'" "$form$([ ${#form} -eq 2 ] || echo '=')x" ./w.so:run
    done
  done
}

@test "long options may be abbreviated and may take their argument after an equals sign" {
  run_forkd --num=2 --log-level=debug "$W:steady"
  eventually has_workers 2
}
