#!/bin/sh
# make bench: what forkd costs, beside what it must cost at least: a bare loop of fork, pause,
# waitpid, fork (barefork.c), and beside other supervisors, where they are installed. It measures in
# a folder of its own, prints a table, and judges nothing by its exit status.

set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
: "${CC:=cc}" "${CFLAGS:=-O2}"
seconds=${BENCH_SECONDS:-35} # for pools of 100; those of 1000 get as much
peer_seconds=6               # for each peer, but one round at least

work=$(mktemp -d)
idle_pids=
clean_up() {
  for pid in $idle_pids; do kill -s KILL "$pid" 2>/dev/null || :; done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

say() { echo "bench: $*" >&2; }

# Built with the user's flags, all alike. CFLAGS is a list of words.
build() {
  # shellcheck disable=SC2086
  $CC $CFLAGS -I"$root" -o "$@"
}
cd "$work"
cp "$root/forkd" forkd
sources=$root/test/bench
build bench "$sources/bench.c"
build bare "$sources/barefork.c" "$sources/worker.c" -DALONE
build application "$sources/worker.c" -DAPPLICATION "$root/forkd.o" -pthread
build worker.so "$sources/worker.c" -fPIC -shared
build reloadbench "$sources/reload.c" -pthread
static=
build bare_static "$sources/barefork.c" "$sources/worker.c" -DALONE -static 2>/dev/null &&
  build application_static "$sources/worker.c" -DAPPLICATION "$root/forkd.o" -pthread \
    -static 2>/dev/null && static=yes
[ "$static" ] || say "no static libc: the rows of static programs are left out"
strip -o stripped forkd 2>/dev/null || cp forkd stripped

# ----------------------------------------------------------------------------------------------
# The other supervisors: a command each that runs $1 workers in the foreground
# ----------------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }

# One folder for each service, where "run" is the worker.
service_folders() {
  i=0
  while [ $i -lt "$2" ]; do
    mkdir -p "$1/$i"
    ln -sf "$work/bare" "$1/$i/run"
    i=$((i + 1))
  done
}

write_supervisord() {
  cat >"supervisord.$1" <<END
[supervisord]
nodaemon=true
user=$(id -un)
logfile=$work/supervisord.log
pidfile=$work/supervisord.$1.pid
[program:worker]
command=$work/bare
process_name=worker%(process_num)d
numprocs=$1
autorestart=true
stdout_logfile=NONE
stderr_logfile=NONE
END
}

# What stamp() of worker.c does.
write_gunicorn() {
  cat >gunicorn.conf.py <<END
import os, struct, time

def post_worker_init(worker):
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    worker.stamps = os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY)
    os.write(worker.stamps, struct.pack("qq", now, os.getpid()))
END
  cat >bench_application.py <<END
def application(environ, start_response):
    start_response("204 No Content", [])
    return []
END
}

# Without the pause of a second that it makes by default after a worker that was killed.
write_prefork() {
  cat >prefork.pl <<'END'
use strict;
use Parallel::Prefork;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
my $pool = Parallel::Prefork->new(
  {max_workers => $ARGV[0], err_respawn_interval => 0, trap_signals => {TERM => 'TERM'}});
my $stamps;
while ($pool->signal_received ne 'TERM') {
  $pool->start(sub {
    my $now = int(clock_gettime(CLOCK_MONOTONIC) * 1e9);
    open($stamps, '>', $ENV{BENCH_STAMPS}) or die;
    syswrite($stamps, pack('qq', $now, $$));
    sleep;
  });
}
$pool->wait_all_children;
END
}

peers=
skip() { say "$1 is not installed ($2): left out"; }
if has s6-svscan; then peers="$peers s6-supervise"; else skip s6-supervise "Debian: s6"; fi
if has runsvdir; then peers="$peers runsv"; else skip runsv "Debian: runit"; fi
if has supervisord; then peers="$peers supervisord"; else skip supervisord "Debian: supervisor"; fi
if has gunicorn; then peers="$peers gunicorn"; else skip gunicorn "Debian: gunicorn"; fi
if perl -MParallel::Prefork -e 1 2>/dev/null; then peers="$peers Parallel::Prefork"; else
  skip Parallel::Prefork "Debian: libparallel-prefork-perl"
fi
for peer in circusd einhorn; do
  ! has $peer || say "$peer is installed, but the benchmark does not know it"
  has $peer || skip $peer "not in Debian"
done

# command_of PEER NUMBER: its words, none of which has a space.
command_of() {
  case $1 in
    s6-supervise) service_folders "s6.$2" "$2" && echo "s6-svscan $work/s6.$2" ;;
    runsv) service_folders "runit.$2" "$2" && echo "runsvdir $work/runit.$2" ;;
    supervisord) write_supervisord "$2" && echo "supervisord -c $work/supervisord.$2" ;;
    gunicorn)
      write_gunicorn
      echo "gunicorn -c gunicorn.conf.py --chdir $work -b unix:$work/gunicorn.$2 -w $2" \
        "bench_application:application"
      ;;
    Parallel::Prefork) write_prefork && echo "perl prefork.pl $2" ;;
  esac
}

