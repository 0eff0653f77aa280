#!/usr/bin/env python3
"""Writes the tables in docs/performance.md, between its markers, from every report in bench/results.

Needs Python's own library only. A cell without a run behind it stays empty, and the command that fills it is named.
"""

import pathlib

import layer_results
import report as reports

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT, RESULTS = ROOT / "docs/performance.md", ROOT / "bench/results"
BEGIN, END = "<!-- bench/tables.py: begin -->", "<!-- bench/tables.py: end -->"

PRECISIONS = ("bf16", "fp16", "tf32", "fp32")
COMPILED = ("default", "reduce-overhead", "max-autotune")
NAMES = {"damoyolo": "damoyolo", "torch": "PyTorch", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}


def order_of(configuration):
    engine, precision, mode = configuration
    modes = (None, "eager", "channels-last", *COMPILED, "level-3", "level-5")
    return PRECISIONS.index(precision), list(NAMES).index(engine), modes.index(mode)


def rows_for(gpu):
    """The configurations that have a row, measured or not."""
    if not gpu:
        rows = [(engine, precision, None) for engine in ("damoyolo",) for precision in ("bf16", "fp32")]
        rows += [("torch", precision, mode) for precision in ("bf16", "fp32") for mode in ("channels-last", "default")]
        return rows + [("onnxruntime", "fp32", None)]
    rows = [("damoyolo", "bf16", mode) for mode in ("reduce-overhead", "max-autotune")]
    rows += [("torch", "bf16", mode) for mode in ("channels-last", "reduce-overhead", "max-autotune")]
    for precision in ("fp16", "tf32", "fp32"):
        rows.append(("damoyolo", precision, "reduce-overhead"))
        rows += [("torch", precision, mode) for mode in ("eager", "channels-last", "reduce-overhead")]
    return rows


def table(titles, rows, numbers=1):
    """Markdown; the last `numbers` columns are set to the right."""
    rule = ["---"] * (len(titles) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, rule, *rows])


def digits(value):
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def label(configuration):
    engine, precision, mode = configuration
    words = {"channels-last": "eager, channels_last", "eager": "eager, contiguous",
             "level-3": "optimization level 3, captured", "level-5": "optimization level 5, captured"}
    if engine == "torch" and mode in COMPILED:
        mode = f"torch.compile, {mode}"
    return [NAMES[engine], precision, words.get(mode, mode) or ""]


