#!/usr/bin/env bash
# Checks and measures on a GPU what docs/performance.md lists as open: three parts of nine minutes, most needed first.
#
#   bench/open.sh right|peers|own [OPTION VALUE]...
#     right             whether it is right: make gpu-check
#     peers             how fast it is beside PyTorch: bench/run.sh
#     own               what our own kernels gain: whole networks with and without them, pairs and overlap; every layer
#                       of T, S, M, L beside the libraries; every tile beside its prediction, for fit-costs
#     --build DIR       where the programs are, of "make gpu-programs" or from a bundle (build)
#     --out DIR         where logs and reports go (build/open)
#     --budget SECONDS  that the part may take (530)
#
# What fails, or takes too long, costs itself alone. "peers" writes what bench/results takes:
#   cp -r build/open/results/. bench/results/ && bench/tables.py && bench/plot
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
part=${1-} build=build out=build/open budget=530
case $part in right | peers | own) shift ;; *) usage ;; esac
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
mkdir -p "$out"

failed=0
# step SECONDS NAME COMMAND...: at most that long, and what the part has left; its output goes to NAME.txt, too.
step() {
  local seconds=$1 name=$2 left=$((budget - SECONDS)) status
  shift 2
  [ "$seconds" -lt "$left" ] || seconds=$left
  [ "$seconds" -gt 5 ] || { echo "== left out, the time is used up: $name"; failed=1; return; }
  echo "== $name: $*"
  timeout -k 10 "$seconds" "$@" 2>&1 | tee "$out/$name.txt"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || { echo "== $name failed with status $status"; failed=1; }
}

own() {
  local kernels folder
  folder=$(mktemp -d)
  # shellcheck disable=SC2064  # it is known now
  trap "rm -rf '$folder'" EXIT
  local model=$folder/S.safetensors
  "$build/golden-checkpoint" S "$folder/checkpoint.safetensors" 4 &&
    "$build/damoyolo" import "$folder/checkpoint.safetensors" -o "$model" > /dev/null || exit 1
  for kernels in own 'own --no-pairs' 'own --no-overlap' library; do
    # shellcheck disable=SC2086  # an option may follow the kernels
    step 25 "network-${kernels// --/-}" "$build/damoyolo" bench -w "$model" --device cuda --precision bf16 \
      --mode reduce-overhead --batch 1,8,32 --seconds 0.5 --kernels $kernels --json "$out/network-${kernels// --/-}.json"
  done
  step 240 layers "$build/layer-bench" --seconds 220 --json "$out/layers.json"
  step 240 tiles "$build/layer-bench" --variants S,T --kernels own --all --seconds 170 --json "$out/tiles.json"
  echo "== here or elsewhere: bench/layer_results.py bench/results $out/layers.json; build/fit-costs $out/tiles.json"
}

case $part in
  right) step "$budget" right make gpu-check BUILD="$build" GPU_CHECK_SECONDS=$((budget - 20)) ;;
  peers) step "$budget" peers bench/run.sh --build "$build" --budget $((budget - 10)) --device cuda --results "$out/results" ;;
  own) own ;;
esac
echo "== $part, after $SECONDS s: $out"
exit $failed
