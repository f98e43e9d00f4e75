"""Images to learn from: synthetic scenes without end, any folder in COCO's format, and real nuclei to fetch."""

from rcnn_edu.datasets.coco import CocoDataset, DetectionDataset, as_coco, read_image, write_coco
from rcnn_edu.datasets.nuclei import fetch_nuclei
from rcnn_edu.datasets.scenes import SceneSettings, SyntheticScenes

__all__ = [
    "CocoDataset",
    "DetectionDataset",
    "SceneSettings",
    "SyntheticScenes",
    "as_coco",
    "fetch_nuclei",
    "read_image",
    "write_coco",
]