class Device:
    """The tables of one report."""

    def __init__(self, report, workload):
        self.report, (self.variant, self.size) = report, workload
        self.gpu = report["driver"] is not None
        self.entries = {}
        for entry in report["entries"]:
            if (entry["variant"], entry["size"]) == workload:
                key = (entry["engine"], entry["precision"], entry["mode"]), entry["batch"], entry["span"]
                self.entries[key] = entry
        found = {key[0] for key in self.entries}
        self.rows = sorted(found | set(rows_for(self.gpu)), key=order_of)
        self.batches = sorted({key[1] for key in self.entries} | ({1, 16, 32} if self.gpu else {1}))
        self.old = set()

    def entry(self, configuration, batch, span="network"):
        return self.entries.get((configuration, batch, span))

    def mark(self, row):
        """Behind a figure that is not of the report's commit, or not steady."""
        if "commit" in row:
            self.old.add(row["commit"])
        unsteady = (row.get("drift") or 0) > reports.STEADY_DRIFT
        return ("\\*" if "commit" in row else "") + (" !" if unsteady else "")

    def cells(self, configuration, figure):
        cells = []
        for batch in self.batches:
            entry = self.entry(configuration, batch)
            cells.append(digits(figure(entry)) + self.mark(entry) if entry and figure(entry) is not None else "")
        return cells

    def times(self, figure, empty_rows=True):
        titles = ["engine", "precision", "mode", *(f"batch {batch}" for batch in self.batches)]
        rows = [label(row) + cells for row in self.rows if any(cells := self.cells(row, figure)) or empty_rows]
        return table(titles, rows, len(self.batches)) if rows else ""

    def missing(self):
        """What fills the cells that peers are compared in."""
        batches = [1, 16, 32] if self.gpu else [1]
        commands = []
        for precision in PRECISIONS if self.gpu else ("bf16", "fp32"):
            rows = [row for row in rows_for(self.gpu) if row[1] == precision]
            wanted = [batch for batch in batches if batch != 32 or precision == "bf16"]
            wanted = [batch for batch in wanted if any(not self.entry(row, batch) for row in rows)]
            if wanted:
                commands.append(f"`bench/run.sh --variant {self.variant} --precision {precision}"
                                f" --batch {','.join(map(str, wanted))}`")
        return f"Empty cells have not been run. {'; '.join(commands)} fills those of the peers.\n" if commands else ""

    def speedups(self, span):
        """Of the mode that users get, and of that which a peer runs in."""
        found, batches = {}, set()
        for ratio in self.report.get("ratios", []):
            ours, theirs = (tuple(ratio[side][name] for name in ("engine", "precision", "mode"))
                            for side in ("of", "over"))
            workload = (ratio["variant"], ratio["size"], ratio["span"])
            if workload == (self.variant, self.size, span) and ours[2] in (None, "reduce-overhead", theirs[2]):
                figures = f"{ratio['ratio']:.2f}× ({ratio['low']:.2f}–{ratio['high']:.2f}){self.mark(ratio)}"
                found.setdefault((ours, theirs), {})[ratio["batch"]] = figures
                batches.add(ratio["batch"])
        rows = []
        for ours, theirs in sorted(found, key=lambda pair: (order_of(pair[0]), order_of(pair[1]))):
            cells = [found[ours, theirs].get(batch, "") for batch in sorted(batches)]
            rows.append([" ".join(filter(None, label(ours))), " ".join(filter(None, label(theirs))), *cells])
        titles = ["engine", "faster than", *(f"batch {batch}" for batch in sorted(batches))]
        return table(titles, rows, len(batches)) if rows else ""

    def startup(self):
        rows = []
        for row in self.rows:
            entry = self.entry(row, 1)
            first = entry and entry["first_result_s"]
            memory = self.cells(row, lambda entry: entry["device_memory_mb"])
            if first is not None or any(memory):
                rows.append([*label(row), digits(first) + (self.mark(entry) if first else ""), *memory])
        titles = ["engine", "precision", "mode", "first result s", *(f"MB, batch {batch}" for batch in self.batches)]
        return table(titles, rows, 1 + len(self.batches)) if rows else ""

    def memory_is(self):
        if self.gpu:
            return "all that the driver counts beyond the context"
        return "what this engine's plan and weights take, without the program; of the peers it is not known"

    def end_to_end(self):
        rows = []
        stages = ("decode_ms", "copy_ms", "preprocess_ms", "network_ms", "postprocess_ms")
        for row in self.rows:
            for batch in self.batches:
                entry = self.entry(row, batch, "end_to_end")
                if not entry:
                    continue
                parts = entry.get("stages") or {}
                cells = [digits(parts.get(stage)) for stage in stages]
                total = [digits(entry["median_ms"]) + self.mark(entry), digits(1e6 / entry["us_per_image"])]
                rows.append([*label(row), str(batch), *cells, *total])
        titles = ["engine", "precision", "mode", "batch", "decode", "copy", "preprocess", "network", "postprocess"]
        return table([*titles, "all", "images/s"], rows, 8) if rows else ""

    def layers(self):
        rows = []
        for plan in self.report["layers"]:
            if (plan["variant"], plan["size"]) != (self.variant, self.size):
                continue
            for stage in ("input", "backbone", "neck", "head", "results"):
                steps = [step for step in plan["steps"] if step["stage"] == stage]
                if steps:
                    time, floors = sum(step["time_us"] for step in steps), [step["floor_us"] for step in steps]
                    floor = sum(value for value in floors if value is not None) if any(floors) else None
                    part = f"{100 * floor / time:.0f} %" if floor else ""
                    rows.append([f"{plan['precision']}, batch {plan['batch']}{self.mark(plan)}", stage, str(len(steps)),
                                 digits(time), digits(floor), part])
            rows.append([f"{plan['precision']}, batch {plan['batch']}", "sum, and a whole run", str(len(plan["steps"])),
                         f"{digits(plan['sum_us'])}, {digits(plan['run_us'])}", "", ""])
        return table(["plan", "stage", "steps", "µs", "floor µs", "of the floor"], rows, 4) if rows else ""

    def accuracy(self):
        rows = []
        for row in self.report["accuracy"]:
            beside = [entry for entry in self.report["entries"] if entry["span"] == "network" and entry["batch"] == 1
                      and all(entry[name] == row[name] for name in ("engine", "variant", "size", "precision"))]
            time = min(beside, key=lambda entry: entry["median_ms"], default=None)
            rows.append([row["set"], f"{row['variant']}, {row['size'].replace('x', '×')}", row["precision"],
                         str(row["images"]), f"{row['ap']:.4f}", f"{row['ap50']:.4f}",
                         digits(time["median_ms"]) + self.mark(time) if time else ""])
        titles = ["set", "model", "precision", "images", "AP", "AP50", "network ms, batch 1"]
        return table(titles, rows, 4) if rows else ""

    def text(self):
        report = self.report
        size = self.size.replace("x", "×")
        versions = [f"{name} {report[key]}" for name, key in
                    (("driver", "driver"), ("CUDA", "cuda"), ("cuDNN", "cudnn")) if report.get(key)]
        versions += [f"{report['threads']} threads"] if report.get("threads") else []
        for engine in list(NAMES)[1:]:
            found = {e["engine_version"] for e in report["entries"] if e["engine"] == engine and "engine_version" in e}
            versions += [f"{NAMES[engine]} {version}" for version in sorted(found)]
        ceilings = report["ceilings"]
        ceilings = [f"{digits(ceilings.get(key))} {unit}" for key, unit in
                    (("copy_gbs", "GB/s copied"), ("bf16_tflops", "TFLOP/s in bf16")) if ceilings.get(key)]
        parts = [
            f"### {report['device']}: {self.variant} at {size}",
            f"{', '.join(versions)}; commit {report['commit']}, {report['date'][:10]}. Measured ceilings: "
            f"{', '.join(ceilings) or 'none'}. Weights without training: the network's speed does not depend on "
            "their values, but end to end does on how many objects they find, which are few with S and T.",
            "**Network**, median ms of a batch: from pixels in the device's memory to the scores and boxes of all "
            "anchors. Not in it: files, decoding, resizing, copies to and from the device, threshold, suppression.",
            self.times(lambda entry: entry["median_ms"]),
            "The same, images per second:",
            self.times(lambda entry: 1e6 / entry["us_per_image"]),
            self.missing(),
        ]
        sections = [
            ("**Back to back**, median ms from the end of a batch to that of the next, launched without waiting for it: "
             "what the host does for a launch is hidden as far as the GPU takes longer.",
             self.times(lambda entry: entry.get("back_to_back_ms"), empty_rows=False)),
            ("**Beside each other**: how many times faster, of what took turns in one run. The median over the rounds, "
             "and their range, of the ratio of neighbouring turns' medians.", self.speedups("network")),
            ("**Before the first result, and memory.** Seconds at batch 1 from starting the process, nothing cached: "
             f"libraries, weights, plan or compilation. Memory: {self.memory_is()}.", self.startup()),
            ("**End to end**, ms of a batch: from encoded pictures in the host's memory to boxes in their pixels. Not "
             "in it: reading from disk, drawing, writing. Stages are medians, in part of another run, and need not add "
             "up.", self.end_to_end()),
            ("**End to end, beside each other**: as above, of what took turns.", self.speedups("end_to_end")),
            ("**Where the time goes.** Each step by itself, so the sum is not the time of a run; the floor is the "
             "larger of its operations and its bytes over the measured ceilings.", self.layers()),
            ("**Accuracy beside speed**: COCO average precision, with the time of the same model and precision.",
             self.accuracy()),
        ]
        for heading, body in sections:
            if body:
                parts += [heading, body]
        if self.old:
            parts.append(f"\\* Of commit {', '.join(sorted(map(str, self.old)))}.")
        if any((entry.get("drift") or 0) > reports.STEADY_DRIFT for entry in self.entries.values()):
            parts.append("! The medians of the first and the second half of the runs differ by more than 3 %: not to "
                         "be relied on.")
        left = [row for row in report.get("left_out", []) if (row["variant"], row["size"]) == (self.variant, self.size)]
        if left:
            words = lambda row: " ".join(filter(None, (row["engine"], row["precision"], row["mode"])))
            lines = [f"- {words(row)}, batch {row['batch']}: {row['reason']}" for row in left]
            parts.append("Left out:\n\n" + "\n".join(lines))
        return "\n\n".join(part.strip() for part in parts if part)


