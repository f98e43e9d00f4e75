"""NMS: ours in blocks, torchvision's compiled loop; alone, and by class or by pyramid level."""

from functools import partial

import torch
import torchvision
from torch import Tensor

from rcnn_edu.ops import batched_nms, nms
from tests.benchmarks.harness import Case, Contenders

SHAPES = [(n, objects) for n in (100, 500, 1000, 2000, 5000, 10_000) for objects in (20, n // 4)]
GROUPED_SHAPES = [(300, 80), (1000, 80), (3000, 80), (4800, 5), (8800, 5)]  # boxes, and classes or levels
IOU_THRESH = 0.6  # heads have 0.5, RPNs 0.7


def cases(quick: bool) -> list[Case]:
    alone, grouped = ([(30, 3)], [(30, 3)]) if quick else (SHAPES, GROUPED_SHAPES)
    return [
        *(Case("nms", f"{n} boxes about {objects} objects", partial(_nms, n, objects)) for n, objects in alone),
        *(Case("batched_nms", f"{n} boxes in {groups} groups", partial(_batched, n, groups)) for n, groups in grouped),
    ]


def random_detections(n: int, objects: int) -> tuple[Tensor, Tensor]:
    """Boxes that jitter about objects of 20 to 200 px in an image of 800 x 1066, and scores."""
    generator = torch.Generator().manual_seed(0)
    image = torch.tensor([1066.0, 800.0])
    centre = torch.rand(objects, 2, generator=generator) * image
    size = 20 * 10 ** torch.rand(objects, 2, generator=generator)
    chosen = torch.randint(objects, (n,), generator=generator)
    shift, growth = torch.randn(2, n, 2, generator=generator)
    centre, size = centre[chosen] + 0.15 * size[chosen] * shift, size[chosen] * torch.exp(0.2 * growth)
    start, end = (centre - size / 2).clamp(min=0), (centre + size / 2).clamp(min=0)
    boxes = torch.cat([torch.minimum(start, image), torch.minimum(end, image)], dim=1)
    return boxes, torch.rand(n, generator=generator)


def _nms(n: int, objects: int) -> Contenders:
    boxes, scores = random_detections(n, objects)
    return {
        "ours": lambda: nms(boxes, scores, IOU_THRESH),
        "torchvision": lambda: torchvision.ops.nms(boxes, scores, IOU_THRESH),
    }


def _batched(n: int, groups: int) -> Contenders:
    boxes, scores = random_detections(n, n // 10)
    group = torch.randint(groups, (n,), generator=torch.Generator().manual_seed(0))
    return {
        "ours": lambda: batched_nms(boxes, scores, group, IOU_THRESH),
        "torchvision": lambda: torchvision.ops.batched_nms(boxes, scores, group, IOU_THRESH),
    }
