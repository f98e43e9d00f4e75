"""The index's small pictures, one a lesson, each cut from a figure of its committed notebook.

``make notebooks`` makes them by ``python -m tests.notebooks.pictures``: a figure may have changed.
"""

import base64
import io
from pathlib import Path

from PIL import Image

from tests.notebooks.execute import read

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "pictures"
SIZE = (384, 216)
# Of each lesson: what the figure's cell contains, and where in the figure the picture lies: left, top, right, bottom of
# its width and height.
CUTS: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "00_start_here": ("beside_truth_figure(", (0.5, 0.04, 1.0, 0.9)),
    "01_roi_quantization_vs_roialign": ("roi_explorer()", (0.0, 0.05, 0.76, 0.66)),
    "02_fpn": ("explore.show(explore.draw_scene(scene), scene.alt)", (0.0, 0.0, 0.5, 0.9)),
    "03_anchor_assignment": ("windows_scene()", (0.0, 0.0, 0.66, 0.95)),
    "04_balanced_sampling": ("problem_scene(", (0.33, 0.03, 1.0, 0.93)),
    "05_mask_rcnn": ("mask_explorer(", (0.49, 0.28, 1.0, 0.87)),
    "06_cascade_rcnn": ("threshold_explorer(", (0.33, 0.05, 1.0, 0.7)),
    "07_soft_nms": ("boxes_scene(", (0.33, 0.06, 1.0, 0.92)),
    "08_multi_scale_testing": ("explore.show(explore.draw_scene(scene), scene.alt)", (0.14, 0.0, 1.0, 0.95)),
    "09_your_own_data": ("precision_explorer(", (0.395, 0.0, 1.0, 0.73)),
}


def cut(notebook: Path, source: str, part: tuple[float, float, float, float]) -> Image.Image:
    """Return the part of the figure that the notebook's cell with ``source`` shows, as large as the index wants it."""
    pictures = [
        output.data["image/png"]
        for cell in read(notebook).cells
        if cell.cell_type == "code" and source in cell.source
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    if not pictures:
        raise ValueError(f"no cell of {notebook.name} that contains {source!r} shows a picture; correct CUTS")
    figure = Image.open(io.BytesIO(base64.b64decode(pictures[0]))).convert("RGB")
    width, height = figure.size
    left, top, right, bottom = part
    middle_x, middle_y = (left + right) / 2 * width, (top + bottom) / 2 * height
    # The largest 16 : 9 frame within the part, around its middle.
    scale = min((right - left) * width / SIZE[0], (bottom - top) * height / SIZE[1])
    half_x, half_y = scale * SIZE[0] / 2, scale * SIZE[1] / 2
    frame = figure.crop(
        (round(middle_x - half_x), round(middle_y - half_y), round(middle_x + half_x), round(middle_y + half_y))
    )
    return frame.resize(SIZE, Image.Resampling.LANCZOS).quantize(128, dither=Image.Dither.NONE)


def main() -> None:
    for name, (source, part) in CUTS.items():
        cut(ROOT / "notebooks" / f"{name}.ipynb", source, part).save(FOLDER / f"lesson_{name[:2]}.png", optimize=True)


if __name__ == "__main__":
    main()
