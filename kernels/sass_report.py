#!/usr/bin/env python3
"""What the compiler made of the kernels, from their object files.

    kernels/sass_report.py CUOBJDUMP OBJECT...

Prints for every kernel and architecture: registers, static shared memory, instructions that spill (loads and stores of
local memory), and instructions of the tensor cores (HMMA: mma.sync, HGMMA: wgmma). The exit status is 1 when a
convolution spills, or has no instruction of the tensor cores on an architecture it is made for. Kernels that are empty
there (those of another generation) are left out.
"""

import re
import shutil
import subprocess
import sys

ARCHITECTURE = re.compile(r"^(?:arch = |\tcode for )(sm_\w+)")
USAGE_OF = re.compile(r"^ Function (\S+):$")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
CODE_OF = re.compile(r"^\t\tFunction : (\S+)$")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
FEWEST_INSTRUCTIONS = 64  # of a kernel that is not empty


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


class Kernel:
    def __init__(self):
        self.registers = self.shared = self.instructions = self.spills = 0
        self.tensor = {"HMMA": 0, "HGMMA": 0}


def read(cuobjdump, path):
    """(architecture, mangled name) -> Kernel"""
    kernels = {}
    architecture = kernel = None
    for line in run(cuobjdump, "--dump-resource-usage", path).splitlines():
        if found := ARCHITECTURE.match(line):
            architecture = found[1]
        elif found := USAGE_OF.match(line):
            kernel = kernels.setdefault((architecture, found[1]), Kernel())
        elif kernel and (found := USAGE.search(line)):
            kernel.registers, kernel.shared = int(found[1]), int(found[3])
            kernel = None
    kernel = None
    for line in run(cuobjdump, "--dump-sass", path).splitlines():
        if found := ARCHITECTURE.match(line):
            architecture = found[1]
        elif found := CODE_OF.match(line):
            kernel = kernels.setdefault((architecture, found[1]), Kernel())
        elif kernel and (found := INSTRUCTION.match(line)):
            name = found[1].split(".")[0]
            kernel.instructions += 1
            kernel.spills += name in ("LDL", "STL")
            if name in kernel.tensor:
                kernel.tensor[name] += 1
    return kernels


def readable(names):
    """Kernels' names without namespaces, arguments and values of enumerations."""
    if not names or not shutil.which("c++filt"):
        return {name: name for name in names}
    result = {}
    for name, text in zip(names, run("c++filt", input="\n".join(names)).splitlines()):
        text = re.sub(r"^void ", "", text)
        text = re.sub(r"\(anonymous namespace\)::|damoyolo::(?:kernels::)?|__nv_(?=bfloat16)|__(?=half)", "", text)
        result[name] = re.sub(r"\(.*\)$", "", re.sub(r"\((?:int|unsigned int|bool)\)", "", text))
    return result


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    cuobjdump, paths = sys.argv[1], sys.argv[2:]
    faults = []
    print(f"{'registers':>9} {'shared':>7} {'spills':>6} {'HMMA':>5} {'HGMMA':>5}  kernel")
    for path in paths:
        kernels = read(cuobjdump, path)
        names = readable(sorted({name for _, name in kernels}))
        for (architecture, name), kernel in sorted(kernels.items()):
            if kernel.instructions < FEWEST_INSTRUCTIONS:
                continue
            label = f"{architecture} {names[name]}"
            print(
                f"{kernel.registers:9} {kernel.shared:7} {kernel.spills:6} {kernel.tensor['HMMA']:5} "
                f"{kernel.tensor['HGMMA']:5}  {label}"
            )
            if "conv_sm" not in path:
                continue
            if kernel.spills:
                faults.append(f"{label}: {kernel.spills} instructions spill")
            if not any(kernel.tensor.values()):
                faults.append(f"{label}: no instruction of the tensor cores")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
