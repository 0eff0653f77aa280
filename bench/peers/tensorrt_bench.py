#!/usr/bin/env python3
"""TensorRT as a peer of the engine: see worker.py for what it answers, and bench/compare.py for who asks.

Builds an engine from an ONNX file in the wanted precision, as export_onnx.py writes it. Modes: level-3, the builder's
default, and level-5, at which it searches longest. Best known settings: networks of fixed sizes, every tensor in the
type that the file gives it, no memory held by others while tactics are timed, and each run the replay of one captured
graph that reads its input in place. PyTorch only allocates, captures and times.
"""

import time

import tensorrt as trt
import torch

import cuda_events
import tensors
import worker

LEVELS = {"level-3": 3, "level-5": 5}


def build(path, precision, mode):
    """The engine of an ONNX file."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # From TensorRT 11 on all networks are.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        raise RuntimeError(f"TensorRT does not take the model: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.builder_optimization_level = LEVELS[mode]
    if precision != "tf32":
        config.clear_flag(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    engine = plan and trt.Runtime(logger).deserialize_cuda_engine(plan)
    if not engine:
        raise RuntimeError("TensorRT builds no engine of the model; its log says why")
    return engine


class TensorRt:
    def __init__(self, args):
        if args.device != "cuda":
            raise RuntimeError("TensorRT needs a GPU")
        torch.cuda.init()
        free = cuda_events.free_bytes()
        begin = time.perf_counter()
        self.engine = build(args.weights, args.precision, args.mode)
        self.context = self.engine.create_execution_context()

        pixels, self.images = tensors.noise_behind(args.images, args.batch)
        self.input = torch.from_numpy(pixels).cuda()
        self.results = {
            name: torch.empty(tuple(self.engine.get_tensor_shape(name)), dtype=torch.float32, device="cuda")
            for name in ("scores", "boxes")
        }
        for name, tensor in {"images": self.input, **self.results}.items():
            self.context.set_tensor_address(name, tensor.data_ptr())

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):  # what a first run sets up may not be captured
            self.enqueue()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.enqueue()
        self.step()
        self.results["scores"].sum().item()
        plan_s = time.perf_counter() - begin
        self.memory_bytes = free - cuda_events.free_bytes()
        self.ready = {"engine": "tensorrt", "engine_version": trt.__version__, "plan_s": plan_s}

    def enqueue(self):
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT does not run its engine; its log says why")

    def step(self):
        self.graph.replay()

    def run(self, times):
        for _ in range(worker.WARM_UP):
            self.step()
        return cuda_events.measure(self.step, times)

    def outputs(self, path):
        self.step()
        tensors.write(path, {name: tensor[: self.images].cpu().numpy() for name, tensor in self.results.items()})

    def memory_mb(self):
        """All that the driver counts beyond the context, as for this engine."""
        return self.memory_bytes / 1e6


if __name__ == "__main__":
    worker.serve(TensorRt, worker.options(__doc__).parse_args())
