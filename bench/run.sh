#!/usr/bin/env bash
# Measures this engine and its peers on this machine, and writes what was found: bench/results/DEVICE.json and, on a
# GPU, bench/results/layers/DEVICE.json, the tables in docs/performance.md and the plots in docs/plots.
#
#   make bench && bench/run.sh [OPTION VALUE]...
#     --build DIR         where the programs are (build)
#     --budget SECONDS    that everything may take (530)
#     --device cpu|cuda   (a GPU where there is one)
#     --variant NAME      N, Ns, Nm, Nl, T, S, M or L (S)
#     --precision LIST, --batch LIST, --mode LIST
#                         only the comparison with the peers, and of it only these; what was measured before stays
#     --set NAME=WEIGHTS,IMAGES,ANNOTATIONS
#                         one more evaluation set
#     --results DIR       instead of bench/results; then tables and plots are left alone
#
# The weights are the goldens', with lower scores (bench/golden_checkpoint.cpp): how fast a network is does not depend
# on their values.
# Peers are run with $PYTHON (python3): PyTorch where it is installed, ONNX Runtime and, on a GPU, TensorRT where they
# are, too. The figures that matter most come first, and what is measured is written at once.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

build=build budget=530 device='' variant=S results=bench/results
chosen=() sets=()
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
  case $1 in
    --build) build=$2 ;;
    --budget) budget=$2 ;;
    --device) device=$2 ;;
    --variant) variant=$2 ;;
    --precision | --batch | --mode) chosen+=("$1" "$2") ;;
    --set) sets+=("$1" "$2") ;;
    --results) results=$2 ;;
    *) echo "run.sh: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
python=${PYTHON:-python3}

for program in damoyolo network-bench golden-checkpoint; do
  [ -x "$build/$program" ] || { echo "run.sh: there is no $build/$program; \"make bench\" builds it" >&2; exit 1; }
done
command -v "$python" > /dev/null ||
  { echo "run.sh: there is no $python, which joins reports; \"$build/damoyolo bench\" measures without" >&2; exit 1; }

folder=$(mktemp -d) running=
trap 'rm -rf "$folder"' EXIT
# What runs in a process group of its own is ended, too: it would go on beside what is measured next.
stop() { [ -z "$running" ] || { kill "$running"; wait "$running"; }; exit "$1"; }
trap 'stop 143' TERM
trap 'stop 130' INT
mkdir -p "$results"
left() { echo $((budget - SECONDS > 1 ? budget - SECONDS : 1)); }

# step SECONDS REPORT COMMAND...: at most that long, and what it has written is kept even when it fails. What it says is
# shown when it fails, or at once where there is `show`.
step() {
  local seconds=$1 report=$2 status=0
  shift 2
  [ "$seconds" -lt "$(left)" ] || seconds=$(left)
  [ "$seconds" -gt 5 ] || { echo "== left out, the time is used up: $*"; return 1; }
  echo "== $* ($SECONDS s)"
  if [ -n "${show:-}" ]; then
    timeout -k 10 "$seconds" "$@" 2>&1 &
  else
    timeout -k 10 "$seconds" "$@" > "$folder/log" 2>&1 &
  fi
  running=$!
  wait "$running" || status=$?
  running=
  [ $status -eq 0 ] || [ -n "${show:-}" ] || tail -n 60 "$folder/log"
  [ $status -eq 0 ] || echo "== that failed with status $status; going on"
  [ ! -e "$report" ] || "$python" bench/report.py "$results" "$report" > "$folder/path" || status=1
  return $status
}

model=$folder/$variant.safetensors digits=$folder/digits.safetensors
"$build/golden-checkpoint" "$variant" "$folder/checkpoint.safetensors" 4 &&
  "$build/damoyolo" import "$folder/checkpoint.safetensors" -o "$model" > /dev/null &&
  "$build/damoyolo" import tests/data/digits/digits-ns.pth -o "$digits" --names tests/data/digits/digits-ns.names \
    --size 256x256 > /dev/null || exit 1
rm "$folder/checkpoint.safetensors"

on=(--device "${device:-auto}")
bench() {  # NAME SECONDS OPTION...
  local name=$1 seconds=$2
  shift 2
  step "$seconds" "$folder/$name.json" "$build/damoyolo" bench "${on[@]}" "$@" --json "$folder/$name.json"
}

