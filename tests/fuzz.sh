#!/bin/sh
# Runs libFuzzer programs for a while each and reports them as tests/run.sh expects it.
#
#   tests/fuzz.sh HOW_LONG PROGRAM...
#
# HOW_LONG is libFuzzer's: "-max_total_time=60" for new input each time, "-runs=20000 -seed=1" for the same.
# The seeds of NAME_fuzz are the files in tests/data/fuzz/NAME/. A program that was not built is skipped; an input that
# breaks one is kept beside the program.
# shellcheck disable=SC2086  # no seeds, no argument
set -u

how_long=$1
shift
count=0
status=0
for program in "$@"; do
  count=$((count + 1))
  name=${program##*/}
  if [ ! -x "$program" ]; then
    echo "ok $count - $name # SKIP clang with libFuzzer is not installed"
    continue
  fi
  corpus=$(mktemp -d)
  seeds=tests/data/fuzz/${name%_fuzz}
  [ -d "$seeds" ] || seeds=
  if "$program" $how_long -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$program." "$corpus" $seeds \
      > "$program.log" 2>&1; then
    echo "ok $count - $name, $(find "$corpus" -type f | wc -l) new inputs, $how_long"
  else
    tail -n 200 "$program.log"
    echo "not ok $count - $name"
    status=1
  fi
  rm -rf "$corpus"
done
echo "1..$count"
exit $status
