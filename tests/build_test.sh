#!/bin/sh
# Tests that the build finds cuDNN's headers where the programs find its library: in the environment of each python3 on
# the path.
set -u
unset MAKEFLAGS MFLAGS MAKELEVEL VIRTUAL_ENV CONDA_PREFIX

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
include=$folder/lib/python3.12/site-packages/nvidia/cudnn/include
mkdir -p "$folder/bin" "$include"
touch "$folder/bin/python3" "$include/cudnn_graph.h"
chmod +x "$folder/bin/python3"

found=$(PATH=$folder/bin:$PATH make -s --eval 'headers: ; @echo $(CUDNN_HEADERS)' CPU_ONLY=1 headers)
case " $found " in
  *" $include/cudnn_graph.h "*) ;;
  *)
    echo "$include is not among: $found"
    printf 'not '
    ;;
esac
echo "ok 1 - the build looks for cuDNN's headers beside each python3 on the path"
echo '1..1'
