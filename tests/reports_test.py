#!/usr/bin/env python3
"""Tests of reports: what bench/ makes of measurements (schema, joining, tables, plots), and what kernels/sass_report.py
reads in machine code. Prints the Test Anything Protocol.

Needs Python's own library only. The numbers of the example are made up, and so is the machine code.
"""

import copy
import json
import pathlib
import sys
import tempfile
import xml.etree.ElementTree

import tap

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]
import importlib.machinery  # noqa: E402
import importlib.util  # noqa: E402

import layer_results  # noqa: E402
import report as reports  # noqa: E402
import sass_report  # noqa: E402
import tables  # noqa: E402

loader = importlib.machinery.SourceFileLoader("plot", str(ROOT / "bench/plot"))
plot = importlib.util.module_from_spec(importlib.util.spec_from_loader("plot", loader))
loader.exec_module(plot)


TENSORRT = [("tensorrt", "bf16", "level-3"), ("tensorrt", "bf16", "level-5")]  # where it is installed


def example(gpu=True):
    """A report with every kind of row, of a device that does not exist."""
    report = {"device": "Example GPU 1" if gpu else "Example CPU 1", "driver": "1.0" if gpu else None}
    report |= {"cuda": "13.0" if gpu else None, "cudnn": None, "threads": None if gpu else 2, "commit": "abc"}
    report |= {"date": "2026-01-31T12:00:00Z", "ceilings": {"copy_gbs": 3000.0, "bf16_tflops": 800.0}}
    report |= {"entries": [], "left_out": [], "layers": [], "accuracy": [], "ratios": []}
    speed = {"eager": 9, "channels-last": 6, "default": 4, "reduce-overhead": 2, "max-autotune": 1.8, None: 3}
    speed |= {"level-3": 2.2, "level-5": 2.1}
    workload = {"variant": "S", "size": "640x640"}
    for configuration in tables.rows_for(gpu) + (TENSORRT if gpu else []):
        engine, precision, mode = configuration
        for batch in (1, 16, 32):
            base = speed[mode] * (1 if engine == "damoyolo" else 1.4) * (1 if precision == "bf16" else 2)
            times = [base * batch**0.8 * (1 + 0.001 * i) for i in range(9)]
            entry = {"engine": engine, **workload, "precision": precision, "mode": mode, "batch": batch}
            entry |= {"span": "network", "device_memory_mb": 100.0 * batch, "first_result_s": 2.0}
            report["entries"].append(entry | reports.summary(times, batch))
            if engine != "damoyolo":
                sides = {"of": ("damoyolo", precision, "reduce-overhead" if gpu else None), "over": configuration}
                sides = {name: dict(zip(("engine", "precision", "mode"), side)) for name, side in sides.items()}
                row = {**workload, "batch": batch, "span": "network", **sides}
                report["ratios"].append(row | {"ratio": 1.4, "low": 1.3, "high": 1.5, "rounds": 9})
    for batch in (1, 16):
        stages = ["input"] + ["backbone"] * 30 + ["neck"] * 25 + ["head"] * 6 + ["results"]
        steps = [
            {"node": f"{stage}.{i}", "stage": stage, "kernel": "k", "in": [1, 8, 8, 8], "out": [1, 8, 8, 8],
             "time_us": batch * (4 + i * 7 % 11), "flops": 1e6, "bytes": 1e5, "floor_us": batch * (1.0 + i * 7 % 5)}
            for i, stage in enumerate(stages)
        ]
        plan = {"engine": "damoyolo", **workload, "precision": "bf16", "mode": "reduce-overhead", "batch": batch}
        time = sum(step["time_us"] for step in steps)
        report["layers"].append(plan | {"sum_us": time, "run_us": 0.9 * time, "steps": steps})
    for precision, ap in (("bf16", 0.41), ("fp32", 0.412)):
        row = {"engine": "damoyolo", **workload, "precision": precision, "set": "example", "images": 20}
        report["accuracy"].append(row | {"ap": ap, "ap50": 0.6})
    return report


