"""DAMO-YOLO as a plain PyTorch module that loads this project's weights files.

It is what a PyTorch user would deploy: BatchNorm folded, RepConvs merged, activations in place, the three max-pools
chained. Module paths are the graph's node names, so the weights file is its state dict.
"""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn

import tensors

ACTIVATIONS = {None: lambda x: x, "relu": F.relu_, "silu": lambda x: F.silu(x, inplace=True)}


def make_divisible(value, divisor=8):
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Conv(nn.Conv2d):
    """Convolution and activation."""

    def __init__(self, inputs, outputs, kernel=1, stride=1, act=None, depthwise=False):
        super().__init__(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=inputs if depthwise else 1)
        self.act = ACTIVATIONS[act]

    def forward(self, x):
        return self.act(super().forward(x))


class ResBlock(nn.Module):
    """ResConvBlock: 1×1 or k×k, then k×k; the shortcut unless it changes the resolution."""

    def __init__(self, inputs, outputs, block, stride, act):
        super().__init__()
        first = block["k"] if block["class"] == "SuperResConvKXKX" else 1
        self.conv1 = Conv(inputs, block["btn"], first, act=act)
        self.conv2 = Conv(block["btn"], outputs, block["k"], stride)
        self.shortcut = None
        if stride != 2:
            self.shortcut = Conv(inputs, outputs) if inputs != outputs else nn.Identity()
        self.act = ACTIVATIONS[act]

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.act(y)


