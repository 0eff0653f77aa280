#!/bin/sh
# Tests that in a part of bench/open.sh what crashes or hangs costs itself alone, with programs that do nothing.
set -u

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/build"

cat > "$folder/build/damoyolo" << 'END'
#!/bin/sh
case $* in
  *--no-pairs*) exit 3 ;;
  bench*) echo 'a table' ;;
esac
END
cat > "$folder/build/layer-bench" << 'END'
#!/bin/sh
case $* in *'--batch 8 '*) exec sleep 60 ;; esac
for last; do :; done
echo '{}' > "$last"
END
printf '#!/bin/sh\n' > "$folder/build/golden-checkpoint"
chmod +x "$folder/build"/*

count=0 failed=0
check() {  # NAME COMMAND...
  count=$((count + 1))
  name=$1
  shift
  if "$@"; then
    echo "ok $count - open.sh: $name"
  else
    failed=1
    echo "not ok $count - open.sh: $name"
  fi
}
bench/open.sh own --build "$folder/build" --out "$folder/out" --budget 40 > "$folder/shown"
status=$?
check 'a part of which something failed has failed' [ $status -eq 1 ]
check 'what crashes is named' grep -q 'failed with status 3' "$folder/out/own.txt"
check 'what hangs is ended' grep -q 'failed with status 124' "$folder/out/own.txt"
for report in layers1 layers32 tiles; do
  check "$report has its turn" [ -e "$folder/out/$report.json" ]
done
check 'the log is what was shown' cmp -s "$folder/shown" "$folder/out/own.txt"
check 'there are few files' [ "$(find "$folder/out" -type f | wc -l)" -eq 4 ]
bench/open.sh peers --build "$folder/nowhere" --out "$folder/out" 2> "$folder/shown"
check 'programs that are not there are named' grep -q "there is no $folder/nowhere/damoyolo" "$folder/shown"
echo "1..$count"
exit $failed