# ----------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------

# pools NUMBER FUNCTION: the bare loops and the pools of forkd, for bench.
pools() {
  printf %s "bare ./bare -n $1 -- application ./application $1 $2 -- \
    shared ./forkd -g 0.1 -n $1 ./worker.so:$2"
  [ -z "$static" ] || printf %s " -- bare_static ./bare_static -n $1 \
    -- application_static ./application_static $1 $2"
}

measure() {
  # shellcheck disable=SC2046,SC2086
  ./bench "$@" >>raw 2>>log || say "bench $1 $2 $3 failed, see its message: $(tail -n 1 log)"
}

# idle NAME COMMAND ...: counts the system calls of a master, and of what supervises workers below
# it, in ten seconds in which nothing happens.
idle() {
  name=$1
  shift
  BENCH_STAMPS=/dev/null "$@" >/dev/null 2>>log &
  idle_pid=$!
  idle_pids="$idle_pids $idle_pid"
  sleep 4
  ps -A -o ppid= -o pid= >"processes.$name"
  # The master, and its children that have children.
  pids=$(awk -v master="$idle_pid" '{ parent[$2] = $1; has[$1] = 1 }
    END { print master; for (p in parent) if (parent[p] == master && has[p]) print p }' \
    "processes.$name")
  # shellcheck disable=SC2046
  strace -c -f -o "strace.$name" $(echo "$pids" | sed 's/^/-p /') 2>>log &
  tracer=$!
  sleep 10
  kill -s INT "$tracer" || :
  wait "$tracer" || : # it ends by that signal itself
  awk -v name="$name" '$1 ~ /^[0-9.]+$/ && $NF != "total" { calls += $4 }
    END { print 10, name, "idle", calls + 0 }' "strace.$name"
  kill -s TERM "$idle_pid" 2>/dev/null || :
  # What a master that just ends leaves behind.
  awk -v master="$idle_pid" '{ parent[$2] = $1 }
    END { for (p in parent) { g = parent[p]
      if (g == master || parent[g] == master) print p } }' "processes.$name" >"left.$name"
  sleep 1
  while read -r pid; do kill -s KILL "$pid" 2>/dev/null || :; done <"left.$name"
  kill -s KILL "$idle_pid" 2>/dev/null || :
}

: >raw
if has strace; then
  say "system calls of idle masters, 15 s"
  { idle shared ./forkd -n 10 ./worker.so:waits >idle.shared; } &
  waiting=$!
  for peer in $peers; do
    # shellcheck disable=SC2046
    { idle "$peer" $(command_of "$peer" 10) >"idle.$peer"; } &
    waiting="$waiting $!"
  done
  # shellcheck disable=SC2086
  wait $waiting || :
  cat idle.* >>raw
else
  skip strace "Debian: strace"
fi

say "reloads of a pool of four, 60 s"
for round in 1 2 3; do
  ./forkd -n 4 -b ./reload.socket ./worker.so:serves 2>"reload.$round" &
  idle_pids="$idle_pids $!"
  ./reloadbench reload.socket $! "reload.$round" >>raw || say "reload $round failed"
  kill -s TERM $!
  wait $! || :
done

say "pools of 100, then of 1000 workers, $((2 * seconds + 20)) s"
./forkd -l error ./worker.so:yield_cost 2>>log >>raw
# shellcheck disable=SC2046
measure 3 1 p $(pools 1 waits)
# shellcheck disable=SC2046
measure 10 100 t $(pools 100 yields) -- bare_exit ./bare -n 100 exits
# Starts alone first: the other figures take seconds a round.
# shellcheck disable=SC2046
measure 10 100 s $(pools 100 waits)
# shellcheck disable=SC2046
measure "$seconds" 100 srwp $(pools 100 waits) \
  -- command ./forkd -g 0.1 -w 0 -n 100 ./bare -- bare_command ./bare -n 100 exec
# shellcheck disable=SC2046
measure "$seconds" 1000 swp $(pools 1000 waits)
for peer in $peers; do
  say "$peer, $peer_seconds s or more"
  name=$peer
  [ "$peer" != runsv ] || name=runsv@1 # SIGHUP: ends its services, too
  # shellcheck disable=SC2046
  measure "$peer_seconds" 100 srwpt "$name" $(command_of "$peer" 100)
done
echo "0 shared size $(($(wc -c <stripped)))" >>raw

# ----------------------------------------------------------------------------------------------
# The table
# ----------------------------------------------------------------------------------------------

# Medians of all that was measured: "NUMBER POOL FIGURE" and the value.
sort -k1,1 -k2,2 -k3,3 -k4,4n raw | awk '
  function emit() { if (count) print key, value[int((count + 1) / 2)], count }
  { k = $1 " " $2 " " $3; if (k != key) { emit(); key = k; count = 0 } value[++count] = $4 }
  END { emit() }' >medians

# rows: figure | kind | number | figure of bench | pool | limiting pool | ratio to reach
{
  for n in 100 1000; do
    for figure in start respawn whole; do
      case $n$figure in
        1000respawn) continue ;;
        *start) text="start of $n workers" ;;
        *respawn) text="respawn of one killed worker of $n" ;;
        *whole) text="respawn of all $n, killed at once" ;;
      esac
      echo "$text, application|time|$n|$figure|application|bare|1.3"
      [ -z "$static" ] ||
        echo "$text, static application|time|$n|$figure|application_static|bare_static|1.3"
      echo "$text, shared object|time|$n|$figure|shared|bare|2"
      [ $n -ne 100 ] || echo "$text, command|time|$n|$figure|command|bare_command|"
    done
  done
  echo "shutdown of 100 yielding workers, application|time|100|stop|application|bare|1.5"
  echo "shutdown of 100 yielding workers, shared object|time|100|stop|shared|bare|1.5"
  echo "the same, beside a bare loop that ends by exit(3)|time|100|stop|shared|bare_exit|"
  echo "a yield, beside getppid()|ns|1|yield|shared|limit|0.1"
  for n in 1 100 1000; do
    echo "private memory of the master, $n workers|bytes|$n|private|shared|bare|"
    [ -z "$static" ] ||
      echo "the same, static application|bytes|$n|private|application_static|bare_static|"
  done
  echo "reload of 4: worst quarter of a second, of before|percent|4|strength|shared||90"
  echo "reload of 4: time with less than 90 %|ms|4|weak|shared||0"
  echo "reload of 4, which need 2 s to set themselves up|ms|4|reload|shared||"
  echo "system calls of the master in 10 idle seconds|count|10|idle|shared||0"
  echo "size of the stripped tool|bytes|0|size|shared||49152"
} >rows
for peer in $peers; do
  limit=bare_command
  case $peer in gunicorn | Parallel::Prefork) limit=bare ;; esac
  echo "peer|$peer"
  echo "start of 100 workers|time|100|start|$peer|$limit|"
  echo "respawn of one killed worker of 100|time|100|respawn|$peer|$limit|"
  echo "respawn of all 100, killed at once|time|100|whole|$peer|$limit|"
  echo "shutdown of 100 workers|time|100|stop|$peer|bare|"
  echo "private memory, 100 workers|bytes|100|private|$peer|bare|"
  echo "system calls in 10 idle seconds, 10 workers|count|10|idle|$peer||"