class MobileBlock(nn.Module):
    """MobileV3Block: 1×1 up, depthwise 5×5, 1×1 down, and x where the shapes allow."""

    def __init__(self, inputs, outputs, hidden, stride, act):
        super().__init__()
        self.expand = Conv(inputs, hidden, act=act)
        self.depthwise = Conv(hidden, hidden, 5, stride, act, depthwise=True)
        self.project = Conv(hidden, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return y + x if self.residual else y


class Spp(nn.Module):
    """SPPBottleneck; a chain of max-pools 5 gives 5, 9 and 13."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = Conv(inputs, inputs // 2, act="silu")
        self.conv2 = Conv(inputs * 2, outputs, act="silu")

    def forward(self, x):
        pools = [self.conv1(x)]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        return self.conv2(torch.cat(pools, 1))


class CspStage(nn.Module):
    """A wrapped stage of TinyNAS_csp; what surrounds the blocks uses ReLU whatever the model's activation."""

    def __init__(self, inputs, blocks, spp, act):
        super().__init__()
        outputs = blocks[0]["out"]
        width = outputs // 2
        self.downsample = Conv(inputs, 2 * width, 3, 2, "relu")
        if spp:
            self.spp = Spp(2 * width, 2 * width)
        self.shortcut = Conv(2 * width, width, act="relu")
        self.start = Conv(2 * width, width, act="relu")
        self.fuse = Conv(outputs, blocks[-1]["out"], act="relu")
        self.blocks = 0
        for block in blocks:
            for _ in range(block["L"] - (block["s"] == 2)):
                self.add_module(str(self.blocks), ResBlock(width, block["out"] // 2, block, 1, act))
                width = block["out"] // 2
                self.blocks += 1

    def forward(self, x):
        x = self.downsample(x)
        if hasattr(self, "spp"):
            x = self.spp(x)
        y = self.start(x)
        for i in range(self.blocks):
            y = getattr(self, str(i))(y)
        return self.fuse(torch.cat([y, self.shortcut(x)], 1))


class Backbone(nn.ModuleDict):
    def __init__(self, spec):
        super().__init__()
        self.focus, self.out_indices = spec["use_focus"], spec["out_indices"]
        stem, *blocks = spec["blocks"]
        act = spec["act"]
        self["0"] = Conv(12 if self.focus else 3, stem["out"], stem["k"], 1 if self.focus else 2, act)
        if spec["family"] == "TinyNAS_csp":
            inputs = stem["out"]
            stages = [blocks[:1], blocks[1:2], blocks[2:4], blocks[4:]]
            for i, stage in enumerate(stages, 1):
                self[str(i)] = CspStage(inputs, stage, spec["with_spp"] and stage is stages[-1], act)
                inputs = stage[-1]["out"]
            return
        for i, block in enumerate(blocks, 1):
            inputs, outputs, stage = block["in"], block["out"], []
            for layer in range(block["L"]):
                stride = block["s"] if layer == 0 else 1
                if spec["family"] == "TinyNAS_mob":
                    hidden = make_divisible(math.ceil(outputs * (3.5 + 0.5 * (i - 1))))
                    stage.append(MobileBlock(inputs, outputs, hidden, stride, act))
                else:
                    stage.append(ResBlock(inputs, outputs, block, stride, act))
                if layer == 0 and spec["with_spp"] and i == len(blocks):
                    stage.append(Spp(outputs, outputs))
                inputs = outputs
            self[str(i)] = nn.Sequential(*stage)

    def forward(self, x):
        if self.focus:
            x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        outputs = []
        for stage in self.values():
            x = stage(x)
            outputs.append(x)
        return [outputs[i] for i in self.out_indices]


class ReverseBlock(nn.Module):
    """BasicBlock_3x3_Reverse: the merged RepConv comes first, and nothing follows the sum."""

    def __init__(self, width, hidden, act):
        super().__init__()
        self.conv2 = Conv(width, hidden, 3, act=act)
        self.conv1 = Conv(hidden, width, 3, act=act)

    def forward(self, x):
        return self.conv1(self.conv2(x)) + x


class Merge(nn.Module):
    """CSPStage: every block's output of one chain is joined with a 1×1 beside it."""

    def __init__(self, inputs, outputs, spec):
        super().__init__()
        act, width = spec["act"], outputs // 2
        self.blocks = round(3 * spec["depth"])
        self.conv1 = Conv(inputs, width, act=act)
        self.conv2 = Conv(inputs, width, act=act)
        self.conv3 = Conv((self.blocks + 1) * width, outputs, act=act)
        for i in range(self.blocks):
            if spec.get("depthwise"):
                block = MobileBlock(width, width, make_divisible(3 * width), 1, act)
            else:
                block = ReverseBlock(width, int(width * spec["hidden_ratio"]), act)
            self.add_module(str(i), block)

    def forward(self, *parts):
        x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        joined, y = [self.conv1(x)], self.conv2(x)
        for i in range(self.blocks):
            y = getattr(self, str(i))(y)
            joined.append(y)
        return self.conv3(torch.cat(joined, 1))


class Downsample(nn.Module):
    def __init__(self, width, act):
        super().__init__()
        self.depthwise = Conv(width, width, 3, 2, act, depthwise=True)
        self.pointwise = Conv(width, width, act=act)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))


class Neck(nn.Module):
    def __init__(self, spec):
        super().__init__()
        (c0, c1, c2), (o0, o1, o2) = spec["in_channels"], spec["out_channels"]
        self.merge_3 = Merge(c2 + c1, c2, spec)
        self.merge_4 = Merge(c1 + c0 + c2, c1, spec)
        self.merge_5 = Merge(c0 + c1, o0, spec)
        self.merge_7 = Merge(c1 + o0, o1, spec)
        self.merge_6 = Merge(c2 + c1 + o1, o2, spec)
        for name, width in {"13": c1, "24": c0, "57": o0, "46": c1, "76": o1}.items():
            down = Downsample(width, spec["act"]) if spec.get("depthwise") else Conv(width, width, 3, 2, spec["act"])
            self.add_module(f"bu_conv{name}", down)

    def forward(self, x2, x1, x0):
        x3 = self.merge_3(x0, self.bu_conv13(x1))
        x4 = self.merge_4(x1, self.bu_conv24(x2), F.interpolate(x3, scale_factor=2.0))
        x5 = self.merge_5(x2, F.interpolate(x4, scale_factor=2.0))
        x7 = self.merge_7(x4, self.bu_conv57(x5))
        x6 = self.merge_6(x3, self.bu_conv46(x4), self.bu_conv76(x7))
        return x5, x7, x6


class Head(nn.Module):
    """ZeroHead to the scores and boxes of all anchors; everything after the convolutions is float32."""

    def __init__(self, spec, widths, size):
        super().__init__()
        self.classes, self.bins = spec["num_classes"], spec["reg_max"] + 1
        channels = self.classes + bool(spec.get("legacy"))
        self.cls = nn.ModuleList(Conv(width, channels, spec["kernel"]) for width in widths)
        self.reg = nn.ModuleList(Conv(width, 4 * self.bins, spec["kernel"]) for width in widths)
        points, strides = [], []
        for stride in (8, 16, 32):
            rows, columns = size[0] // stride, size[1] // stride
            y, x = torch.arange(rows) * stride, torch.arange(columns) * stride
            points.append(torch.stack([x.repeat(rows), y.repeat_interleave(columns)], 1))
            strides.append(torch.full((rows * columns, 1), stride))
        # Attributes, not buffers: a change of the module's precision must leave them alone.
        self.points = torch.cat(points).float()
        self.strides = torch.cat(strides).float()
        self.steps = torch.arange(self.bins).float()

    def _apply(self, function, *args, **kwargs):
        super()._apply(function, *args, **kwargs)
        for name in ("points", "strides", "steps"):
            value = getattr(self, name)
            setattr(self, name, value.to(function(value).device))
        return self

    def forward(self, features):
        rows = lambda x: x.permute(0, 2, 3, 1).flatten(1, 2)
        scores = torch.cat([rows(conv(x)) for conv, x in zip(self.cls, features)], 1)
        bins = torch.cat([rows(conv(x)) for conv, x in zip(self.reg, features)], 1)
        scores = scores[..., : self.classes].float().sigmoid()
        # A product with a vector would keep torch.compile from fusing it all.
        distances = (bins.float().unflatten(-1, (4, self.bins)).softmax(-1) * self.steps).sum(-1) * self.strides
        boxes = torch.cat([self.points - distances[..., :2], self.points + distances[..., 2:]], -1)
        return scores, boxes


class DamoYolo(nn.Module):
    """uint8 pixels [n, height, width, 3] → scores [n, anchors, classes] and boxes [n, anchors, 4], float32.

    `channels_last` is the layout of the activations; the weights' is set with `.to(memory_format=…)`.
    """

    def __init__(self, spec, size=None, channels_last=True):
        super().__init__()
        self.size = tuple(size or spec["input_size"])
        self.variant, self.head_spec = spec["variant"], spec["head"]
        self.channels_last = channels_last
        self.backbone = Backbone(spec["backbone"])
        self.neck = Neck(spec["neck"])
        self.head = Head(spec["head"], spec["neck"]["out_channels"], self.size)

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).to(self.backbone["0"].weight.dtype)
        if not self.channels_last:
            x = x.contiguous()
        return self.head(self.neck(*self.backbone(x)))


def load(path, size=None, channels_last=True):
    """The model of a weights file, float32 on the CPU, for the file's network size or another (height, width)."""
    metadata, weights = tensors.read(path)
    model = DamoYolo(json.loads(metadata["model"]), size, channels_last)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    model = model.eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last) if channels_last else model