# bench for some batch sizes at once; one by one where that fails: a fault of a GPU takes all of a process along.
bench_batches() {  # NAME SECONDS BATCHES OPTION...
  local name=$1 seconds=$2 batches=$3 batch
  shift 3
  bench "$name" "$seconds" "$@" --batch "$batches" && return
  [ "$(left)" -gt 5 ] || return
  for batch in ${batches//,/ }; do bench "$name-$batch" $((seconds / 2)) "$@" --batch "$batch"; done
}

# Says which device it is, and measures its ceilings.
header() { bench header "$1" -w "$model" --batch 1 --seconds 1 --precision "$2" --mode "$3"; }
header 90 auto reduce-overhead || header 45 auto default || header 45 fp32 default ||
  { echo 'run.sh: the engine itself does not run here' >&2; exit 1; }
device=$("$python" -c 'import json, sys; print("cuda" if json.load(open(sys.argv[1]))["driver"] else "cpu")' \
  "$folder/header.json")
on=(--device "$device")
if [ "$device" = cuda ]; then precisions=fp32,bf16,fp16 late=120; else precisions=fp32,bf16 late=90; fi
if [ ${#chosen[@]} -eq 0 ]; then late=$((budget > 3 * late ? late : budget / 3)); else late=0; fi

# With these weights the others find so many objects that suppressing them would be most of it.
case $variant in S | T) pictures=(--pictures weights/demo) ;; *) pictures=() ;; esac
peers=()
for peer in torch onnxruntime $([ "$device" = cpu ] || echo tensorrt); do
  can="import numpy, torch, $peer"
  [ "$peer $device" != 'onnxruntime cuda' ] ||
    can+='; assert "CUDAExecutionProvider" in onnxruntime.get_available_providers(), "it has no CUDA"'
  if why=$("$python" -c "$can" 2>&1); then
    peers+=("$peer")
  else
    echo "== $python cannot run $peer on $device (${why##*$'\n'}): nothing is compared with it until \"pip install" \
         "torch numpy onnx onnxscript ${peer/#torch/onnxruntime}\" and bench/run.sh again"
  fi
done
if "$python" -c 'import numpy' 2> /dev/null; then
  # Beyond its own time it may end its last turns; what is cut off then would be lost.
  compare=$(($(left) - (late > 30 ? late : 30)))
  show=yes step $((compare + 30)) '' "$python" bench/compare.py --header "$folder/header.json" \
    --weights "$model" --device "$device" --build "$build" ${pictures[@]+"${pictures[@]}"} \
    --json "$folder/compare.json" --results "$results" --budget "$compare" \
    --peers "$(IFS=,; echo "${peers[*]-}")" ${chosen[@]+"${chosen[@]}"}
else
  echo "== $python has no numpy: nothing is compared with peers"
fi

if [ ${#chosen[@]} -eq 0 ]; then
  for batch in 1 16 32; do
    [ "$device" = cuda ] || [ $batch = 1 ] || continue
    step 60 "$folder/layers$batch.json" "$build/damoyolo" layers -w "$model" "${on[@]}" --batch $batch \
      --json "$folder/layers$batch.json"
  done
  step 60 "$folder/accuracy.json" "$python" bench/accuracy.py --header "$folder/header.json" --build "$build" \
    --json "$folder/accuracy.json" "${on[@]}" --seconds 30 \
    --precision "$precisions$([ "$device" = cpu ] || echo ,tf32)" \
    --set "digits=$digits,tests/data/digits/images,tests/data/digits/annotations.json" ${sets[@]+"${sets[@]}"}
  # The digits' model, for accuracy beside speed; then every batch and mode of the other.
  for precision in ${precisions//,/ }; do
    bench "digits-$precision" 15 -w "$digits" --batch 1 --seconds 0.5 --precision "$precision" --mode reduce-overhead
  done
  [ "$device" = cpu ] || bench digits-tf32 20 -w "$digits" --batch 1 --seconds 0.5 --precision fp32 --tf32 \
    --mode reduce-overhead
  batches=$([ "$device" = cuda ] && echo 1,2,4,8,16,32 || echo 1,2,4)
  all_batches() { bench_batches "$1" "$2" "$batches" -w "$model" --seconds 0.5 "${@:3}"; }
  all_batches bf16 60 --precision bf16 --mode default,reduce-overhead
  all_batches fp32 60 --precision fp32 --mode default,reduce-overhead
  if [ "$device" = cuda ]; then
    all_batches fp16 45 --precision fp16 --mode reduce-overhead
    all_batches tf32 45 --precision fp32 --tf32 --mode reduce-overhead
    batches=1,16,32 all_batches autotune 150 --precision bf16 --mode max-autotune
    if [ -x "$build/layer-bench" ]; then
      step 75 '' "$build/layer-bench" --variants "$variant" --batch 1 --seconds 45 --json "$folder/kernels.json"
      [ ! -e "$folder/kernels.json" ] || "$python" bench/layer_results.py "$results" "$folder/kernels.json"
    fi
  fi
fi

[ "$results" != bench/results ] || { "$python" bench/tables.py && "$python" bench/plot; }
echo "== $(cat "$folder/path"), after $SECONDS s"
