"""From encoded pictures in memory to boxes in their pixels, around a PyTorch model: span end_to_end of a report.

Best known settings: OpenCV decodes in as many threads as may be used and releases Python's lock, pixels travel pinned,
the device resizes, and torchvision suppresses all images of a batch at once.
"""

import concurrent.futures
import itertools
import pathlib
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import torchvision

CONFIDENCE, IOU, MOST = 0.5, 0.7, 300  # what `damoyolo bench` detects with


def decode(data):
    picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(picture)


def suppress(box, score, group):
    """Which boxes stay, the best first; boxes of different groups leave each other alone."""
    if not box.is_cuda or len(box) == 0:
        return torchvision.ops.batched_nms(box, score, group, IOU)
    # batched_nms, too, moves the groups apart, but goes over them one by one where boxes are many.
    apart = group.double() * (box.max() - box.min() + 1)
    return torchvision.ops.nms(box + apart[:, None], score.double(), IOU)


class EndToEnd:
    """`pixels`: uint8 [batch, height, width, 3], what network() reads; it gives scores and boxes of all anchors."""

    def __init__(self, folder, pixels, network, threads):
        files = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix in (".png", ".jpg"))
        if not files:
            raise RuntimeError(f"{folder} has no pictures")
        self.files = itertools.cycle([file.read_bytes() for file in files])
        self.pixels, self.network = pixels, network
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        cv2.setNumThreads(1)

    def upload(self, picture, i):
        if self.pixels.is_cuda:
            picture = picture.pin_memory().to(self.pixels.device, non_blocking=True)
        planes = picture.permute(2, 0, 1)[None].float()
        planes = F.interpolate(planes, self.pixels.shape[1:3], mode="bilinear", align_corners=False)
        self.pixels[i].copy_(planes[0].round().permute(1, 2, 0))

    def run(self):
        """Of each image its rows x1, y1, x2, y2, score, class, the best first."""
        batch, height, width = self.pixels.shape[:3]
        pictures = list(self.pool.map(decode, itertools.islice(self.files, batch)))
        for i, picture in enumerate(pictures):
            self.upload(picture, i)
        scores, boxes = self.network()
        image, anchor, label = (scores > CONFIDENCE).nonzero(as_tuple=True)
        score, box = scores[image, anchor, label], boxes[image, anchor]
        kept = suppress(box, score, image * scores.shape[2] + label)
        sizes = torch.tensor([[p.shape[1], p.shape[0]] * 2 for p in pictures], device=box.device, dtype=torch.float32)
        image = image[kept]
        box = box[kept] / box.new_tensor([width, height, width, height]) * sizes[image]
        box = torch.minimum(box.clamp(min=0), sizes[image])
        rows = torch.cat([box, score[kept, None], label[kept, None], image[:, None]], 1).cpu().numpy()
        return [rows[rows[:, 6] == i][:MOST, :6] for i in range(batch)]

    def clocked(self):
        begin = time.perf_counter()
        self.run()
        return 1e3 * (time.perf_counter() - begin)