def test_example_fits_the_schema():
    for gpu in (True, False):
        assert reports.problems(example(gpu)) == []


def test_schema_finds_what_is_wrong():
    def broken(change):
        report = example()
        change(report)
        return reports.problems(report)

    assert broken(lambda r: r.pop("device")) == ["report has no device"]
    assert broken(lambda r: r["entries"][0].update(span="all"))[0].startswith("report.entries[0].span is 'all'")
    assert broken(lambda r: r["entries"][0].update(batch=0)) == ["report.entries[0].batch is 0, expected at least 1"]
    assert broken(lambda r: r["entries"][0].update(batch=True))[0].startswith("report.entries[0].batch is True")
    assert broken(lambda r: r["entries"][0].update(speed=1)) == ["report.entries[0] has an unknown speed"]


def test_summary_is_over_all_runs():
    found = reports.summary([4.0, 1.0, 2.0, 3.0, 5.0], batch=2)
    assert (found["runs"], found["median_ms"], found["min_ms"], found["us_per_image"]) == (5, 3.0, 1.0, 1500.0)
    assert abs(found["p95_ms"] - 4.8) < 1e-9 and found["iqr_ms"] == 2.0
    assert abs(found["drift"] - 0.2) < 1e-9  # 2.5 and 3
    assert reports.summary([1.0], 1)["drift"] is None


def place_of(report, **facts):
    """Of the first entry with these."""
    return next(i for i, entry in enumerate(report["entries"]) if facts.items() <= entry.items())


def alone(report, index, **changes):
    """A report of one entry that was not measured beside peers."""
    newer = copy.deepcopy(report)
    newer |= {kind: [] for kind in reports.KEYS}
    newer["entries"] = [{**report["entries"][index], **changes}]
    return newer


def test_newer_figures_replace_older_ones():
    report = example()
    count = len(report["entries"])
    peer = place_of(report, engine="torch")
    reports.join(report, alone(report, peer, median_ms=0.5))
    assert len(report["entries"]) == count and report["entries"][peer]["median_ms"] == 0.5


def test_figures_beside_peers_stay():
    report = example()
    beside = place_of(report, engine="damoyolo", mode="reduce-overhead")
    reports.join(report, alone(report, beside, median_ms=0.5))
    assert report["entries"][beside]["median_ms"] != 0.5


def test_stages_join_what_was_measured_beside_peers():
    report = example()
    beside = place_of(report, engine="damoyolo", mode="reduce-overhead")
    stages = dict.fromkeys(("decode_ms", "copy_ms", "preprocess_ms", "network_ms", "postprocess_ms"), 1.0)
    reports.join(report, alone(report, beside, median_ms=0.5, stages=stages))
    assert report["entries"][beside]["median_ms"] != 0.5 and report["entries"][beside]["stages"] == stages
    assert "stages" not in report["entries"][beside + 1] and reports.problems(report) == []


def test_ratios_of_each_span_have_their_table():
    report = example()
    row = next(row for row in report["ratios"] if row["of"]["precision"] == "bf16" and row["batch"] == 1)
    report["ratios"].append({**row, "span": "end_to_end", "ratio": 7.5})
    device = tables.Device(report, ("S", "640x640"))
    assert "7.50×" in device.speedups("end_to_end") and "7.50×" not in device.speedups("network")
    assert device.speedups("end_to_end").count("×") == 1 and "End to end, beside each other" in device.text()


def test_older_rows_name_their_commit():
    report = example()
    newer = alone(report, 0, median_ms=0.5)
    newer["commit"] = "def"
    reports.join(report, newer)
    assert report["commit"] == "def"
    assert "commit" not in report["entries"][0] and report["entries"][1]["commit"] == "abc"
    assert reports.problems(report) == []


def test_what_was_measured_is_no_longer_left_out():
    report = example()
    row = {name: report["entries"][0][name] for name in reports.WORKLOAD}
    report["left_out"] = [{**row, "reason": "no time"}, {**row, "batch": 64, "reason": "no memory"}]
    reports.join(report, alone(report, 0))
    assert [row["batch"] for row in report["left_out"]] == [64]


