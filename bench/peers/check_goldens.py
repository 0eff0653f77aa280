#!/usr/bin/env python3
"""Checks bench/peers/damo_yolo.py, in float32 on the CPU, against the goldens of all eight variants.

    make bench && bench/peers/check_goldens.py [--build build]

The goldens (tests/data/goldens) are outputs of the public PyTorch model.
"""

import argparse
import pathlib
import subprocess
import tempfile

import torch

import damo_yolo
import tensors

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCORE_TOLERANCE, BOX_TOLERANCE = 2e-5, 5e-3  # as for the engine itself
SIZE = (192, 256)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    build = parser.parse_args().build

    # The goldens' input is NCHW.
    pixels = tensors.golden_bytes("input", 2 * 3 * SIZE[0] * SIZE[1]).reshape(2, 3, *SIZE).transpose(0, 2, 3, 1)
    images = torch.from_numpy(pixels.copy())
    wrong = 0
    for golden in sorted((ROOT / "tests/data/goldens").glob("*.safetensors")):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, weights = f"{folder}/training.safetensors", f"{folder}/weights.safetensors"
            subprocess.run([build / "golden-checkpoint", golden.stem, checkpoint], check=True)
            subprocess.run([build / "damoyolo", "import", checkpoint, "-o", weights], check=True,
                           stdout=subprocess.DEVNULL)
            model = damo_yolo.load(weights, SIZE)
        with torch.inference_mode():
            scores, boxes = model(images)
        expected = tensors.read(golden)[1]
        score_error = float((scores - torch.from_numpy(expected["scores"].copy())).abs().max())
        box_error = float((boxes - torch.from_numpy(expected["boxes"].copy())).abs().max())
        right = score_error <= SCORE_TOLERANCE and box_error <= BOX_TOLERANCE
        wrong += not right
        print(f"{golden.stem:<3} scores {score_error:.1e}, boxes {box_error:.1e}{'' if right else '  WRONG'}")
    if wrong:
        raise SystemExit(f"{wrong} variants are not what the goldens say")


if __name__ == "__main__":
    main()
