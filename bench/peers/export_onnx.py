#!/usr/bin/env python3
"""Writes a weights file as an ONNX file, uint8 pixels [batch, height, width, 3] to scores and boxes of all anchors.

    bench/peers/export_onnx.py T.safetensors T.onnx [--batch 1] [--precision fp32|bf16|fp16]

The precision is that of the weights and of all tensors up to the head's outputs, which are float32 in any case.
"""

import argparse

import torch

import damo_yolo

# Convolutions of bfloat16 are in ONNX since its 22nd set of operators; older PyTorch has older sets.
PRECISIONS = {"fp32": (torch.float32, 18 if hasattr(torch, "compiler") else 16),
              "bf16": (torch.bfloat16, 22),
              "fp16": (torch.float16, 18)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("onnx")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32")
    args = parser.parse_args()

    dtype, opset = PRECISIONS[args.precision]
    model = damo_yolo.load(args.weights, channels_last=False).to(dtype)
    images = torch.zeros(args.batch, *model.size, 3, dtype=torch.uint8)
    names = {"input_names": ["images"], "output_names": ["scores", "boxes"]}
    torch.onnx.export(model, (images,), args.onnx, opset_version=opset, **names)


if __name__ == "__main__":
    main()
