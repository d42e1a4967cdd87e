#!/usr/bin/env bats
# The command line: what is accepted, and how what is not is refused.

load helper

# split LINE: "ARGUMENTS => REST" into those two. (Not by %%, which takes long for a long line.)
split() {
  [[ $1 =~ ^(.*)" => "(.*)$ ]]
  arguments=${BASH_REMATCH[1]} rest=${BASH_REMATCH[2]}
}

# forkd_with WORDS: runs forkd with those arguments, written as in a shell. Sets status, and what it
# says in out and err.
forkd_with() {
  status=0
  eval "\"\$FORKD\" $1" >out 2>err </dev/null || status=$?
}

# refused LINE: "ARGUMENTS => MESSAGE". Forkd ends with 2, says nothing on standard output and one line
# on the other, which holds the message and ends with a hint.
refused() {
  local line= arguments rest
  split "$1"
  forkd_with "$arguments"
  { read -r line && ! read -r _; } <err && [ "$status" -eq 2 ] && [ ! -s out ] &&
    [[ $line == "forkd: "*"$rest"*"see 'forkd --help')" ]] && return
  echo "wanted: ${1::300}" && echo "status $status, $(cat out err | head -c 2000)"
  return 1
}

# accepted LINE: "ARGUMENTS => WORKERS". Forkd goes on to look for the code, and for that many workers.
accepted() {
  local first= second= arguments rest
  split "$1"
  forkd_with "$arguments"
  { read -r first && read -r second; } <err
  [ "$status" -eq 1 ] && [[ $first == *", workers: $rest" && $second == *"cannot load "* ]] && return
  echo "wanted: ${1::300}" && echo "status $status, $(cat out err | head -c 2000)"
  return 1
}

