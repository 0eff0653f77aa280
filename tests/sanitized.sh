#!/bin/sh
# Runs the cases of a test program as tests/cases.sh does, under a tool of compute-sanitizer where that is: on the path,
# or in the CUDA toolkit, $CUDA_HOME.
#
#   tests/sanitized.sh TOOL SECONDS[/TOTAL] PROGRAM...
set -u

tool=$1 seconds=$2
shift 2
toolkit=${CUDA_HOME:-/usr/local/cuda}
sanitizer=$(PATH=$PATH:$toolkit/bin:$toolkit/compute-sanitizer command -v compute-sanitizer) || {
  echo "ok 1 - $tool: $* # SKIP compute-sanitizer is neither on the path nor in $toolkit"
  echo '1..1'
  exit
}
exec tests/cases.sh "$seconds" "$sanitizer" --tool "$tool" --error-exitcode 9 "$@"
