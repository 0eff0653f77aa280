#!/bin/sh
# Runs test programs and sums up what they report.
#
#   tests/run.sh COMMAND...
#
# Each command prints lines of the Test Anything Protocol among others: "ok N - NAME", "not ok N - NAME",
# "ok N - NAME # SKIP REASON", and at its end the plan "1..COUNT". A command that ends with a failure it did not report
# or without its plan (a crash, a sanitizer's abort) counts as one failed test. All output is shown. The last line is
# "N passed, N failed, N skipped"; the exit status is 1 when something failed or nothing ran.
set -u

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for command in "$@"; do
  echo "== $command"
  { sh -c "$command" 2>&1; echo $? > "$folder/status"; } | tee "$folder/output"
  status=$(cat "$folder/status")
  grep -E '^(not )?ok [0-9]+ - ' "$folder/output" > "$folder/cases"
  cat "$folder/cases" >> "$folder/all"
  if ! grep -qx "1\.\.$(wc -l < "$folder/cases")" "$folder/output" ||
     { [ "$status" -ne 0 ] && ! grep -q '^not ok ' "$folder/cases"; }; then
    echo "not ok 0 - $command: stopped before its end, exit status $status" | tee -a "$folder/all"
  fi
done
touch "$folder/all"

names() { sed -E 's/^(not )?ok [0-9]+ - /  /; s/ # SKIP (.*)/ (\1)/' | sort -u; }
skipped=$(grep -c '^ok .* # SKIP' "$folder/all")
failed=$(grep -c '^not ok ' "$folder/all")
passed=$(($(wc -l < "$folder/all") - skipped - failed))

echo
if [ "$skipped" -gt 0 ]; then
  echo 'Skipped:'
  grep '^ok .* # SKIP' "$folder/all" | names
fi
if [ "$failed" -gt 0 ]; then
  echo 'Failed:'
  grep '^not ok ' "$folder/all" | names
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
