#!/bin/sh
# Runs the cases of a test program on all processors, a few in each process, and prints the Test Anything Protocol as
# one process would, but in the order in which they end. A process that ends early leaves fewer cases than planned.
#
#   tests/parallel.sh PROGRAM...
set -u

few=4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export few folder
# Where all processors are busy anyway, threads that spin while they wait for each other only take time.
export OMP_WAIT_POLICY=passive

total=$("$@" --count | sed -n 's/^\[doctest\] unskipped test cases .*: //p')
# Output is shown process by process: each is kept until its end, and only then named to who shows it.
# shellcheck disable=SC2016  # for the shells that xargs starts
seq 1 "$few" "${total:-0}" | xargs -P "$(nproc)" -I '{}' sh -c '
    first=$1
    shift
    "$@" --minimal --first="$first" --last="$((first + few - 1))" > "$folder/$first" 2>&1 || : > "$folder/failed"
    echo "$first"' sh '{}' "$@" |
  while read -r first; do cat "$folder/$first"; done |
  awk '/^(not )?ok [0-9]+ - / { sub(/ok [0-9]+/, "ok " ++ran) }  !/^1\.\.[0-9]+$/ { print; fflush() }'
echo "1..${total:-0}"
[ "${total:-0}" -gt 0 ] && [ ! -e "$folder/failed" ]
