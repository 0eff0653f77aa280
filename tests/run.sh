#!/bin/sh
# Runs test programs and sums up what they report.
#
#   tests/run.sh COMMAND...
#
# Each command prints lines of the Test Anything Protocol among others: "ok N - NAME", "not ok N - NAME",
# "ok N - NAME # SKIP REASON", and at its end the plan "1..COUNT". A command that ends with a failure it did not report
# or without its plan (a crash, a sanitizer's abort) counts as one failed test. All output is shown. At the end, in no
# more than about 12 000 characters when up to 150 tests failed, comes what failed, a table with a row for each
# command, and as the last line "N passed, N failed, N skipped"; the exit status is 1 when something failed or nothing
# ran.
set -u

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Of a file of test lines: passed, failed, skipped.
count() {
  skips=$(grep -c '^ok .* # SKIP' "$1")
  failures=$(grep -c '^not ok ' "$1")
  echo "$(($(wc -l < "$1") - skips - failures)) $failures $skips"
}

for command in "$@"; do
  echo "== $command"
  began=$(date +%s)
  { sh -c "$command" 2>&1; echo $? > "$folder/status"; } | tee "$folder/output"
  status=$(cat "$folder/status")
  grep -E '^(not )?ok [0-9]+ - ' "$folder/output" > "$folder/cases"
  if ! grep -qx "1\.\.$(wc -l < "$folder/cases")" "$folder/output" ||
     { [ "$status" -ne 0 ] && ! grep -q '^not ok ' "$folder/cases"; }; then
    echo "not ok 0 - $command: stopped before its end, exit status $status" | tee -a "$folder/cases"
  fi
  cat "$folder/cases" >> "$folder/all"
  if grep -q '^not ok ' "$folder/cases"; then
    { echo "$command"; grep '^not ok ' "$folder/cases"; } >> "$folder/failed"
  fi
  echo "$(count "$folder/cases") $(($(date +%s) - began)) $command" >> "$folder/table"
done
touch "$folder/all" "$folder/table"

names() { sed -E 's/^(not )?ok [0-9]+ - /  /; s/ # SKIP (.*)/ (\1)/'; }
read -r passed failed skipped << END
$(count "$folder/all")
END

echo
if [ "$skipped" -gt 0 ]; then
  echo 'Skipped:'
  grep '^ok .* # SKIP' "$folder/all" | names | sort -u
fi
if [ "$failed" -gt 0 ]; then
  echo 'Failed:'
  width=$((9000 / failed))
  names < "$folder/failed" | cut -c "1-$((width < 60 ? 60 : width > 500 ? 500 : width))"
fi
printf '\n%7s %7s %8s %8s\n' passed failed skipped seconds
while read -r passes failures skips seconds command; do
  printf '%7d %7d %8d %8d  %s\n' "$passes" "$failures" "$skips" "$seconds" "$command"
done < "$folder/table"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
