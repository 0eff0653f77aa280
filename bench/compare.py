#!/usr/bin/env python3
"""This engine beside its peers: the same model, device and run, taking turns. bench/run.sh calls this.

    build/damoyolo bench -w S.safetensors --batch 1 --json bench.json
    bench/compare.py --header bench.json --weights S.safetensors --device cuda --json report.json [--batch 1,16]

Every engine in every configuration is a process of its own (bench/peers/*_bench.py, build/network-bench), which holds
the model ready on the device. Those of one group of configurations start one after another, with nothing cached. Then
they take turns, round after round, and each measures its own span. Before that, the outputs of each are compared with
this engine's fp32 outputs on the CPU, which the tests compare with the public model's; one that computes something else
is not timed.

Configurations that share a group can be compared, and their ratios are those of neighbouring turns: a drift of the
device's speed leaves them alone. The report is written after each group, so that a run cut short leaves what it has.
"""

import argparse
import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import report as reports

sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))
import numpy as np  # noqa: E402
import tensors  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROUNDS = 10
END_TO_END, END_TO_END_ROUNDS, END_TO_END_RUNS = ("damoyolo", "torch"), 5, 20  # which can; runs of each in all
ONNX_READERS = ("onnxruntime", "tensorrt")
CHECKED_IMAGES = 2
# Relative errors of scores and of boxes against fp32 on the CPU: ‖out − reference‖ / ‖reference‖. Noise makes the
# scores of a trained model small, and their error in 16 bits larger than that of pictures; another network is off by 1.
TOLERANCE = {"fp32": 1e-4, "tf32": 3e-2, "bf16": 3e-2, "fp16": 3e-2}
# What a turn takes beside what is measured, and a group beside its turns, in seconds.
TURN_SECONDS, GROUP_SECONDS = 3, 10
# What hangs may not eat the others' time: the longest turn; and this engine's start, which compiles nothing.
LONGEST_TURN, OUR_START, OUR_TUNED_START = 60, 30, 90
# What a start takes at least, by mode; a group that could not begin with less is left out, so that smaller ones behind
# it have their turn.
LEAST_START = {"default": 15, "reduce-overhead": 15, "max-autotune": 90, "level-3": 15, "level-5": 60}
OUR_LEAST_START = {"max-autotune": 30}

COMPILED = ("default", "reduce-overhead", "max-autotune")
# What TensorRT builds with beside PyTorch's mode that searches as long.
TENSORRT = {"reduce-overhead": "level-3", "max-autotune": "level-5"}
# The groups, in order of importance: batch, precisions, and PyTorch's modes. Compiling with max-autotune takes minutes.
GPU_GROUPS = [(batch, ["bf16"], ["channels-last", "reduce-overhead"]) for batch in (1, 16, 32)]
GPU_GROUPS += [(batch, ["bf16"], ["max-autotune"]) for batch in (1, 32, 16)]
GPU_GROUPS += [(1, ["bf16"], ["eager", "default"])]
GPU_GROUPS += [
    (batch, [precision], ["eager", "channels-last", "reduce-overhead"])
    for precision in ("fp16", "fp32", "tf32")
    for batch in (1, 16)
]
GPU_GROUPS += [(batch, ["bf16"], ["channels-last", "reduce-overhead"]) for batch in (8, 4, 2)]
CPU_GROUPS = [(batch, ["fp32", "bf16"], ["channels-last", "default"]) for batch in (1, 4)]


def our_modes(device, modes):
    """Beside those of PyTorch: the same, and the one that users get. A processor has one way."""
    if device == "cpu":
        return [None]
    return [mode for mode in COMPILED if mode in modes or mode == "reduce-overhead"]


class Failed(Exception):
    pass


class Worker:
    """A process that measures one configuration; see bench/peers/worker.py."""

    def __init__(self, command, log, cache):
        self.log = log
        # Nothing that was compiled or timed before is found again.
        environment = {**os.environ, "XDG_CACHE_HOME": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
        self.began = time.monotonic()
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        self.received = b""

    def answer(self, seconds):
        until = time.monotonic() + seconds
        while b"\n" not in self.received:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"no answer within {seconds:.0f} s")
            part = os.read(self.process.stdout.fileno(), 1 << 20)
            if not part:
                lines = pathlib.Path(self.log).read_text(errors="replace").strip().splitlines()
                raise Failed(lines[-1] if lines else f"stopped with status {self.process.wait()}")
            self.received += part
        line, _, self.received = self.received.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def ask(self, line, seconds):
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are still to be read
        return self.answer(seconds)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):  # and what it has started
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Lane:
    """One configuration while its group runs."""

    def __init__(self, configuration, worker, facts):
        self.configuration = configuration
        self.worker = worker
        self.facts = facts  # what the worker says of itself, and first_result_s
        self.runs = 0  # in each round
        # Milliseconds; a list for each round, but of back_to_back.
        self.rounds, self.back_to_back, self.end_to_end = [], [], []


