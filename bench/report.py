#!/usr/bin/env python3
"""Benchmark reports (docs/benchmark-format.md): checked, joined, summed up. Needs Python's own library only.

    bench/report.py FOLDER REPORT...     joins them into the report of their device in the folder, and prints its path
"""

import json
import pathlib
import re
import statistics
import struct
import sys
import time

SCHEMA = json.loads((pathlib.Path(__file__).parent / "report.schema.json").read_text())
WORKLOAD = ("engine", "variant", "size", "precision", "mode", "batch")
KEYS = {
    "entries": (*WORKLOAD, "span"),
    "left_out": WORKLOAD,
    "layers": WORKLOAD,
    "accuracy": ("engine", "variant", "size", "precision", "set"),
    "ratios": ("variant", "size", "batch", "span", "of", "over"),
}
STEADY_DRIFT = 0.03
_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def problems(value, schema=SCHEMA, path="report"):
    """What a value has against a schema; knows the part of JSON Schema that report.schema.json uses."""
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(isinstance(value, _TYPES[name]) and not isinstance(value, bool) for name in names):
        return [f"{path} is {value!r}, expected {' or '.join(names)}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path} is {value!r}, expected one of {schema['enum']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{path} is {value!r}, expected at least {schema['minimum']}")
    if isinstance(value, list):
        for i, item in enumerate(value):
            found += problems(item, schema.get("items", {}), f"{path}[{i}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{path} has no {name}" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name in properties:
                found += problems(item, properties[name], f"{path}.{name}")
            elif schema.get("additionalProperties") is False:
                found.append(f"{path} has an unknown {name}")
    return found


def read(path):
    report = json.loads(pathlib.Path(path).read_text())
    found = problems(report)
    if found:
        raise SystemExit(f"{path}: {found[0]}{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}")
    return report


def write(report, path):
    """Replaces the file at once, so that a run cut short leaves the report before it."""
    path = pathlib.Path(path)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)


def key_of(row, kind):
    return json.dumps([row[name] for name in KEYS[kind]])


def put(report, kind, rows):
    """Adds rows; one that is there already is replaced."""
    kept = {key_of(row, kind): row for row in report.get(kind, [])}
    kept.update({key_of(row, kind): row for row in rows})
    report[kind] = list(kept.values())


def workload_of(row, configuration):
    return (*(configuration[name] for name in ("engine", "precision", "mode")),
            *(row[name] for name in ("variant", "size", "batch")))


def join(report, newer):
    """Adds another report of the device. What both have measured is taken from the newer one, but for figures of this
    engine alone where the older ones were measured beside its peers. What stays from another commit says so."""
    if report["device"] != newer["device"]:
        raise SystemExit(f"a report of {newer['device']} cannot be added to one of {report['device']}")
    if report["commit"] != newer["commit"]:
        for row in (row for kind in KEYS for row in report.get(kind, [])):
            row.setdefault("commit", report["commit"])
    beside = {(workload_of(row, row["of"]), row["span"]) for row in report.get("ratios", []) if "commit" not in row}
    for name, value in newer.items():
        if name == "ceilings":
            report[name].update({ceiling: number for ceiling, number in value.items() if number is not None})
        elif name in KEYS:
            if name == "entries" and not newer.get("ratios"):
                # Where its time goes is told by the engine alone.
                stages = {key_of(row, name): row["stages"] for row in value if row.get("stages")}
                for row in report.get(name, []):
                    if key_of(row, name) in stages:
                        row["stages"] = stages[key_of(row, name)]
                value = [row for row in value if (workload_of(row, row), row["span"]) not in beside]
            put(report, name, value)
        elif value is not None:
            report[name] = value
    # What was left out once may have been measured since.
    measured = {key_of(entry, "left_out") for entry in report["entries"]}
    report["left_out"] = [row for row in report.get("left_out", []) if key_of(row, "left_out") not in measured]


def percentile(values, part):
    """Linear between the two nearest."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def summary(milliseconds, batch):
    """The figures of an entry, from its runs in the order in which they were measured."""
    median = statistics.median(milliseconds)
    half = len(milliseconds) // 2
    drift = None
    if half > 0:
        first, second = statistics.median(milliseconds[:half]), statistics.median(milliseconds[half:])
        drift = abs(first - second) / min(first, second)
    return {
        "runs": len(milliseconds),
        "median_ms": median,
        "min_ms": min(milliseconds),
        "p95_ms": percentile(milliseconds, 0.95),
        "p99_ms": percentile(milliseconds, 0.99),
        "iqr_ms": percentile(milliseconds, 0.75) - percentile(milliseconds, 0.25),
        "drift": drift,
        "us_per_image": 1e3 * median / batch,
    }


def like(header, command):
    """An empty report of the same device, versions and commit as another report."""
    report = {name: value for name, value in read(header).items() if name not in (*KEYS, "cold_start_s")}
    report["date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**report, "command": command, **{kind: [] for kind in KEYS}}


def model_of(weights):
    """The structure in a weights file."""
    with open(weights, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return json.loads(header["__metadata__"]["model"])


def path_of(device, folder):
    return pathlib.Path(folder) / (re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json")


def add(folder, newer):
    """Joins a report into that of its device in the folder; the path of that one."""
    path = path_of(newer["device"], folder)
    joined = newer
    if path.exists():
        joined = read(path)
        join(joined, newer)
    write(joined, path)
    return path


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    paths = [add(sys.argv[1], read(path)) for path in sys.argv[2:]]
    print(paths[-1])


if __name__ == "__main__":
    main()
