#!/usr/bin/env python3
"""What the compiler made of the kernels, from their object files.

    kernels/sass_report.py BUILD

Prints for every kernel and architecture:

    code                instructions
    registers, shared   of a thread; static bytes of a block
    spills              loads and stores of local memory
    HMMA, HGMMA         instructions of the tensor cores: mma.sync, wgmma
    loop                instructions of the loop around them, for each of them
    retried             TMA copies in a loop of their own, because the compiler did not see that one thread issues them

and as a test (https://testanything.org) whether a kernel spills, whether the convolutions use the tensor cores,
whether they do so without detours that the compiler takes when it sees too little: TMA copies that are retried, and
products of warpgroups that wait for each other; and whether every kernel waits for those before it. It needs cuobjdump
and nvdisasm: $CUOBJDUMP, or on the path, in the CUDA toolkit, or where .ci/setup puts them.
"""

import concurrent.futures
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARCHITECTURE = re.compile(r"^(?:arch = |\tcode for )sm_(\w+)")
USAGE_OF = re.compile(r"^ Function (\S+):$")
USAGE = re.compile(r"REG:(\d+) STACK:\d+ SHARED:(\d+)")
CODE_OF = re.compile(r"^\t\tFunction : (\S+)$")
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")
TENSOR = ("HMMA", "HGMMA")
FEWEST_INSTRUCTIONS = 64  # of a kernel that is not empty


class Kernel:
    """Of one architecture. `code`: address, name with its suffixes, operands."""

    def __init__(self, architecture, name):
        self.architecture, self.name, self.code = architecture, name, []
        self.registers = self.shared = 0

    def addresses(self, *names):
        return [address for address, name, _ in self.code if name.split(".")[0] in names]

    def loops(self, branch):
        """First and last address of what lies between backward branches of this name and their targets."""
        for address, name, operands in self.code:
            target = re.findall(r"0x([0-9a-f]+)", operands)
            if name.startswith(branch) and target and int(target[-1], 16) < address:
                yield int(target[-1], 16), address

    def product_loop(self):
        """The code of the shortest loop around instructions of the tensor cores; empty without one."""
        tensor = self.addresses(*TENSOR)
        loops = [loop for loop in self.loops("BRA") if any(loop[0] <= address <= loop[1] for address in tensor)]
        first, last = min(loops, key=lambda loop: loop[1] - loop[0], default=(1, 0))
        return [line for line in self.code if first <= line[0] <= last]

    def loop_cost(self):
        """Instructions of that loop for each of the tensor cores'; None without it."""
        loop = self.product_loop()
        return len(loop) / sum(name.split(".")[0] in TENSOR for _, name, _ in loop) if loop else None

    def retried_copies(self):
        loops = list(self.loops("BRA.U.ANY"))
        copies = self.addresses("UTMALDG", "UTMASTG")
        return sum(any(first <= address <= last for first, last in loops) for address in copies)


def parse(text):
    """The kernels in the output of cuobjdump --dump-resource-usage --dump-sass."""
    kernels, architecture, kernel = {}, None, None

    def named(name):
        return kernels.setdefault((architecture, name), Kernel(architecture, name))

    for line in text.splitlines():
        if found := ARCHITECTURE.match(line):
            architecture = found[1]
        elif found := USAGE_OF.match(line) or CODE_OF.match(line):
            kernel = named(found[1])
        elif found := USAGE.search(line):
            kernel.registers, kernel.shared = int(found[1]), int(found[2])
        elif found := INSTRUCTION.match(line):
            kernel.code.append((int(found[1], 16), found[2], found[3]))
    return [kernels[key] for key in sorted(kernels)]


def spill_faults(source, kernel):
    count = len(kernel.addresses("LDL", "STL"))
    return [f"{count} instructions spill"] if count else []


def tensor_core_faults(source, kernel):
    """conv_smNN is made for devices of compute capability NN / 10, and up where NN has no letter."""
    number = int(kernel.architecture.rstrip("af"))
    if source == "conv_sm80" and number >= 80 and not kernel.addresses("HMMA"):
        return ["no mma.sync"]
    if source.startswith("conv_sm90") and kernel.architecture == "90a" and not kernel.addresses("HGMMA"):
        return ["no wgmma"]
    return []