def test_reports_of_two_devices_are_not_joined():
    try:
        reports.join(example(True), example(False))
    except SystemExit:
        return
    raise AssertionError("they were")


def test_cells_without_a_run_are_empty_and_name_the_command():
    report = example()
    gone = [e for e in report["entries"] if (e["precision"], e["mode"], e["batch"]) == ("bf16", "max-autotune", 32)]
    report["entries"] = [entry for entry in report["entries"] if entry not in gone]
    text = tables.Device(report, ("S", "640x640")).text()
    begin = "| PyTorch | bf16 | torch.compile, max-autotune |"
    row = next(line for line in text.splitlines() if line.startswith(begin))
    assert row.split("|")[6].strip() == "" and row.split("|")[5].strip() != "", row
    assert "--precision bf16 --batch 32`" in text
    assert "Empty cells" not in tables.Device(example(), ("S", "640x640")).text()


def test_peers_that_may_be_missing_have_rows_where_they_ran():
    report = example()
    rows = [line for line in tables.Device(report, ("S", "640x640")).text().splitlines() if "TensorRT" in line]
    report["entries"] = [entry for entry in report["entries"] if entry["engine"] != "tensorrt"]
    report["ratios"] = [ratio for ratio in report["ratios"] if ratio["over"]["engine"] != "tensorrt"]
    text = tables.Device(report, ("S", "640x640")).text()
    for begin in ("| TensorRT | bf16 | optimization level 5, captured | ",
                  "| damoyolo bf16 reduce-overhead | TensorRT bf16 optimization level 3, captured | "):
        assert any(row.startswith(begin) for row in rows), rows
    assert "TensorRT" not in text and "Empty cells" not in text


def test_back_to_back_has_a_table_where_it_was_measured():
    report = example()
    assert "Back to back" not in tables.Device(report, ("S", "640x640")).text()
    report["entries"][place_of(report, engine="torch", mode="reduce-overhead")]["back_to_back_ms"] = 1.25
    device = tables.Device(report, ("S", "640x640"))
    text = device.text().partition("**Back to back**")[2].partition("**Beside")[0]
    assert text.count("| 1.25 |") == 1 and text.count("PyTorch") == 1 and "damoyolo" not in text, text


def test_equal_modes_are_put_beside_each_other():
    report = example()
    row = next(row for row in report["ratios"] if row["over"]["mode"] == "max-autotune" and row["batch"] == 1)
    for mode in ("default", "max-autotune"):
        report["ratios"].append({**row, "of": {**row["of"], "mode": mode}})
    found = tables.Device(report, ("S", "640x640")).speedups("network")
    begin = "| damoyolo bf16 {} | PyTorch bf16 torch.compile, max-autotune |"
    assert begin.format("max-autotune") in found and begin.format("reduce-overhead") in found
    assert begin.format("default") not in found


def test_memory_is_said_to_be_what_it_is_on_that_device():
    gpu, cpu = (tables.Device(example(on_gpu), ("S", "640x640")).text() for on_gpu in (True, False))
    assert "the driver counts" in gpu and "the driver counts" not in cpu and "plan and weights" in cpu


def test_unsteady_figures_are_marked():
    report = example(gpu=False)
    report["entries"][0]["drift"] = 0.2
    text = tables.Device(report, ("S", "640x640")).text()
    assert " !" in next(line for line in text.splitlines() if line.startswith("| damoyolo | bf16"))


