"""What the peers on a GPU are measured with: times between events, and the device's free memory."""

import torch


def measure(step, times):
    """`step` puts one run on the current stream. Milliseconds of runs that wait for the one before, and of runs that
    do not, as worker.py's answer to "run"."""
    event = lambda: torch.cuda.Event(enable_timing=True)
    begin, end, alone = event(), event(), []
    torch.cuda.synchronize()
    for _ in range(times):
        begin.record()
        step()
        end.record()
        end.synchronize()
        alone.append(begin.elapsed_time(end))

    ends = [event() for _ in range(times + 1)]
    for moment in ends:
        step()
        moment.record()
    torch.cuda.synchronize()
    return {"alone_ms": alone, "back_to_back_ms": [a.elapsed_time(b) for a, b in zip(ends, ends[1:])]}


def free_bytes():
    """Of the device, once its context is there; what choosing kernels took for a while counts as free."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]
