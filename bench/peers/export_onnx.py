#!/usr/bin/env python3
"""Writes a weights file as an ONNX file, uint8 pixels [batch, height, width, 3] to scores and boxes of all anchors.

    bench/peers/export_onnx.py T.safetensors T.onnx [--batch 1]
"""

import argparse

import torch

import damo_yolo


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("onnx")
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()

    model = damo_yolo.load(args.weights, channels_last=False)
    images = torch.zeros(args.batch, *model.size, 3, dtype=torch.uint8)
    names = {"input_names": ["images"], "output_names": ["scores", "boxes"]}
    torch.onnx.export(model, (images,), args.onnx, opset_version=18 if hasattr(torch, "compiler") else 16, **names)


if __name__ == "__main__":
    main()
