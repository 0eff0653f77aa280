#!/usr/bin/env bash
# Checks and measures on a GPU what docs/performance.md lists as open: four parts of nine minutes, most needed first.
#
#   bench/open.sh right|peers|tuned|own [OPTION VALUE]...
#     right             whether it is right: make gpu-check
#     peers             how fast it is beside PyTorch: bench/run.sh
#     tuned             the same where both choose by timing, which takes PyTorch minutes for each batch size
#     own               what our own kernels gain: whole networks with and without them, pairs, overlap and streams;
#                       every layer of T, S, M, L beside the libraries; every tile beside its prediction, for fit-costs
#     --build DIR       where the programs are, of "make gpu-programs" or from a bundle (build)
#     --out DIR         where the log, PART.txt, and reports go (build/open)
#     --budget SECONDS  that the part may take (530)
#
# What fails, or takes too long, costs itself alone. docs/performance.md says how the reports become tables and plots.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
part=${1-} build=build out=build/open budget=530
case $part in right | peers | tuned | own) shift ;; *) usage ;; esac
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || usage
  case $1 in
    --build) build=$2 ;;
    --out) out=$2 ;;
    --budget) budget=$2 ;;
    *) usage ;;
  esac
  shift 2
done
[ -x "$build/damoyolo" ] || { echo "open.sh: there is no $build/damoyolo; \"make gpu-programs\" builds it" >&2; exit 1; }
mkdir -p "$out" && : > "$out/$part.txt" || exit

failed=0
say() { echo "== $*" | tee -a "$out/$part.txt"; }
left() { echo $((budget - SECONDS)); }

# step SECONDS COMMAND...: at most that long, and what the part has left.
step() {
  local seconds=$1 status
  shift
  [ "$seconds" -lt "$(left)" ] || seconds=$(left)
  [ "$seconds" -gt 5 ] || { say "left out, the time is used up: $*"; failed=1; return; }
  say "$* ($SECONDS s)"
  timeout -k 10 "$seconds" "$@" 2>&1 | tee -a "$out/$part.txt"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || { say "that failed with status $status; going on"; failed=1; }
}

beside_peers() {
  step "$budget" bench/run.sh --build "$build" --budget $((budget - 10)) --device cuda --results "$out/results" "$@"
}

own() {
  local kernels batch seconds
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  local model=$folder/S.safetensors
  "$build/golden-checkpoint" S "$folder/checkpoint.safetensors" 4 &&
    "$build/damoyolo" import "$folder/checkpoint.safetensors" -o "$model" > /dev/null || exit 1
  for kernels in own 'own --no-pairs' 'own --no-overlap' 'own --streams 1' library 'library --streams 1'; do
    # shellcheck disable=SC2086  # an option may follow the kernels
    step 30 "$build/damoyolo" bench -w "$model" --device cuda --precision bf16 --mode reduce-overhead --batch 1,8,32 \
      --seconds 0.5 --kernels $kernels
  done
  # A process for each batch size, for a fault of the GPU takes all of a process along. Half of the time is the tiles'.
  seconds=$(($(left) / 6))
  for batch in 1 8 32; do
    step "$seconds" "$build/layer-bench" --batch $batch --seconds $((seconds - 10)) --json "$out/layers$batch.json"
  done
  seconds=$(left)
  step "$seconds" "$build/layer-bench" --variants S,T --kernels own --all --seconds $((seconds - 20)) \
    --json "$out/tiles.json"
}

case $part in
  right) step "$budget" make gpu-check BUILD="$build" GPU_CHECK_SECONDS=$((budget - 20)) ;;
  peers) beside_peers ;;
  tuned) beside_peers --precision bf16 --mode max-autotune ;;
  own) own ;;
esac
say "$part, after $SECONDS s: $out"
exit $failed
