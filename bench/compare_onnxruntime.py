#!/usr/bin/env python3
"""This engine beside ONNX Runtime's CPU provider: same model, threads, machine and run, taking turns.

    pip install onnxruntime numpy
    bench/compare_onnxruntime.py --onnx T_640.onnx --weights T.safetensors [--threads 2] [--batch 1] [--json FILE]

Both go from an image of the network's size to the scores and boxes of all anchors; this engine takes it as bytes,
ONNX Runtime as floats that are converted outside the clock. Rounds alternate; what is compared is the median of the
ratios of neighbouring rounds' medians, which a drift of the machine's speed leaves alone.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import time

import numpy as np
import onnxruntime


class Engine:
    def __init__(self, args, precision):
        command = [args.bench, args.weights, precision, str(args.threads), str(args.batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("network-bench stopped; its message is above")
        return [float(word) for word in answer.split()]

    def run(self, times):
        return self.ask(times)


class Onnx:
    def __init__(self, args, images):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
        self.feed = {self.session.get_inputs()[0].name: images}

    def run(self, times):
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            self.session.run(None, self.feed)
            seconds.append(time.perf_counter() - begin)
        return seconds

    def check(self):
        scores, boxes = self.session.run(None, self.feed)
        return [float(scores.max()), float(scores.sum(dtype=np.float64)), float(boxes.sum(dtype=np.float64))]


def golden_bytes(name, count):
    """The bytes that tests/golden_generator.h gives."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(56)).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--bench", default=str(pathlib.Path(__file__).parents[1] / "build" / "network-bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=10, help="in each round")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--json")
    args = parser.parse_args()

    size = onnxruntime.InferenceSession(args.onnx, providers=["CPUExecutionProvider"]).get_inputs()[0].shape[2:]
    pixels = golden_bytes("input", args.batch * size[0] * size[1] * 3).reshape(args.batch, *size, 3)
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)

    peer = Onnx(args, images)
    runners = {"onnxruntime fp32": peer}
    for precision in args.precision:
        runners[f"damoyolo {precision}"] = Engine(args, precision)
    expected = peer.check()
    print(f"onnxruntime {onnxruntime.__version__}: largest score, sums of scores and boxes", *expected)
    for name, runner in runners.items():
        if runner is peer:
            continue
        found = runner.ask("check")
        print(f"{name}:", *found)
        if "fp32" in name and max(abs(a - b) / max(abs(a), 1) for a, b in zip(expected, found)) > 1e-4:
            raise SystemExit("the two engines do not compute the same; nothing was timed")

    medians = {name: [] for name in runners}
    every = {name: [] for name in runners}
    for round_number in range(args.rounds + 1):
        for name, runner in runners.items():
            seconds = runner.run(args.runs)
            if round_number > 0:  # the first warms up
                medians[name].append(statistics.median(seconds))
                every[name] += seconds

    report = {"onnx": pathlib.Path(args.onnx).name, "threads": args.threads, "batch": args.batch, "engines": {}}
    print(f"{'':<20}{'median ms':>10}{'min ms':>10}{'p95 ms':>10}{'speed-up':>10}")
    for name in runners:
        times = sorted(every[name])
        ratio = statistics.median(a / b for a, b in zip(medians["onnxruntime fp32"], medians[name]))
        row = {
            "median_ms": 1e3 * statistics.median(times),
            "min_ms": 1e3 * times[0],
            "p95_ms": 1e3 * times[int(0.95 * (len(times) - 1))],
            "median_ratio": ratio,
        }
        report["engines"][name] = row
        print(f"{name:<20}{row['median_ms']:>10.2f}{row['min_ms']:>10.2f}{row['p95_ms']:>10.2f}{ratio:>9.2f}x")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
