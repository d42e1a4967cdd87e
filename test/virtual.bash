# Virtual time: what a pool does hours later is seen at once, and to the millisecond. See
# workers/warp.c.

needs_virtual_time() {
  needs_preload "time passes at once"
  [ -e "$BIN/warp.so" ] || {
    "$CC" -shared -fPIC -o "$BIN/warp.$BASHPID" "$ROOT/test/workers/warp.c"
    mv "$BIN/warp.$BASHPID" "$BIN/warp.so" # whole, for the files that run at the same time
  }
}

needs_preload() {
  [ "$(uname)" = Linux ] || skip "not on $(uname): $1"
  not_emulated "the host's library cannot be preloaded"
  [ -z "$LDFLAGS" ] || skip "built with flags of the user's"
}

# run_virtual ARGUMENT ...: as run_forkd, in virtual time.
run_virtual() { LD_PRELOAD=$BIN/warp.so run_forkd "$@"; }

# anew: forgets the pool before.
anew() {
  if [ -n "$master" ]; then
    { await kill "$master"; wait "$master" || :; } 2>/dev/null
  fi
  rm -f out log time freeze slow_fork no_fork no_kill no_right
}

# time_until MS: time goes on up to then, and has got there.
time_until() {
  echo "$1" >next_time
  mv next_time time
  eventually printed "^time $1 stands\$"
}

# times EVENT: when that happened, in ms ("fork", "kill 9").
times() { sed -n "s/^time \([0-9]*\) $1\$/\1/p" out; }

# between LEAST MOST VALUE
between() {
  [ -n "$3" ] && [ "$1" -le "$3" ] && [ "$3" -le "$2" ] || {
    echo "not between $1 and $2: $3"
    return 1
  }
}