def timed_layers(own_us=(10.0, 40.0), batch=1, pair=False, **changes):
    """What build/layer-bench writes, of two layers; our second kernel is the best, and one of the libraries' failed.
    Pairs are called otherwise, and two launches are in the libraries' place."""
    layers = []
    for i, own in enumerate(own_us):
        candidates = [{"kernel": "own:sm90:a", "us": 2 * own}, {"kernel": "own:sm90:b", "us": own},
                      {"kernel": "cudnn:conv:1", "us": 20.0}, {"kernel": "cudnn:conv:2", "error": "no"}]
        candidates = [{**candidate, "predicted_us": 1.0} for candidate in candidates]
        name = f"{'pair' if pair else 'layer'} {i}"
        layer = {"layer": name, "pair": pair, "batch": batch, "variants": {"S": 1 + i, "T": 1}, "floor_us": 5.0}
        layers.append(layer | {"flops": 1.0, "bytes": 1.0, "candidates": candidates})
    measured = {"device": "Example GPU 1", "commit": "abc", "libraries": ["cuDNN 9"]}
    measured |= {"caches": "rotated", "overlap": False, "ceilings": {"copy_gbs": 3000.0, "bf16_tflops": 800.0}}
    return measured | {"layers": layers} | changes


def test_layers_are_joined_by_shape_and_batch():
    with tempfile.TemporaryDirectory() as folder:
        path = layer_results.path_of("Example GPU 1", folder)
        assert layer_results.read(path) == []
        newer = timed_layers((5.0,), commit="def")
        for measured in (timed_layers(), timed_layers(batch=8), timed_layers(caches="warm"), newer):
            layer_results.join(path, measured)
        rows = layer_results.read(path)
        assert path == pathlib.Path(folder) / "layers/example-gpu-1.json" and len(rows) == 6
        first = next(row for row in rows if (row["layer"], row["batch"], row["caches"]) == ("layer 0", 1, "rotated"))
        assert (first["own"], first["library"]["us"]) == ({"kernel": "own:sm90:b", "us": 5.0}, 20.0)
        assert (first["timed"], first["not_timed"], first["commit"]) == (3, 1, "def")


def test_layers_are_summed_up_by_variant_and_batch():
    rows = layer_results.rows_of(timed_layers())
    found = layer_results.summary(rows, "S", 1)
    assert abs(found["mean"] - 1.0) < 1e-9 and (found["layers"], found["smallest"], found["slow"]) == (2, 0.5, 1)
    assert abs(found["of_floor"] - 15 / 90) < 1e-9  # the second layer twice
    assert layer_results.summary(rows, "M", 1) is None and layer_results.summary(rows, "S", 8) is None
    assert layer_results.summary(layer_results.rows_of(timed_layers(caches="warm")), "S", 1) is None

    pairs = layer_results.rows_of(timed_layers((5.0,), pair=True))
    assert layer_results.summary(rows + pairs, "S", 1) == found and layer_results.summary(rows, "S", 1, True) is None
    assert abs(layer_results.summary(rows + pairs, "S", 1, pairs=True)["mean"] - 4.0) < 1e-9

    text = tables.kernels("Example GPU 1", rows + pairs)
    assert "| S | 1 | 2 | 1.00× | 0.50× | 1 | 17 % | 1 | 4.00× |" in text and "| S | 8 |  |  |  |  |  |  |  |" in text
    assert "--variants T,S,M,L --batch 1,8,32 --json" in text


def test_only_a_gpu_has_a_table_of_kernels():
    with tempfile.TemporaryDirectory() as folder:
        for gpu in (True, False):
            path = pathlib.Path(folder) / "example.json"
            path.write_text(json.dumps(example(gpu)))
            assert ("our convolutions beside" in tables.text_of(path)) == gpu


def test_plots_are_drawn_from_a_report():
    for gpu in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "example.json"
            path.write_text(json.dumps(example(gpu)))
            sys.argv = ["plot", str(path), "--out", folder]
            plot.main()
            names = sorted(file.name for file in pathlib.Path(folder).glob("*.svg"))
            of_a_model = [f"example-s-640x640-{name}.svg" for name in ("latency", "layers", "throughput")]
            assert names == ["example-accuracy.svg"] + of_a_model
            for name in names:
                root = xml.etree.ElementTree.parse(f"{folder}/{name}").getroot()
                width, height = (float(root.get(side)) for side in ("width", "height"))
                for element in root.iter():
                    for side, most in (("x", width), ("y", height), ("cx", width), ("cy", height)):
                        place = element.get(side)
                        assert place is None or -1 <= float(place) <= most, (name, element.attrib)


