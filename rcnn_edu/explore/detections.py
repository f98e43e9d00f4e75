"""Detections drawn into their picture, for the command line and the lessons; and told apart into right and wrong."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from rcnn_edu.models.transform import Detection, Target
from rcnn_edu.ops import box_iou

# Okabe and Ito's colours and two more, told apart by people with any kind of colour vision; neighbours differ most.
PALETTE = ("#e69f00", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#ffffff")


def draw_detections(
    image: Float[Tensor, "3 H W"],
    detection: Detection,
    categories: Sequence[str],
    *,
    score_thresh: float = 0.5,
    mask_thresh: float = 0.5,
    min_side: int = 640,
) -> Image.Image:
    """Return the picture with each object's mask, box, class and score in the colour of its class.

    Args:
        image: shape (3, H, W), from 0 to 1.
        detection: ``boxes`` and ``labels``, and ``scores`` and ``masks`` if there are any: a target will do too.
        categories: the classes' names, that of label 1 first.
        score_thresh: less certain ones are left out.
        mask_thresh: a pixel is the object's where its probability is at least this.
        min_side: a smaller picture is enlarged until its shorter side is as long, in pixels: labels need room.
    """
    height, width = image.shape[1:]
    scale = max(1.0, min_side / min(height, width))
    size = round(height * scale), round(width * scale)
    picture = Image.fromarray(to_pixels(image)).resize(size[::-1], Image.Resampling.BICUBIC)
    scores = detection.get("scores", torch.ones(len(detection["labels"])))
    line, font = max(2, round(min(size) / 320)), ImageFont.load_default(max(12, min(size) / 40))
    shown = (scores >= score_thresh).nonzero()[:, 0].tolist()
    for i in reversed(shown):  # the most certain one ends up on top
        colour = PALETTE[(int(detection["labels"][i]) - 1) % len(PALETTE)]
        if "masks" in detection:
            _draw_mask(picture, detection["masks"][i], colour, mask_thresh, line)
    draw = ImageDraw.Draw(picture)
    for i in reversed(shown):
        label = int(detection["labels"][i])
        colour, name = PALETTE[(label - 1) % len(PALETTE)], categories[label - 1]
        box = [coordinate * scale for coordinate in detection["boxes"][i].tolist()]
        draw.rectangle(box, outline=colour, width=line)
        text = f"{name} {scores[i]:.2f}" if "scores" in detection else name
        _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = min(max(box[0], 0), max(0, size[1] - right - 2 * line))
        y = box[1] - bottom - 2 * line if box[1] >= bottom + 2 * line else box[1]  # above the box where there is room
        draw.rectangle((x, y, x + right + 2 * line, y + bottom + 2 * line), fill=colour)
        draw.text((x + line, y + line), text, fill="black" if _is_light(colour) else "white", font=font)
    return picture


def _draw_mask(picture: Image.Image, mask: Tensor, colour: str, threshold: float, line: int) -> None:
    """Tint the mask's pixels and draw its outline, in place."""
    values = mask.detach().cpu().float().view(1, 1, *mask.shape[-2:])
    values = F.interpolate(values, picture.size[::-1], mode="bilinear")[0, 0]
    inside = Image.fromarray((values >= threshold).numpy().astype(np.uint8) * 255)
    picture.paste(Image.new("RGB", picture.size, colour), mask=inside.point(lambda value: value * 0.45))
    inner = inside.filter(ImageFilter.MinFilter(2 * (line // 2) + 3))
    picture.paste(Image.new("RGB", picture.size, colour), mask=ImageChops.subtract(inside, inner))


def _is_light(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 110


def to_pixels(image: Float[Tensor, "3 H W"]) -> NDArray[np.uint8]:
    """Return an image of values from 0 to 1 as pixels of shape (H, W, 3)."""
    return (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def match(detection: Detection, target: Target, iou_thresh: float = 0.5) -> Int[Tensor, " k"]:
    """Return the object that each detection finds, or -1: the best score first, each object once, as COCO counts."""
    iou = box_iou(detection["boxes"], target["boxes"])
    iou = torch.where(detection["labels"][:, None] == target["labels"], iou, 0)
    found = torch.full((len(iou),), -1)
    for index in detection["scores"].argsort(descending=True, stable=True).tolist():
        if iou.shape[1] and iou[index].max() >= iou_thresh:
            found[index] = iou[index].argmax()
            iou[:, found[index]] = 0  # no other detection can find it again
    return found
