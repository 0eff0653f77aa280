#!/usr/bin/env python3
"""Writes truth.json, detections.json and expected.json: a hard evaluation set and what pycocotools makes of it.

Run it from anywhere; it needs numpy and pycocotools (2.0.11 made the committed files).
"""
import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HERE = pathlib.Path(__file__).parent
WITHOUT_OBJECTS = 6  # a category that is only detected
UNDETECTED = 7
CATEGORIES = [1, 2, 3, 5, WITHOUT_OBJECTS, UNDETECTED]  # with a gap
IMAGE_IDS = [int(i) for i in np.random.default_rng(1).permutation(np.arange(100, 124))]  # not in ascending order
EMPTY_IMAGES = IMAGE_IDS[:3]  # no objects, but detections
CROWDED_IMAGE = IMAGE_IDS[3]  # more than 100 detections of one category


def random_box(rng, size):
    width, height = size * rng.uniform(0.6, 1.6, 2)
    return [round(float(v), 2) for v in (*rng.uniform(0, 500, 2), width, height)]


def make_truth(rng):
    annotations = []
    for image in IMAGE_IDS:
        if image in EMPTY_IMAGES:
            continue
        for _ in range(int(rng.integers(3, 14))):
            box = random_box(rng, float(rng.choice([12, 25, 32, 60, 96, 150])))
            crowd = int(rng.random() < 0.12)
            # Areas of masks are smaller than their boxes'; some lie exactly on the limits of the ranges.
            area = round(box[2] * box[3] * float(rng.choice([0.5, 0.8, 1.0])), 3)
            if rng.random() < 0.1:
                area = float(rng.choice([32**2, 96**2]))
            category = int(rng.choice([c for c in CATEGORIES if c != WITHOUT_OBJECTS]))
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category,
                                "bbox": box, "area": area, "iscrowd": crowd})
            if rng.random() < 0.15:  # the same object twice: equal overlaps
                annotations.append(annotations[-1] | {"id": len(annotations) + 1, "iscrowd": 0})
    return {"images": [{"id": i, "file_name": f"{i}.png", "width": 640, "height": 640} for i in IMAGE_IDS],
            "annotations": annotations,
            "categories": [{"id": c, "name": f"class {c}"} for c in CATEGORIES]}


def make_detections(rng, truth):
    detections = []

    def add(image, category, box):
        # Scores of two decimals: many ties.
        detections.append({"image_id": image, "category_id": category, "bbox": box,
                           "score": round(float(rng.uniform(0.05, 0.99)), 2)})

    for annotation in truth["annotations"]:
        if annotation["category_id"] == UNDETECTED:
            continue
        x, y, width, height = annotation["bbox"]
        for _ in range(int(rng.integers(0, 4))):
            shift = rng.normal(0, rng.choice([0.02, 0.06, 0.15]), 4)
            box = [x + shift[0] * width, y + shift[1] * height,
                   width * (1 + shift[2]), height * (1 + shift[3])]
            category = annotation["category_id"] if rng.random() < 0.9 else int(rng.choice(CATEGORIES[:-1]))
            add(annotation["image_id"], category, [round(float(v), 2) for v in box])
        if rng.random() < 0.2:
            add(annotation["image_id"], annotation["category_id"], annotation["bbox"])
        if annotation["iscrowd"]:  # many small ones inside
            for _ in range(4):
                part = [x + width * rng.uniform(0, 0.6), y + height * rng.uniform(0, 0.6), width * 0.3, height * 0.3]
                add(annotation["image_id"], annotation["category_id"], [round(float(v), 2) for v in part])
    for image in IMAGE_IDS:
        for _ in range(int(rng.integers(1, 6))):
            add(image, int(rng.choice(CATEGORIES[:-1])), random_box(rng, 60))
    for annotation in [a for a in truth["annotations"] if a["image_id"] == CROWDED_IMAGE]:
        for _ in range(30):
            x, y, width, height = annotation["bbox"]
            add(CROWDED_IMAGE, 1, [round(x + float(rng.normal(0, 8)), 2), y, width, height])
    order = rng.permutation(len(detections))
    return [detections[i] for i in order]


def evaluate(truth, detections):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    def or_none(value):
        return None if value == -1 else float(value)

    def class_precision(index, overlaps):
        values = evaluation.eval["precision"][overlaps, :, index, 0, -1]
        return or_none(values.mean())

    names = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    return {name: or_none(value) for name, value in zip(names, evaluation.stats)} | {
        "classes": [{"category_id": int(category), "ap": class_precision(k, slice(None)),
                     "ap50": class_precision(k, 0), "ap75": class_precision(k, 5)}
                    for k, category in enumerate(evaluation.params.catIds)]}


def write(name, value):
    text = json.dumps(value, separators=(",", ":")).replace("},", "},\n")
    (HERE / name).write_text(text + "\n")


def main():
    rng = np.random.default_rng(20)
    truth = make_truth(rng)
    detections = make_detections(rng, truth)
    expected = evaluate(json.loads(json.dumps(truth)), json.loads(json.dumps(detections)))
    most = max(sum(d["image_id"] == CROWDED_IMAGE and d["category_id"] == c for d in detections) for c in CATEGORIES)
    assert most > 100, most
    write("truth.json", truth)
    write("detections.json", detections)
    write("expected.json", expected)
    print(json.dumps(expected, indent=1), len(truth["annotations"]), len(detections))


main()
