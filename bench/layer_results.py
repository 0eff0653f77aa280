#!/usr/bin/env python3
"""What build/layer-bench has timed, joined: of every layer, the best of our kernels beside the best of the libraries'.

    build/layer-bench --variants S --batch 1 --json layers.json
    bench/layer_results.py bench/results layers.json    # into bench/results/layers/DEVICE.json; prints its path

Needs Python's own library only. A layer that has been timed before in the same way is replaced.
"""

import json
import math
import pathlib
import sys

import report as reports

KEY = ("layer", "batch", "caches", "overlap")


def best(candidates):
    fastest = min(candidates, key=lambda candidate: candidate["us"], default=None)
    return fastest and {name: fastest[name] for name in ("kernel", "us")}


def rows_of(measured):
    """One for each layer and batch; `own` and `library` are null where none of them was timed. Of a pair, `own` is one
    launch, and `library` two, by whatever was fastest for each."""
    rows = []
    for layer in measured["layers"]:
        timed = [candidate for candidate in layer["candidates"] if "us" in candidate]
        is_own = lambda candidate: candidate["kernel"].startswith("own:")
        row = {name: layer[name] for name in ("layer", "pair", "batch", "variants", "flops", "bytes", "floor_us")}
        row |= {name: measured[name] for name in ("caches", "overlap", "commit")}
        row |= {"own": best([c for c in timed if is_own(c)]), "library": best([c for c in timed if not is_own(c)])}
        rows.append(row | {"timed": len(timed), "not_timed": len(layer["candidates"]) - len(timed)})
    return rows


def path_of(device, results):
    return reports.path_of(device, pathlib.Path(results) / "layers")


def read(path):
    """The rows; none where nothing has been timed."""
    return json.loads(path.read_text())["layers"] if path.exists() else []


def join(path, measured):
    kept = {tuple(row[name] for name in KEY): row for row in read(path) + rows_of(measured)}
    path.parent.mkdir(exist_ok=True)
    facts = {name: measured[name] for name in ("device", "libraries", "ceilings")}
    reports.write({**facts, "layers": list(kept.values())}, path)


def summary(rows, variant, batch, pairs=False):
    """How our kernels compare on the layers of a variant, in device memory and one after another: how many layers both
    were timed on, the geometric mean and the smallest of the libraries' time over ours, how many are below 0.8, and the
    part that the floors of the layers are of our time, each layer as often as the variant has it. With `pairs`, the
    same of one launch beside two. None: never timed."""
    rows = [row for row in rows if variant in row["variants"] and row["batch"] == batch and row["pair"] == pairs
            and row["own"] and row["library"] and row["caches"] == "rotated" and not row["overlap"]]
    if not rows:
        return None
    ratios = [row["library"]["us"] / row["own"]["us"] for row in rows]
    total = lambda time: sum(row["variants"][variant] * time(row) for row in rows)
    return {
        "layers": len(rows),
        "mean": math.exp(sum(map(math.log, ratios)) / len(rows)),
        "smallest": min(ratios),
        "slow": sum(ratio < 0.8 for ratio in ratios),
        "of_floor": total(lambda row: row["floor_us"]) / total(lambda row: row["own"]["us"]),
        "commits": {row["commit"] for row in rows},
    }


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    measured = json.loads(pathlib.Path(sys.argv[2]).read_text())
    path = path_of(measured["device"], sys.argv[1])
    join(path, measured)
    print(path)


if __name__ == "__main__":
    main()