def devices_of(path):
    """A report with each model that was compared, or at least run, on its device."""
    report = reports.read(path)
    compared = {(row["variant"], row["size"]) for row in report.get("ratios", [])}
    every = {(entry["variant"], entry["size"]) for entry in report["entries"]}
    return [Device(report, workload) for workload in sorted(compared or every)]


def kernels(device, rows):
    """Our convolutions beside the libraries' on a GPU, of the variants and batches that they are made for."""
    lines, missing, commits = [], [], set()
    for variant in ("T", "S", "M", "L"):
        for batch in (1, 8, 32):
            found = layer_results.summary(rows, variant, batch)
            if found is None:
                missing.append((variant, batch))
                lines.append([variant, str(batch), *[""] * 7])
                continue
            commits |= found["commits"]
            lines.append([variant, str(batch), str(found["layers"]), f"{found['mean']:.2f}×",
                          f"{found['smallest']:.2f}×", str(found["slow"]), f"{100 * found['of_floor']:.0f} %"])
            pairs = layer_results.summary(rows, variant, batch, pairs=True)
            lines[-1] += [str(pairs["layers"]), f"{pairs['mean']:.2f}×"] if pairs else ["0", ""]
    titles = ["variant", "batch", "layers", "geometric mean", "smallest", "below 0.8×", "floors over ours", "pairs",
              "one launch over two"]
    parts = [f"### {device}: our convolutions beside the libraries'",
             "Of each distinct layer the best of our kernels and the best of cuDNN's and cuBLASLt's, timed by itself "
             "with its tensors in device memory: the libraries' time over ours, so that above 1 ours is faster. Behind "
             "it, pairs of convolutions that one launch of ours computes: the geometric mean of the time of two "
             "launches, of whatever was fastest for each, over that."
             + (f" Commit {', '.join(sorted(commits))}." if commits else ""),
             table(titles, lines, 8)]
    if missing:
        variants = ",".join(dict.fromkeys(variant for variant, _ in missing))
        batches = ",".join(map(str, sorted({batch for _, batch in missing})))
        parts.append(f"Empty cells have not been run. `build/layer-bench --variants {variants} --batch {batches} "
                     "--json F && bench/layer_results.py bench/results F` fills them.")
    return "\n\n".join(parts)


def text_of(path):
    devices = devices_of(path)
    parts = [device.text() for device in devices]
    if devices and devices[0].gpu:
        name = devices[0].report["device"]
        parts.append(kernels(name, layer_results.read(layer_results.path_of(name, path.parent))))
    return "\n\n".join(parts)


def main():
    text = "\n\n".join(text_of(path) for path in sorted(RESULTS.glob("*.json")))
    text = text or "Nothing has been run yet; `make bench && bench/run.sh` fills this."
    document = DOCUMENT.read_text()
    if BEGIN not in document or END not in document:
        raise SystemExit(f"{DOCUMENT}: has no lines {BEGIN} and {END}")
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