done >>rows

awk -F'|' '
  function shown(kind, value) {
    if (value == "") return "-"
    if (kind == "time") return value < 10000 ? sprintf("%.0f us", value) : sprintf("%.1f ms", value / 1000)
    if (kind == "ns") return sprintf("%.1f ns", value)
    if (kind == "percent") return sprintf("%.0f %%", value)
    if (kind == "ms") return sprintf("%d ms", value)
    if (kind == "bytes") return sprintf("%.1f KiB", value / 1024)
    return value
  }
  function line(figure, value, limit, ratio, reach, mark) {
    printf "%-54s %17s %11s %7s %9s %s\n", figure, value, limit, ratio, reach, mark
  }
  function head(who) { print ""; line("figure", who, "limit", "ratio", "reach", "") }
  FNR == NR { split($0, word, " "); median[word[1] " " word[2] " " word[3]] = word[4]; next }
  FNR == 1 { head("forkd") }
  $1 == "peer" { head($2); next }
  {
    value = median[$3 " " $5 " " $4]
    if (value == "") next
    limit = median[$3 " " $6 " " $4]
    ratio = limit > 0 ? value / limit : ""
    reach = $7; missed = 0
    if ($2 == "time" && reach != "") missed = ratio > reach
    if ($2 == "ns") { missed = ratio > reach || value > 5; reach = "0.1, 5 ns" }
    if (($2 == "count" || $2 == "ms") && reach != "") missed = value > reach
    if ($2 == "percent") { missed = value < reach; reach = reach " %" }
    if ($4 == "size") { missed = value > reach; reach = "48 KiB" }
    if ($4 == "private" && $3 == 100 && $5 == "shared") { missed = value > 131072; reach = "128 KiB" }
    line($1, shown($2, value), shown($2, limit), ratio == "" ? "-" : sprintf("%.2f", ratio), \
      reach == "" ? "-" : reach, missed ? "missed" : "")
    if ($4 == "private" && $3 == 1000) {
      growth = (value - median["100 " $5 " private"]) / 900
      grows = limit == "" ? "-" : sprintf("%.0f B", (limit - median["100 " $6 " private"]) / 900)
      line("its growth for each worker", sprintf("%.0f B", growth), grows, "-", "256 B", \
        growth >= 256 ? "missed" : "")
    }
  }' medians rows
