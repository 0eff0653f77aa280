#!/usr/bin/env python3
"""PyTorch as a peer of the engine: see worker.py for what it answers, and bench/compare.py for who asks.

Modes: eager (contiguous NCHW), channels-last (eager, NHWC), and those of torch.compile (NHWC): default,
reduce-overhead, max-autotune. Precisions other than fp32 and tf32 convert the model; sums of 16-bit convolutions are
float32 in the libraries. Best known settings: cuDNN picks by timing, everything runs in inference mode, a captured
graph reads its input in place, and on a CPU torch.compile may prepack the weights.
"""

import time

import torch

import cuda_events
import damo_yolo
import tensors
import worker

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILED = ("default", "reduce-overhead", "max-autotune")


class Torch:
    def __init__(self, args):
        self.args, self.cuda = args, args.device == "cuda"
        if args.mode in COMPILED and not hasattr(torch, "compile"):
            raise RuntimeError(f"PyTorch {torch.__version__} has no torch.compile")
        if self.cuda and not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no GPU")
        if not self.cuda and args.precision not in ("fp32", "bf16"):
            raise RuntimeError(f"no {args.precision} on a CPU")
        torch.set_num_threads(args.threads)
        free = cuda_events.free_bytes() if self.cuda else None
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.precision == "tf32"

        pixels, self.images = tensors.noise_behind(args.images, args.batch)
        size = pixels.shape[1:3]
        with torch.inference_mode(False):  # parameters as torch.compile expects them
            model = damo_yolo.load(args.weights, size, channels_last=args.mode != "eager")
            self.model = model.to(args.device, DTYPES[args.precision])
        self.input = torch.from_numpy(pixels).to(args.device)
        if args.mode in COMPILED:
            self.compile(args.mode)

        begin = time.perf_counter()
        self.step()
        self.scores.sum().item()
        plan_s = time.perf_counter() - begin
        for _ in range(worker.WARM_UP):  # the first runs of reduce-overhead and max-autotune record and capture
            self.step()
        self.memory_bytes = free - cuda_events.free_bytes() if self.cuda else None
        self.whole = None  # end to end, when that is asked for
        self.ready = {"engine": "torch", "engine_version": torch.__version__, "plan_s": plan_s}

    def compile(self, mode):
        if self.cuda:
            torch._dynamo.mark_static_address(self.input)
        else:
            from torch._inductor import config

            config.freezing = True
        self.model = torch.compile(self.model, mode=mode, fullgraph=True, dynamic=False)

    def step(self):
        self.scores = self.boxes = None
        if hasattr(torch, "compiler"):
            torch.compiler.cudagraph_mark_step_begin()
        self.scores, self.boxes = self.model(self.input)

    def run(self, times):
        for _ in range(worker.WARM_UP):
            self.step()
        if self.cuda:
            return cuda_events.measure(self.step, times)
        return {"alone_ms": [self.clocked() for _ in range(times)], "back_to_back_ms": []}

    def clocked(self):
        begin = time.perf_counter()
        self.step()
        return 1e3 * (time.perf_counter() - begin)

    def end_to_end(self, times):
        import end_to_end  # needs more than the rest

        if self.whole is None:
            self.whole = end_to_end.EndToEnd(self.args.pictures, self.input, self.network, self.args.threads)
        for _ in range(worker.WARM_UP):
            self.whole.run()
        return {"alone_ms": [self.whole.clocked() for _ in range(times)]}

    def network(self):
        self.step()
        return self.scores, self.boxes

    def outputs(self, path):
        self.step()
        first = lambda tensor: tensor[: self.images].cpu().numpy()
        tensors.write(path, {"scores": first(self.scores), "boxes": first(self.boxes)})

    def memory_mb(self):
        """All that the driver counts beyond the context, as for this engine."""
        return self.memory_bytes / 1e6 if self.cuda else None


def main():
    args = worker.options(__doc__).parse_args()
    with torch.inference_mode():
        worker.serve(Torch, args)


if __name__ == "__main__":
    main()
