"""What bench/compare.py talks to: a process that holds one engine in one configuration and measures itself on request.

The same lines as build/network-bench understands. One request a line, one answer a line, in JSON:
  (at the start)  {"engine", and "engine_version" and "plan_s" where known}, once a first result has been read back
  run N           {"alone_ms": [N times], "back_to_back_ms": [up to N times]}
  end_to_end N    {"alone_ms"}, from encoded pictures to boxes, where they are given; not every engine can
  outputs FILE    {}; FILE holds scores and boxes of the first images, float32 safetensors
  memory          {"device_memory_mb"}
What goes wrong is answered by {"error"}, and ends the process. So does the end of the input.
"""

import argparse
import json
import os
import sys
import traceback

WARM_UP = 3  # runs at the beginning of each turn that are not counted


def options(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True, help="safetensors file: images, uint8 [n, height, width, 3]")
    parser.add_argument("--device", required=True, choices=["cpu", "cuda"])
    parser.add_argument("--precision", required=True, choices=["fp32", "tf32", "bf16", "fp16"])
    parser.add_argument("--mode", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pictures", help="folder of pictures for end_to_end")
    return parser


def serve(make, args):
    """`make(args)` gives an engine that has run once, with `ready`, run(n), outputs(path) and memory_mb()."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        engine = make(args)
        answer(engine.ready)
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            if word == "run":
                answer(engine.run(int(rest)))
            elif word == "end_to_end":
                answer(engine.end_to_end(int(rest)))
            elif word == "outputs":
                engine.outputs(rest)
                answer({})
            elif word == "memory":
                answer({"device_memory_mb": engine.memory_mb()})
            else:
                raise ValueError(f"unknown request {line!r}")
    except Exception as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        sys.exit(1)
