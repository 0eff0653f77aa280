#!/bin/sh
# Tests of tests/cases.sh with the program of tests/faulty: what goes wrong in a case costs that case alone, and all
# are named. And of tests/parallel.sh. Prints the Test Anything Protocol.
#
#   tests/cases_test.sh PROGRAM
set -u

program=$1
count=0 status=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# expect NAME LINE...: the lines of the test protocol in the output.
expect() {
  name=$1
  shift
  count=$((count + 1))
  if [ "$(grep -E '^((not )?ok |1\.\.)' "$output")" = "$(printf '%s\n' "$@")" ]; then
    echo "ok $count - $name"
  else
    sed 's/^/  /' "$output"
    echo "not ok $count - $name"
    status=1
  fi
}

tests/cases.sh 1 "$program" > "$output" 2>&1
expect 'cases: a fault, a hang and a crash cost one case each' \
  'ok 1 - passes' \
  'not ok 2 - faults: CHECK_FALSE(fault): true' \
  'ok 3 - passes after a fault' \
  'not ok 4 - throws: an illegal instruction, layer := 3, tile := 4' \
  'not ok 5 - is wrong twice: 1 of 2 wrong, layer := 3 (2 checks failed)' \
  'ok 6 - is one of 1' \
  'not ok 7 - is one of 2: CHECK(number != 2): 2 != 2' \
  'ok 8 - is one of 11' \
  'not ok 9 - hangs: no end within 1 s, layer := 3' \
  'not ok 10 - crashes: SIGSEGV - Segmentation violation signal' \
  'not ok 11 - is killed: stopped, exit status 137' \
  'ok 12 - passes at the end' \
  1..12

tests/cases.sh 1 "$program" --test-case='passes*' > "$output" 2>&1
expect 'cases: what passes runs in one process' 'ok 1 - passes' 'ok 2 - passes after a fault' 'ok 3 - passes at the end' 1..3

# Longer where a loaded machine takes as long to begin.
for whose in all program; do
  for seconds in 2 10 30; do
    case $whose in
      all) TESTS_END=$(($(date +%s) + seconds)) tests/cases.sh 60/90 "$program" --test-case='hangs,*killed' ;;
      program) tests/cases.sh "60/$seconds" "$program" --test-case='hangs,*killed' ;;
    esac > "$output" 2>&1
    ! grep -q '^not ok 1 - hangs: SIGTERM' "$output" || break
  done
  expect "cases: the one that runs at the end of the time for $whose is ended, the rest is named" \
    'not ok 1 - hangs: SIGTERM - Termination request signal, layer := 3' \
    'not ok 2 - is killed: not run, the time was used up' \
    1..2
done

PATH=tests/faulty:$PATH tests/sanitized.sh racecheck 1 "$program" --test-case='passes*' > "$output" 2>&1
expect 'cases: what compute-sanitizer reports counts against the case that ran' \
  'ok 1 - passes' \
  'not ok 2 - passes after a fault: Error: Race reported between Read access and Write access' \
  'ok 3 - passes at the end' \
  1..3

CUDA_HOME=$PWD/tests/faulty/none PATH=$PWD/tests/faulty/none tests/sanitized.sh memcheck 1 "$program" > "$output" 2>&1
expect 'cases: without compute-sanitizer it is skipped' \
  "ok 1 - memcheck: $program # SKIP compute-sanitizer is neither on the path nor in $PWD/tests/faulty/none" \
  1..1

PATH=tests/faulty:$PATH tests/sanitized.sh late 1 "$program" --test-case=passes > "$output" 2>&1
expect 'cases: and what it reports behind the last one, against the program' \
  'ok 1 - passes' \
  "not ok 2 - tests/faulty/compute-sanitizer --tool late --error-exitcode 9 $program --test-case=passes: exit status 9, \
Invalid __global__ read of size 4 bytes" \
  1..2

tests/cases.sh 1 "$program" --test-case=unknown > "$output" 2>&1
expect 'cases: no case is a failure' "not ok 1 - $program --test-case=unknown: lists no cases" 1..1

"$program" --test-case='passes,crashes,passes at the end' > "$output" 2>&1
expect 'a test program that crashes prints no plan' 'ok 1 - passes' 'not ok 2 - crashes: SIGSEGV - Segmentation violation signal'

tests/parallel.sh "$program" --test-case='passes,*of 1*' > "$output" 2>&1 || echo 'not ok 0 - fails' >> "$output"
expect 'parallel: what passes' 'ok 1 - passes' 'ok 2 - is one of 1' 'ok 3 - is one of 11' 1..3

tests/parallel.sh "$program" --test-case='is *' > "$output" 2>&1 && echo 'not ok 0 - passes' >> "$output"
expect 'parallel: a process that is killed leaves the plan larger than what ran' \
  'not ok 1 - is wrong twice: 1 of 2 wrong, layer := 3 (2 checks failed)' \
  'ok 2 - is one of 1' \
  'not ok 3 - is one of 2: CHECK(number != 2): 2 != 2' \
  'ok 4 - is one of 11' \
  1..5

tests/parallel.sh "$program.not_built" > "$output" 2>&1 && echo 'not ok 0 - passes' >> "$output"
expect 'parallel: no case is a failure' 1..0

echo "1..$count"
exit $status
