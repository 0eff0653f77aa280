#!/usr/bin/env python3
"""Average precision of this engine in each precision, as a report. Needs Python's own library only.

    bench/accuracy.py --header bench.json --json accuracy.json --device cuda --precision fp32,tf32,bf16,fp16 \\
        --set digits=digits.safetensors,tests/data/digits/images,tests/data/digits/annotations.json

A set is a name, weights, a folder of images and their annotations; images that are not in the folder are left out. A
precision that fails, or takes longer than --seconds, is left out, too; then the exit status is 1.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import report as reports

ROOT = pathlib.Path(__file__).resolve().parents[1]


def present(annotations, images):
    """The annotations of the images that are there."""
    truth = json.loads(pathlib.Path(annotations).read_text())
    truth["images"] = [image for image in truth["images"] if (pathlib.Path(images) / image["file_name"]).exists()]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [object for object in truth["annotations"] if object["image_id"] in kept]
    return truth


def evaluate(args, precision, weights, images, annotations, folder):
    command = [args.build / "damoyolo", "eval", "-w", weights, "--images", images, "--ann", annotations]
    command += ["--device", args.device, "--precision", "fp32" if precision == "tf32" else precision]
    command += ["--tf32"] if precision == "tf32" else []
    result = f"{folder}/result.json"
    subprocess.run([*command, "--json", result], check=True, stdout=subprocess.DEVNULL, timeout=args.seconds)
    return json.loads(pathlib.Path(result).read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--header", required=True,
                        help="a report whose device, versions and commit this one takes over")
    parser.add_argument("--json", required=True, help="the report to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=WEIGHTS,IMAGES,ANNOTATIONS")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--seconds", type=float, help="that a set may take in one precision")
    args = parser.parse_args()
    failed = False

    report = reports.like(args.header, "bench/accuracy.py " + " ".join(sys.argv[1:]))
    for text in args.set:
        name, _, files = text.partition("=")
        weights, images, annotations = files.split(",")
        model = reports.model_of(weights)
        with tempfile.TemporaryDirectory() as folder:
            truth = f"{folder}/truth.json"
            pathlib.Path(truth).write_text(json.dumps(present(annotations, images)))
            for precision in args.precision.split(","):
                try:
                    found = evaluate(args, precision, weights, images, truth, folder)
                except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                    print(f"{name} {precision}: left out, {error}")
                    failed = True
                    continue
                row = {"engine": "damoyolo", "variant": model["variant"]}
                row |= {"size": "x".join(map(str, model["input_size"])), "precision": precision, "set": name}
                row |= {figure: found[figure] for figure in ("images", "ap", "ap50")}
                report["accuracy"].append(row)
                print(f"{name} {precision}: AP {row['ap']:.4f}, AP50 {row['ap50']:.4f}")
                reports.write(report, args.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
