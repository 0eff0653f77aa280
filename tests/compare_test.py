#!/usr/bin/env python3
"""Tests of bench/compare.py with engines that only speak its language, and of its peers. Prints the Test Anything
Protocol.

Peers fail in every way there is: each costs itself alone.
"""

import ast
import contextlib
import io
import json
import os
import pathlib
import signal
import sys
import tempfile
import time

import tap

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench")]

# All programs in one: this engine, which gives the reference, too, and the peers, by PyTorch's modes.
PROGRAM = f"""#!{sys.executable}
import json, os, sys, time
sys.path.insert(0, "{ROOT}/bench/peers")
import numpy, tensors

outputs = dict(scores=numpy.ones((2, 5, 3), numpy.float32), boxes=numpy.ones((2, 5, 4), numpy.float32))
if sys.argv[1] == "forward":
    tensors.write(sys.argv[sys.argv.index("-o") + 1], outputs)
    sys.exit()
torch, mode = "torch_bench" in sys.argv[1], sys.argv[sys.argv.index("--mode") + 1]
say = lambda message: print(json.dumps(message), flush=True)
if torch and mode == "eager":
    with open(os.environ["PEER"], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
if torch and mode == "default":
    sys.exit("a crash")
say(dict(engine="torch" if torch else "damoyolo"))
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "run":
        say(dict(alone_ms=[3.0 if torch else 1.5] * int(rest), back_to_back_ms=[1.0]))
    elif word == "end_to_end":
        sys.exit("another crash")
    elif word == "outputs":
        if torch and mode == "channels-last":
            outputs["scores"][0] = 2
        tensors.write(rest, outputs)
        say(dict())
    else:
        say(dict(device_memory_mb=1.0))
"""


def compared(*options, modes):
    """The report of one group with these modes of PyTorch."""
    import compare
    import tensors

    with tempfile.TemporaryDirectory() as folder:
        for name in ("damoyolo", "network-bench", "python"):
            program = pathlib.Path(folder) / name
            program.write_text(PROGRAM)
            program.chmod(0o755)
        header = {"device": "Example GPU 1", "driver": "1.0", "cuda": "13.0", "cudnn": None, "commit": "abc"}
        header |= {"date": "2026-01-31T12:00:00Z", "ceilings": {"copy_gbs": None, "bf16_tflops": None}}
        header |= {"entries": [], "layers": [], "accuracy": []}
        pathlib.Path(f"{folder}/header.json").write_text(json.dumps(header))
        model = {"variant": "S", "input_size": [8, 8]}
        tensors.write(f"{folder}/weights.safetensors", {}, {"model": json.dumps(model)})
        compare.GPU_GROUPS = [(1, ["bf16"], modes)]
        sys.argv = ["compare.py", "--header", f"{folder}/header.json", "--weights", f"{folder}/weights.safetensors"]
        sys.argv += ["--device", "cuda", "--build", folder, "--python", f"{folder}/python", "--peers", "torch"]
        sys.argv += ["--json", f"{folder}/compare.json", "--results", folder, "--pictures", folder]
        sys.argv += ["--seconds", "0.05", *options]
        with contextlib.redirect_stdout(io.StringIO()):
            compare.main()
        return json.loads(pathlib.Path(f"{folder}/example-gpu-1.json").read_text())


def modes_of(report, kind, engine):
    return [row["mode"] for row in report[kind] if row["engine"] == engine]


def test_peers_that_fail_cost_themselves_alone():
    modes = ["eager", "channels-last", "default", "reduce-overhead"]
    report = compared("--prepare", "2", modes=modes)
    reasons = {row["mode"]: row["reason"] for row in report["left_out"]}
    assert list(reasons) == modes[:3], reasons
    assert "no answer within" in reasons["eager"] and "a crash" in reasons["default"], reasons
    assert "relative error" in reasons["channels-last"], reasons
    assert modes_of(report, "entries", "torch") == ["reduce-overhead"]
    assert modes_of(report, "entries", "damoyolo") == ["default", "reduce-overhead"]
    assert [(row["of"]["mode"], row["ratio"]) for row in report["ratios"]] == [("default", 2), ("reduce-overhead", 2)]


def test_what_there_is_no_time_for_is_not_begun():
    report = compared("--budget", "100", modes=["max-autotune"])
    assert report["entries"] == [] and modes_of(report, "left_out", "torch") == ["max-autotune"]
    report = compared("--budget", "100", modes=["reduce-overhead"])
    assert modes_of(report, "entries", "torch") == ["reduce-overhead"]


def test_ours_choose_by_timing_where_theirs_do():
    report = compared(modes=["max-autotune"])
    assert modes_of(report, "entries", "damoyolo") == ["reduce-overhead", "max-autotune"]


def test_a_peer_ends_with_what_has_started_it():
    import compare  # noqa: F401  # here, so that it is known to be there

    pathlib.Path(os.environ["PEER"]).unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            compared(modes=["eager"])
        os._exit(0)
    until = time.monotonic() + 30
    while not (written := peer_pid()) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGTERM)  # from a process group and from a parent in it, say
    os.waitpid(child, 0)
    assert written and not pathlib.Path(f"/proc/{written}").exists()


def peer_pid():
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(os.environ["PEER"]).read_text()


def test_no_function_hides_a_module():
    """An import of a.b inside a function makes `a` its own name there, unknown in branches that do not import."""
    bound = lambda node: {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    imports = lambda tree: [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    for path in [*ROOT.glob("bench/**/*.py"), ROOT / "bench/plot"]:
        tree = ast.parse(path.read_text())
        known = set().union(*(bound(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                hidden = known & set().union(*map(bound, imports(function)))
                assert not hidden, f"{path}: {function.name} hides {hidden}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEER"] = f"{folder}/peer"  # where a peer that hangs writes its number
        tap.run("compare", globals())