def detour_faults(source, kernel):
    """Products of one step are waited for once, however many there are."""
    waits = sum(name.startswith("WARPGROUP.DEPBAR") for _, name, _ in kernel.product_loop())
    faults = [f"a step waits {waits} times for products"] if waits > 1 else []
    if retried := kernel.retried_copies():
        faults.append(f"{retried} copies are retried")
    # Warpgroups wait for ever where others cannot give them what they take: 384 · 168 = 128 · 40 + 256 · 232.
    if kernel.addresses("USETMAXREG") and kernel.registers != 168:
        faults.append(f"starts with {kernel.registers} registers, with which setmaxnreg does not come out")
    return faults


def order_faults(source, kernel):
    """Any kernel may be launched before the one before it has ended, and then has to wait for it."""
    if kernel.architecture == "90a" and len(kernel.code) >= FEWEST_INSTRUCTIONS and not kernel.addresses("ACQBULK"):
        return ["never waits for the kernels before it"]
    return []


TESTS = {
    "sass: no kernel spills": spill_faults,
    "sass: the convolutions use the tensor cores": tensor_core_faults,
    "sass: the convolutions take no detours": detour_faults,
    "sass: every kernel waits for those before it": order_faults,
}


def find_cuobjdump():
    """A cuobjdump that has nvdisasm beside it or on the path, without which it shows no code; or None."""
    toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    places = [os.environ.get("CUOBJDUMP"), shutil.which("cuobjdump"), f"{toolkit}/bin/cuobjdump"]
    places += sorted(glob.glob(f"{cache}/damoyolo/tools/nvidia/*/bin/cuobjdump"))
    for place in filter(None, places):
        beside = os.path.join(os.path.dirname(place), "nvdisasm")
        if os.path.exists(place) and (os.path.exists(beside) or shutil.which("nvdisasm")):
            return place
    return None


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


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
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    cuobjdump = find_cuobjdump()
    faults = {test: [] for test in TESTS}
    if cuobjdump:
        objects = {path.stem: f"{sys.argv[1]}/obj/kernels/{path.name}.o" for path in sorted(ROOT.glob("kernels/*.cu"))}
        if missing := [path for path in objects.values() if not os.path.exists(path)]:
            sys.exit(f"{missing[0]} is not there: make BUILD={sys.argv[1]} sass-report builds it")
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            dump = lambda path: run(cuobjdump, "--dump-resource-usage", "--dump-sass", path)
            texts = pool.map(dump, objects.values())
            kernels = [(source, kernel) for source, text in zip(objects, texts) for kernel in parse(text)]
        names = readable(sorted({kernel.name for _, kernel in kernels}))
        print(" code registers shared spills  HMMA HGMMA   loop retried  kernel")
        for source, kernel in kernels:
            label = f"sm_{kernel.architecture} {names[kernel.name]}"
            for test, faults_of in TESTS.items():
                faults[test] += [f"{label}: {fault}" for fault in faults_of(source, kernel)]
            if len(kernel.code) < FEWEST_INSTRUCTIONS:
                continue
            spills, hmma, hgmma = (len(kernel.addresses(*names)) for names in (("LDL", "STL"), ("HMMA",), ("HGMMA",)))
            cost, retried = kernel.loop_cost(), kernel.retried_copies()
            print(f"{len(kernel.code):5} {kernel.registers:9} {kernel.shared:6} {spills:6} {hmma:5} {hgmma:5} "
                  f"{'' if cost is None else format(cost, '.1f'):>6} {retried or '':>7}  {label}")
    skipped = "" if cuobjdump else " # SKIP cuobjdump and nvdisasm are not installed"
    for number, (test, found) in enumerate(faults.items(), 1):
        for fault in found:
            print(f"# {fault}")
        print(f"{'not ok' if found else 'ok'} {number} - {test}{skipped}")
    print(f"1..{len(faults)}")
    return 1 if any(faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
