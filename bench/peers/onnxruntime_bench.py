#!/usr/bin/env python3
"""ONNX Runtime as a peer of the engine: see worker.py for what it answers, and bench/compare.py for who asks.

Runs an ONNX file whose input is what damo_yolo.DamoYolo takes, as export_onnx.py writes it, in float32. Input and
outputs stay in the device's memory.
"""

import time

import onnxruntime

import tensors
import worker

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    def __init__(self, args):
        provider = PROVIDERS[args.device]
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"this ONNX Runtime has no {provider}")
        if args.precision not in ("fp32", "tf32") or (args.device == "cpu" and args.precision != "fp32"):
            raise RuntimeError(f"the model is float32, not {args.precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        settings = {"use_tf32": int(args.precision == "tf32")} if args.device == "cuda" else {}

        begin = time.perf_counter()
        self.session = onnxruntime.InferenceSession(args.weights, options, providers=[(provider, settings)])
        pixels, self.images = tensors.noise_behind(args.images, args.batch)
        self.binding = self.session.io_binding()
        name = self.session.get_inputs()[0].name
        self.binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(pixels, args.device, 0))
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name, args.device)
        self.step()
        plan_s = time.perf_counter() - begin
        self.ready = {"engine": "onnxruntime", "engine_version": onnxruntime.__version__, "plan_s": plan_s}

    def step(self):
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def run(self, times):
        for _ in range(worker.WARM_UP):
            self.step()
        return {"alone_ms": [self.clocked() for _ in range(times)], "back_to_back_ms": []}

    def clocked(self):
        begin = time.perf_counter()
        self.step()
        return 1e3 * (time.perf_counter() - begin)

    def outputs(self, path):
        self.step()
        scores, boxes = self.binding.copy_outputs_to_cpu()
        tensors.write(path, {"scores": scores[: self.images], "boxes": boxes[: self.images]})

    def memory_mb(self):
        return None


if __name__ == "__main__":
    worker.serve(OnnxRuntime, worker.options(__doc__).parse_args())