class Comparison:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.until = time.monotonic() + args.budget
        model = json.loads(tensors.read(args.weights)[0]["model"])
        self.size = model["input_size"]
        self.workload = {"variant": model["variant"], "size": "x".join(map(str, self.size))}
        self.images, self.reference = f"{folder}/images.safetensors", None
        self.report = None
        self.onnx = {}

    def left(self):
        return self.until - time.monotonic()

    def command(self, configuration, batch):
        engine, precision, mode = configuration
        programs = {
            "damoyolo": [str(self.args.build / "network-bench")],
            "torch": [self.args.python, str(ROOT / "bench/peers/torch_bench.py")],
            "onnxruntime": [self.args.python, str(ROOT / "bench/peers/onnxruntime_bench.py")],
            "tensorrt": [self.args.python, str(ROOT / "bench/peers/tensorrt_bench.py")],
        }
        options = {
            "weights": self.onnx_file(batch, precision) if engine in ONNX_READERS else self.args.weights,
            "images": self.images,
            "device": self.args.device,
            "precision": precision,
            "mode": mode or "default",
            "batch": batch,
            "threads": self.args.threads,
        }
        if self.args.pictures and engine in END_TO_END:
            options["pictures"] = self.args.pictures
        return programs[engine] + [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def onnx_file(self, batch, precision):
        key = batch, "fp32" if precision == "tf32" else precision
        if key not in self.onnx:
            path = f"{self.folder}/{key[1]}-{batch}.onnx"
            exporter = ROOT / "bench/peers/export_onnx.py"
            command = [self.args.python, str(exporter), self.args.weights, path]
            command += ["--batch", str(batch), "--precision", key[1]]
            try:
                subprocess.run(command, capture_output=True, text=True, check=True, timeout=max(self.left(), 1))
            except subprocess.CalledProcessError as error:
                raise Failed(f"the model could not be exported: {error.stderr.strip().splitlines()[-1]}")
            except subprocess.TimeoutExpired:
                raise Failed("there was no time to export the model")
            self.onnx[key] = path
        return self.onnx[key]

    def compute_reference(self):
        pixels = tensors.golden_bytes("input", CHECKED_IMAGES * 3 * self.size[0] * self.size[1])
        tensors.write(self.images, {"images": pixels.reshape(CHECKED_IMAGES, *self.size, 3)})
        path = f"{self.folder}/reference.safetensors"
        command = [self.args.build / "damoyolo", "forward", "-w", self.args.weights, "-i", self.images, "-o", path]
        command += ["--device", "cpu", "--precision", "fp32"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.reference = tensors.read(path)[1]

    def check(self, lane):
        path = f"{self.folder}/outputs.safetensors"
        lane.worker.ask(f"outputs {path}", LONGEST_TURN)
        outputs = tensors.read(path)[1]
        bound = TOLERANCE[lane.configuration[1]]
        for name in ("scores", "boxes"):
            expected = self.reference[name][: len(outputs[name])]
            if expected.shape != outputs[name].shape:
                raise Failed(f"{name} have the shape {outputs[name].shape}, expected {expected.shape}")
            error = np.linalg.norm(outputs[name] - expected) / np.linalg.norm(expected)
            if not error <= bound:
                raise Failed(f"its {name} have a relative error of {error:.2g}, expected at most {bound:g}")

    def left_out(self, configuration, batch, reason):
        engine, precision, mode = configuration
        print(f"  left out: {describe(configuration)}: {reason}", flush=True)
        row = {"engine": engine, **self.workload, "precision": precision, "mode": mode, "batch": batch}
        reports.put(self.report, "left_out", [{**row, "reason": reason}])

    def prepare(self, configuration, batch, reserved):
        """The lane, when it is ready and computes what it should; nothing else runs meanwhile."""
        worker = ready = None
        began = time.monotonic()
        try:
            command = self.command(configuration, batch)
            tuned = configuration[2] in ("max-autotune", TENSORRT["max-autotune"])
            longest = self.args.prepare * (2 if tuned else 1)
            if configuration[0] == "damoyolo":
                longest = min(longest, OUR_TUNED_START if tuned else OUR_START)
            seconds = min(longest, self.left() - reserved)
            if seconds < min(longest, self.starting_takes([configuration])):
                raise Failed("the time was used up")
            name = "-".join(word for word in (*configuration, str(batch)) if word)
            worker = Worker(command, f"{self.folder}/{name}.log", tempfile.mkdtemp(dir=self.folder))
            facts = worker.answer(seconds)
            lane = Lane(configuration, worker, {**facts, "first_result_s": time.monotonic() - worker.began})
            self.check(lane)
            ready = lane
        except (Failed, OSError, ValueError) as error:
            self.left_out(configuration, batch, f"{error} (after {time.monotonic() - began:.0f} s)")
        finally:
            if worker is not None and ready is None:
                worker.close()
        return ready

    def measure(self, lanes, batch):
        """Each lane gets its seconds, in rounds, or fewer rounds where the time is used up."""
        for round_number in range(ROUNDS):
            if round_number > 0 and self.left() < 0:
                break
            for lane in list(lanes):
                try:
                    if not lane.rounds:
                        once = statistics.median(lane.worker.ask("run 3", LONGEST_TURN)["alone_ms"])
                        lane.runs = max(3, round(1e3 * self.args.seconds / ROUNDS / once))
                    times = lane.worker.ask(f"run {lane.runs}", LONGEST_TURN)
                    lane.rounds.append(times["alone_ms"])
                    lane.back_to_back += times["back_to_back_ms"]
                except (Failed, ValueError) as error:
                    lane.worker.close()
                    lanes.remove(lane)
                    self.left_out(lane.configuration, batch, str(error))
        for lane in lanes:
            try:
                lane.facts.update(lane.worker.ask("memory", LONGEST_TURN))
            except Failed as error:
                print(f"  {describe(lane.configuration)}: {error}")  # its times stand
        if self.args.pictures:
            self.measure_end_to_end([lane for lane in lanes if lane.configuration[0] in END_TO_END])

    def measure_end_to_end(self, lanes):
        """In turns, too. What fails here has its network's times still."""
        for _ in range(END_TO_END_ROUNDS):
            if self.left() < 0:
                break
            for lane in list(lanes):
                runs = max(1, min(END_TO_END_RUNS, lane.runs * ROUNDS // 2) // END_TO_END_ROUNDS)
                try:
                    lane.end_to_end.append(lane.worker.ask(f"end_to_end {runs}", LONGEST_TURN)["alone_ms"])
                except Failed as error:
                    lanes.remove(lane)
                    print(f"  {describe(lane.configuration)}: {error}")

    def entries(self, lane, batch):
        _, precision, mode = lane.configuration
        begin = {"engine": lane.facts["engine"], **self.workload, "precision": precision, "mode": mode, "batch": batch}
        if "engine_version" in lane.facts:
            begin["engine_version"] = lane.facts["engine_version"]
        end = {name: lane.facts.get(name) for name in ("device_memory_mb", "first_result_s", "plan_s")}
        summary = lambda rounds: reports.summary([time for times in rounds for time in times], batch)
        network = {**begin, "span": "network", **summary(lane.rounds), **end}
        if lane.back_to_back and self.args.device == "cuda":
            network["back_to_back_ms"] = statistics.median(lane.back_to_back)
        entries = [network]
        if lane.end_to_end:
            entries.append({**begin, "span": "end_to_end", **summary(lane.end_to_end), **end})
        for entry in entries:
            print(f"  {describe(lane.configuration):<32} {entry['span']:<10} {entry['median_ms']:9.3f} ms", flush=True)
        rounded = lambda value: float(f"{value:.6g}") if isinstance(value, float) else value
        return [{name: rounded(value) for name, value in entry.items()} for entry in entries]

    def ratios(self, lanes, batch):
        """How many times faster each of ours is than each of theirs, in each span."""
        spans = {"network": lambda lane: lane.rounds, "end_to_end": lambda lane: lane.end_to_end}
        return [row for span, rounds in spans.items() for row in self.ratios_of(lanes, batch, span, rounds)]

    def ratios_of(self, lanes, batch, span, rounds):
        rows = []
        for ours in lanes:
            for theirs in lanes:
                if ours.configuration[0] != "damoyolo" or theirs.configuration[0] == "damoyolo":
                    continue
                values = [statistics.median(b) / statistics.median(a) for a, b in zip(rounds(ours), rounds(theirs))]
                if not values:
                    continue
                row = {**self.workload, "batch": batch, "span": span}
                for name, lane in (("of", ours), ("over", theirs)):
                    row[name] = dict(zip(("engine", "precision", "mode"), lane.configuration))
                figures = {"ratio": statistics.median(values), "low": min(values), "high": max(values)}
                row.update({name: round(value, 4) for name, value in figures.items()}, rounds=len(values))
                rows.append(row)
        return rows

    def measuring_takes(self, configurations):
        return GROUP_SECONDS + len(configurations) * (self.args.seconds + TURN_SECONDS)

    def starting_takes(self, configurations):
        """At least."""
        least = lambda engine, mode: (OUR_LEAST_START if engine == "damoyolo" else LEAST_START).get(mode, 3)
        return sum(least(engine, mode) for engine, _, mode in configurations)

    def configurations(self, precisions, modes):
        found = []
        for precision in precisions:
            found += [("damoyolo", precision, mode) for mode in our_modes(self.args.device, modes)]
            if "torch" in self.args.peers:
                found += [("torch", precision, mode) for mode in modes]
            tf32 = precision == "tf32" and self.args.device == "cuda"
            if "onnxruntime" in self.args.peers and (tf32 or precision == "fp32"):
                found.append(("onnxruntime", precision, None))
            if "tensorrt" in self.args.peers and self.args.device == "cuda":
                found += [("tensorrt", precision, level) for mode, level in TENSORRT.items() if mode in modes]
        return found

    def run_group(self, batch, precisions, modes):
        configurations = self.configurations(precisions, modes)
        reserved = self.measuring_takes(configurations)
        if self.left() < reserved + self.starting_takes(configurations):
            for configuration in configurations:
                self.left_out(configuration, batch, "the time was used up")
            return
        lanes = []
        try:
            for configuration in configurations:
                lane = self.prepare(configuration, batch, reserved)
                lanes += [lane] if lane else []
            self.measure(lanes, batch)
            reports.put(self.report, "entries", [entry for lane in lanes for entry in self.entries(lane, batch)])
            reports.put(self.report, "ratios", self.ratios(lanes, batch))
        finally:
            for lane in lanes:
                lane.worker.close()

    def run(self):
        self.report = reports.like(self.args.header, "bench/compare.py " + " ".join(sys.argv[1:]))
        self.compute_reference()
        for batch, precisions, modes in GPU_GROUPS if self.args.device == "cuda" else CPU_GROUPS:
            precisions = [p for p in precisions if not self.args.precision or p in self.args.precision]
            modes = [mode for mode in modes if not self.args.mode or mode in self.args.mode]
            if precisions and modes and (not self.args.batch or batch in self.args.batch):
                what = f"{' and '.join(precisions)}, PyTorch {' and '.join(modes)}"
                print(f"{self.workload['variant']}, batch {batch}, {what} ({self.left():.0f} s left):", flush=True)
                self.run_group(batch, precisions, modes)
                reports.write(self.report, self.args.json)
                if self.args.results:
                    reports.add(self.args.results, self.report)


def describe(configuration):
    return " ".join(word for word in configuration if word)


def stop(*_):
    """So that workers are ended, too, which a second signal would interrupt."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--json", required=True, help="the report to write")
    parser.add_argument("--results", help="a folder of reports, into whose of the device that is joined each time")
    parser.add_argument("--header", required=True,
                        help="a report whose device, versions and commit this one takes over")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--python", default=sys.executable, help="the one that runs the peers")
    parser.add_argument("--peers", type=words, default=["torch", "onnxruntime", "tensorrt"])
    parser.add_argument("--precision", type=words, help="only these")
    parser.add_argument("--mode", type=words, help="of PyTorch, only these")
    parser.add_argument("--batch", type=lambda text: [int(word) for word in text.split(",")], help="only these")
    parser.add_argument("--pictures", help="a folder of them, for end-to-end runs")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, help="that each configuration is timed for (GPU: 2, CPU: 6)")
    parser.add_argument("--budget", type=float, default=3600, help="seconds that everything may take")
    parser.add_argument("--prepare", type=float, default=180,
                        help="seconds a peer may take to its first result, twice as many for max-autotune")
    args = parser.parse_args()
    args.seconds = args.seconds or (2 if args.device == "cuda" else 6)
    folder = tempfile.mkdtemp(prefix="damoyolo-bench-")
    signal.signal(signal.SIGTERM, stop)
    try:
        Comparison(args, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what a peer had started may write its last


if __name__ == "__main__":
    main()