def test_plots_of_nothing_are_not_drawn():
    report = example()
    report["layers"], report["accuracy"] = [], []
    device = tables.Device(report, ("S", "640x640"))
    assert plot.layers(device) is None and plot.accuracy(report) is None and plot.latency(device) is not None
    report = example(gpu=False)
    report["entries"] = [entry for entry in report["entries"] if entry["batch"] == 1]
    assert plot.latency(tables.Device(report, ("S", "640x640"))) is None


SASS = """
arch = sm_90a
 Function _Z4copyv:
  REG:40 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:560
	code for sm_90a
		Function : _Z4copyv
        /*0000*/                   MOV R1, c[0x0][0x28] ;                 /* 0x00000a0000017a02 */
                                                                          /* 0x000fe40000000f00 */
        /*0010*/               @P0 ELECT P1, URZ, PT ;                    /* 0x00000000003f082f */
        /*0020*/                   UTMALDG.3D [UR8], [UR20] ;             /* 0x00000008140075b4 */
        /*0030*/               @P0 BRA.U.ANY 0x10 ;                       /* 0xfffffffd00ec0947 */
        /*0040*/                   UTMALDG.3D [UR8], [UR20] ;             /* 0x00000008140075b4 */
        /*0050*/                   WARPGROUP.ARRIVE ;                     /* 0x00000000000079c5 */
        /*0060*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0070*/             @!UP0 HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0080*/                   BRA 0xb0 ;                             /* 0x0000000000a47947 */
        /*0090*/               @P1 BRA 0x50 ;                             /* 0xfffffffd00a01947 */
        /*00a0*/               @P2 BRA 0x0 ;                              /* 0xfffffffd00a01947 */
        /*00b0*/                   STL.64 [R1+0x8], R4 ;                  /* 0x0000080401007387 */
        /*00c0*/                   EXIT ;                                 /* 0x000000000000794d */
 Function _Z5emptyv:
  REG:4 STACK:0 SHARED:0 LOCAL:0
		Function : _Z5emptyv
        /*0000*/                   EXIT ;                                 /* 0x000000000000794d */
"""


def test_machine_code_is_read():
    copy, empty = sass_report.parse(SASS)
    assert (copy.architecture, copy.name) == ("90a", "_Z4copyv")
    assert (copy.registers, copy.shared, len(copy.code)) == (40, 1024, 13)
    assert copy.addresses("HGMMA") == [0x60, 0x70]
    assert copy.loop_cost() == 5 / 2 and empty.loop_cost() is None  # the inner of two loops, 0x50 to 0x90
    assert copy.retried_copies() == 1 and empty.retried_copies() == 0


def test_faults_of_machine_code_are_named():
    copy, empty = sass_report.parse(SASS)
    assert sass_report.spill_faults("any", copy) == ["1 instructions spill"]
    assert sass_report.spill_faults("any", empty) == []
    assert sass_report.tensor_core_faults("conv_sm90", copy) == []
    assert sass_report.tensor_core_faults("conv_sm90", empty) == ["no wgmma"]
    assert sass_report.tensor_core_faults("conv_sm80", copy) == ["no mma.sync"]
    assert sass_report.tensor_core_faults("upsample", empty) == []
    assert sass_report.detour_faults("conv_sm90", copy) == ["1 copies are retried"]
    copy.code += [(address, "WARPGROUP.DEPBAR.LE", " gsb0, 0x0 ") for address in (0x68, 0x78)]
    assert sass_report.detour_faults("conv_sm90", copy)[0] == "a step waits 2 times for products"
    assert sass_report.detour_faults("conv_sm90", empty) == []
    empty.architecture = "75"
    for source in ("conv_sm80", "conv_sm90"):
        assert sass_report.tensor_core_faults(source, empty) == []


if __name__ == "__main__":
    tap.run("reports", globals())
