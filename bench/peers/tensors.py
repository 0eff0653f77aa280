"""Safetensors files as NumPy arrays, and bytes that are a function of a name alone."""

import json
import struct

import numpy as np

_TYPES = {"F32": np.float32, "U8": np.uint8, "BF16": np.uint16}
_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}


def read(path):
    """The metadata and the tensors of a file by name; BF16 becomes float32, which holds it exactly."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], _TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = array.reshape(entry["shape"])
    return metadata, tensors


def noise_behind(path, batch):
    """What an engine is measured with: the images of a file, whose outputs are checked, and noise up to `batch`. And how
    many are checked."""
    images = read(path)[1]["images"][:batch]
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *images.shape[1:]), np.uint8)
    pixels[: len(images)] = images
    return pixels, len(images)


def write(path, tensors, metadata=None):
    """Float32 and uint8 arrays by name."""
    header, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": array.shape,
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def golden_bytes(name, count):
    """The bytes that tests/golden_generator.h gives."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(56)).astype(np.uint8)
