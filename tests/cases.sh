#!/bin/sh
# Runs the cases of a test program so that one that faults, crashes or hangs costs itself alone.
#
#   [TESTS_END=TIME] tests/cases.sh SECONDS[/TOTAL] COMMAND...
#
# COMMAND runs a program with tests/main.cpp, perhaps under another such as compute-sanitizer; what follows the program
# chooses cases. Each may take SECONDS. Where one fails, a new process goes on behind it. After TOTAL seconds, and at
# TIME, in seconds since 1970, the running case is ended; cases that had no turn are reported as failed. A case during
# which compute-sanitizer reports something has failed, too. The output is what tests/run.sh expects.
set -u

seconds=${1%/*}
end=${TESTS_END:-9999999999}
case $1 in */*)
  own_end=$(($(date +%s) + ${1#*/}))
  [ "$own_end" -gt "$end" ] || end=$own_end
  ;;
esac
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
left() { echo $((end - $(date +%s))); }

rest=$(left)
timeout -k 5 $((rest < 1 ? 1 : rest > 60 ? 60 : rest)) "$@" --list-test-cases > "$folder/list" 2>&1
grep -v -e '^\[doctest\]' -e '^=' "$folder/list" > "$folder/names"
total=$(wc -l < "$folder/names")
grep -q '^\[doctest\] unskipped test cases .*: [1-9]' "$folder/list" || {
  cat "$folder/list"
  echo "not ok 1 - $*: lists no cases"
  echo '1..1'
  exit 1
}

# The program's lines, each case's with its number among all. compute-sanitizer's reports begin without an indent.
number() {
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      'ok '[0-9]*' - '* | 'not ok '[0-9]*' - '*)
        ran=$((ran + 1))
        line="${line%%ok *}ok $ran - ${line#* - }"
        if [ -s "$folder/report" ]; then
          line="not ok $ran - ${line#* - }: $(cat "$folder/report")"
          : > "$folder/report"
        fi
        printf '%s\n' "$line" | tee -a "$folder/process"
        ;;
      1..[0-9]*) ;;
      *)
        case $line in
          *' COMPUTE-SANITIZER' | *' SUMMARY: '*) ;;
          '========= '[!\ ]*) [ -s "$folder/report" ] || printf '%s\n' "${line#========= }" > "$folder/report" ;;
        esac
        printf '%s\n' "$line"
        ;;
    esac
  done
}

ran=0 failed=0
fail() {  # NAME
  ran=$((ran + 1)) failed=1
  echo "not ok $ran - $1"
}
name() { sed -n "$((ran + 1))p" "$folder/names"; }
report() { sed 's/^/, /' "$folder/report"; }

while [ "$ran" -lt "$total" ]; do
  rest=$(left)
  if [ "$rest" -le 0 ]; then
    fail "$(name): not run, the time was used up"
    continue
  fi
  : > "$folder/process"
  : > "$folder/report"
  {
    TEST_CASE_SECONDS=$seconds timeout -k 5 "$rest" "$@" --minimal --first=$((ran + 1)) 2>&1
    echo $? > "$folder/status"
  } | number
  status=$(cat "$folder/status")
  ran=$((ran + $(wc -l < "$folder/process")))
  if grep -q '^not ok' "$folder/process"; then
    failed=1
  elif [ "$ran" -lt "$total" ]; then
    fail "$(name): stopped, exit status $status$(report)"
  elif [ "$status" -ne 0 ]; then
    fail "$*: exit status $status$(report)"
  fi
done
echo "1..$ran"
exit $failed