@test "what is wrong is named in one line with a hint, and ends forkd with 2" {
  while IFS= read -r line; do refused "$line"; done <<'END'
 => no worker
-n 3 -l debug => no worker
'' => no worker
./x.so => './x.so' names no function: give ./x.so:SYMBOL
.so => '.so' names no function
./x.so: => empty symbol
:run => empty path
-x ./w.so:run => unknown option '-x'
-n 2 -é ./w.so:run => unknown option '-
-l info -xV ./w.so:run => unknown option '-x'
--grace=3 -xh ./w.so:run => unknown option '-x'
--nonsense ./w.so:run => unknown option '--nonsense' (
--nonsense=3 ./w.so:run => unknown option '--nonsense' (
--=x ./w.so:run => unknown option '--' (
--help=yes => option '--help' takes no value
-n => option '-n' needs an argument
--grace => option '--grace' needs an argument
-n 2 -b => option '-b' needs an argument
-t 1 false => 'false' is a command
-t 0.0001 false => 'false' is a command
-t .0000000000000000000000000001 false => 'false' is a command
-l loud ./w.so:run => 'loud': must be debug, info, warning, error or critical
-l $'a\nb' ./w.so:run => wrong --log-level 'a?b'
-l $'\001a\t b\033\177' ./w.so:run => wrong --log-level '?a? b??'
-l 'größer ~!' ./w.so:run => wrong --log-level 'größer ~!'
END
}

@test "a value that is none, or out of range, is named together with what would be right" {
  for value in 0 -1 1025 4294967297 99999999999999999999 x 4x '' ' 4' '4 ' 0x10 1.5 +2 1e1 :; do
    refused "-n '$value' ./w.so:run => '$value': must be a whole number from 1 to 1024"
  done
  for value in -1 -0 +5 x 4x '' . 1.2.3 1e3 inf nan 0x10 ' 1' '1 ' 1,5 1000000000.5 1000000001 99999999999999999999; do
    refused "-g '$value' ./w.so:run => wrong --grace '$value': must be seconds from 0 to 1000000000, such as"
  done
  for value in -1 '' 1000000001; do
    refused "-t '$value' ./w.so:run => wrong --timeout '$value': must be seconds"
    refused "-w '$value' ./w.so:run => wrong --warm-up '$value': must be seconds"
  done
  for value in INFO inf infos debu warn err crit notice emergency '' 6; do
    refused "-l '$value' ./w.so:run => '$value': must be debug"
  done
}

@test "an option may be written in each of its forms" {
  while read -r line; do accepted "$line"; done <<'END'
./missing.so:run => 1
-n 1 ./missing.so:run => 1
-n 01 ./missing.so:run => 1
-n 010 ./missing.so:run => 10
-n 1024 ./missing.so:run => 1024
-n 7 -n 9 ./missing.so:run => 9
-n3 ./missing.so:run => 3
--num-workers 3 ./missing.so:run => 3
--num-workers=3 ./missing.so:run => 3
--num 3 ./missing.so:run => 3
--n=3 ./missing.so:run => 3
-n 2 -- ./missing.so:run => 2
-n 2 ./missing.so:run -n 7 --help => 2
END
  for value in 0 0.0 .0 00 9 01.50 8. 999999999.999 1000000000 1000000000.0; do
    accepted "-g $value -t $value -w $value ./missing.so:run => 1"
  done
  # Each of these has another default, and shows in what is refused.
  for option in bind grace log-level timeout warm-up; do
    letter=${option%"${option#?}"} name=$option
    for form in -$letter --$name --$letter; do refused "$form -x ./w.so:run => wrong --$option '-x'"; done
    for form in -$letter --$name= --$letter=; do refused "${form}x ./w.so:run => wrong --$option 'x'"; done
  done
}

@test "the path of a worker may be as long as the system allows" {
  [ "$(uname)" = Linux ] || skip "knows the longest path of Linux"
  printf -v longest './%.0s' {1..2047}
  looked_for "${longest}x:run"
  refused "x${longest}x:run => the path of a worker has at most 4095 bytes"
  # One without a slash is taken from the current folder, which adds to it.
  printf -v longest '%04093d' 0
  looked_for "$longest:run"
  refused "0$longest:run => the path of a worker has at most 4095 bytes"
}

looked_for() {
  forkd_with "$1"
  [ "$status" -eq 1 ]
  grep -q "critical: cannot load " err
}

@test "a very long argument is cut, and the line still ends with the hint" {
  printf -v long '%0100000d' 0
  refused "-l $long ./w.so:run => wrong --log-level '00000"
  [ "$(wc -c <err)" -lt 1000 ]
  refused "-b 127.0.0.1:${long::300} ./w.so:run => the port must be a number"
}

@test "--help prints the options of the manual, their defaults and the signals" {
  for option in -h --help; do
    forkd_with "$option"
    [ "$status" -eq 0 ]
    [ ! -s err ]
  done
  [ -z "$(tail -c 1 out)" ]
  text=$(tr -s ' \n' ' ' <out)
  sed -n 's/^\.It Fl \([a-zA-Z]\) .*Fl Fl \([a-z-]*\).*/-\1, --\2/p; s/^\.It Fl \([a-zA-Z]\) , Fl Fl \([a-z-]*\)$/-\1, --\2/p' \
    "$ROOT/man/forkd.1" | sort -u >options
  [ "$(wc -l <options)" -ge 8 ]
  while read -r option; do [[ $text == *"$option"* ]] || { echo "no $option"; return 1; }; done <options
  while read -r words; do [[ $text =~ $words ]] || { echo "no $words"; return 1; }; done <<'END'
^usage: forkd \[option \.\.\.\] worker \[argument \.\.\.\] forkd --reload file
PATH:SYMBOL
--bind ADDRESS
--canary SECONDS [^-]*\(0\)
--grace SECONDS [^-]*0: for ever \(8\)
--log-level LEVEL debug, info, warning, error or critical \(info\)
--num-workers N initial number of workers, 1 to 1024 \(1\)
--state FILE
--timeout SECONDS [^-]*0: never \(0\)
--warm-up SECONDS [^-]*\(8\)
--reload FILE
USR1 adds .*USR2 removes .*HUP .*INT, QUIT and TERM shut down
END
}

@test "--version prints one line, which the log repeats" {
  for option in -V --version; do
    forkd_with "$option"
    [ "$status" -eq 0 ]
    [ ! -s err ]
    [[ $(cat out) =~ ^forkd\ [0-9]+\.[0-9]+$ ]]
  done
  version=$(cat out)
  forkd_with ./nowhere.so:run
  read -r line <err
  [[ $line == *"info: $version runs ./nowhere.so:run, workers: 1" ]]
}

@test "the first of --help and --version wins, in a group of letters, too, and nothing is started" {
  while read -r line; do
    split "$line"
    forkd_with "$arguments $W:steady"
    echo "$line: status $status"
    [ "$status" -eq 0 ]
    grep "^$rest" out
  done <<'END'
-hV => usage:
-h -V => usage:
-n 3 -l debug --help --version => usage:
-h -x => usage:
-Vh => forkd
-V -h => forkd
-V -n 0 => forkd
END
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

@test "a command is what has no colon, even if .so is in its name, and the last colon ends a path" {
  printf '#!/bin/sh\ntouch started; exec sleep 1000\n' >x.so.sh
  chmod +x x.so.sh
  run_forkd -t 0 -w 3 -- ./x.so.sh
  eventually [ -e started ]
  stops_with 0
  # One without a slash is the file here. A slash in the symbol makes no path of the name before it.
  cp "$W" we:ird.so
  run_forkd we:ird.so:arguments -n 7 --help
  eventually printed "worker 0: \[we:ird.so:arguments\] \[-n\] \[7\] \[--help\] end"
  has_workers 1
  stops_with 0
  forkd_with we:ird.so:no/where
  [ "$status" -eq 1 ]
  grep "no function 'no/where' is exported" err
}

@test "long options take their argument after an equals sign or as the next word" {
  run_forkd --num=2 --log-level debug --grace=0.0001 "$W:hangs"
  eventually printed_times 2 hangs
  # The grace period is very short, but not 0, which would mean for ever.
  stops_with 3
  logged "debug: "
}

# The log names these times, so there is no need to measure them.
@test "the grace period and the warm-up are 8 seconds if nothing else is said" {
  run_forkd -t 4 "$W:never_yields"
  run_forkd "$W:hangs"
  hangs=$master
  eventually printed hangs
  kill -TERM "$hangs"
  cp "$BIN/one.so" code.so
  run_forkd -w 1 ./code.so:steady
  eventually printed "version 1 number 0"
  deploy ctor_hang
  signal HUP
  eventually logged "has not yielded for 8.000 s and is aborted"
  eventually logged "not loaded within 8.000 s"
  master=$hangs
  ends_with 3
}
