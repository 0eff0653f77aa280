#!/bin/sh
# Runs a test in Python 3 where that is; nothing else needs it. Packages may be where .ci/setup puts them.
#
#   tests/python.sh SCRIPT [ARGUMENT]...
tools=${XDG_CACHE_HOME:-${HOME:-}/.cache}/damoyolo/tools
command -v python3 > /dev/null && PYTHONPATH=$tools${PYTHONPATH:+:$PYTHONPATH} exec python3 "$@"
echo "ok 1 - $1 # SKIP python3 is not installed"
echo '1..1'
