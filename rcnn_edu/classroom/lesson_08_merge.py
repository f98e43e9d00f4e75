"""Exercise of lesson 08: what several views of an image have seen becomes one answer.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.classroom.verdict import name_of
from rcnn_edu.ops import batched_nms, box_iou, nms

KEYS = ("boxes", "labels", "scores")

_View = Mapping[str, Any]  # scale, flipped, boxes, labels, scores
_Detection = dict[str, Tensor]
_Merge = Callable[[Sequence[_View], float, float, int], _Detection]
_Back = Callable[[_View, float], Tensor]
_Choose = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]  # boxes, scores, labels, threshold, limit -> keep


def _mirror(boxes: Tensor, width: float) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


def _back(view: _View, width: float) -> Tensor:
    """Return the view's boxes in the image's own pixels."""
    boxes: Tensor = view["boxes"] / view["scale"]
    return _mirror(boxes, width) if view["flipped"] else boxes


def _choose(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float, limit: int) -> Tensor:
    return batched_nms(boxes, scores, labels, iou_thresh)[:limit]


def _answer(restored: Tensor, seen: Tensor, labels: Tensor, scores: Tensor, keep: Tensor) -> _Detection:
    return {"boxes": restored[keep], "labels": labels[keep], "scores": scores[keep]}


def _merge_with(
    *,
    back: _Back = _back,
    compared: _Back | None = None,  # the boxes that suppression looks at: those brought back
    choose: _Choose = _choose,
    answer: Callable[..., _Detection] = _answer,
) -> _Merge:
    """Return the merge with some of its steps replaced; with none, it is right."""

    def merge(views: Sequence[_View], width: float, iou_thresh: float, max_detections: int) -> _Detection:
        seen, labels, scores = (torch.cat([view[key] for view in views]) for key in KEYS)
        restored = torch.cat([back(view, width) for view in views])
        looked_at = restored if compared is None else torch.cat([compared(view, width) for view in views])
        return answer(restored, seen, labels, scores, choose(looked_at, scores, labels, iou_thresh, max_detections))

    return merge


_right = _merge_with()


def merge(
    views: Sequence[_View], width: float, iou_thresh: float = 0.5, max_detections: int = 100
) -> dict[str, Tensor]:
    """Return ``boxes``, ``labels`` and ``scores`` of what the views have seen together, best first.

    Args:
        views: of each its ``scale``, whether it is ``flipped``, and the boxes seen in it, in its own pixels.
        width: of the image, in pixels.
        iou_thresh: boxes of a class that overlap by more are copies.
        max_detections: of those that are left, the best so many answer.

    Lesson: 08.
    """
    return _right(views, width, iou_thresh, max_detections)


def _each_by_itself(views: Sequence[_View], width: float, iou_thresh: float, max_detections: int) -> _Detection:
    """Suppress within each view, and only put the rest together."""
    alone = [merge([view], width, iou_thresh, 1000) for view in views]
    together = {key: torch.cat([found[key] for found in alone]) for key in KEYS}
    best = together["scores"].argsort(descending=True)[:max_detections]
    return {key: values[best] for key, values in together.items()}


def _best_first(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float, limit: int) -> Tensor:
    """Return the best boxes, copies among them."""
    return scores.argsort(descending=True)[:limit]


def _cut_before(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float, limit: int) -> Tensor:
    best = _best_first(boxes, scores, labels, iou_thresh, limit)
    return best[batched_nms(boxes[best], scores[best], labels[best], iou_thresh)]


def _backs(*backs: _Back) -> tuple[_Merge, ...]:
    return tuple(_merge_with(back=back) for back in backs)


def _chooses(*chooses: _Choose) -> tuple[_Merge, ...]:
    return tuple(_merge_with(choose=choose) for choose in chooses)


def _mirror_by(mirrored: Callable[[Tensor, float], Tensor]) -> _Back:
    return lambda view, width: mirrored(view["boxes"] / view["scale"], width) if view["flipped"] else _back(view, width)


def _inside_out(boxes: Tensor, width: float) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([width - x1, y1, width - x2, y2], dim=1)


_MISTAKES = (
    Mistake(
        "Boxes stay in the pixels of their view: an object of 10 px is 20 px wide at scale 2, and has to be 10 again.",
        _backs(lambda view, width: _mirror(view["boxes"], width) if view["flipped"] else view["boxes"]),
    ),
    Mistake(
        "Boxes are multiplied by the scale, which is what the way there does: the way back divides.",
        _backs(lambda view, width: _back({**view, "scale": 1 / view["scale"]}, width)),
    ),
    Mistake(
        "Boxes of a mirrored view are not mirrored back: they lie on the other side of the image.",
        _backs(lambda view, width: view["boxes"] / view["scale"]),
    ),
    Mistake(
        "Boxes of a mirrored view come back one pixel too far to the left: their sides are edges and not pixels, so x "
        "becomes width - x, with no 1 in it.",
        _backs(_mirror_by(lambda boxes, width: _mirror(boxes, width - 1))),
    ),
    Mistake(
        "The two steps of the way back are of different frames: in the view's pixels its width is scale times the "
        "image's, so divide first and then mirror within the image's width.",
        _backs(
            lambda view, width: (
                _mirror(view["boxes"], width) / view["scale"] if view["flipped"] else _back(view, width)
            ),
            lambda view, width: _back(view, width * view["scale"]),
        ),
    ),
    Mistake(
        "Mirrored boxes end before they begin: the right edge becomes the left one, so x1 and x2 change places.",
        (
            _merge_with(back=_mirror_by(_inside_out)),
            _merge_with(
                back=_mirror_by(_inside_out),
                choose=lambda boxes, scores, labels, iou_thresh, limit: torchvision.ops.batched_nms(
                    boxes, scores, labels, iou_thresh
                )[:limit],
            ),
        ),
    ),
    Mistake(
        "Every view is mirrored back: only those that are flipped should be.",
        _backs(lambda view, width: _back({**view, "flipped": True}, width)),
    ),
    Mistake(
        "Copies are left: what two views see of one object is two boxes, and the suppression runs over all views "
        "together.",
        (_merge_with(choose=_best_first), _each_by_itself),
    ),
    Mistake(
        "Suppression compares boxes that are still in their views' pixels: bring them all back before it.",
        (_merge_with(compared=lambda view, width: view["boxes"]),),
    ),
    Mistake(
        "The right boxes are chosen, but the answer has them in their views' pixels.",
        (
            _merge_with(
                answer=lambda restored, seen, labels, scores, keep: _answer(seen, restored, labels, scores, keep)
            ),
        ),
    ),
    Mistake(
        "Boxes of different classes suppress each other: a leaf in front of a flower is no copy of it.",
        _chooses(lambda boxes, scores, labels, iou_thresh, limit: nms(boxes, scores, iou_thresh)[:limit]),
    ),
    Mistake(
        "The threshold is always 0.5: the argument iou_thresh says where.",
        _chooses(lambda boxes, scores, labels, iou_thresh, limit: _choose(boxes, scores, labels, 0.5, limit)),
    ),
    Mistake(
        "There are more detections than max_detections: of those that are left, the best so many answer.",
        _chooses(
            lambda boxes, scores, labels, iou_thresh, limit: batched_nms(boxes, scores, labels, iou_thresh),
        ),
    ),
    Mistake(
        "The best are picked before copies are gone, so that copies take the places of other objects: suppress first, "
        "then keep the best max_detections.",
        _chooses(_cut_before),
    ),
    Mistake(
        "The detections come in the order of the views: the best score goes first.",
        _chooses(
            lambda boxes, scores, labels, iou_thresh, limit: (
                _choose(boxes, scores, labels, iou_thresh, limit).sort().values
            )
        ),
    ),
    Mistake(
        "Boxes and scores are chosen, but the labels are not: keep picks from all three.",
        (
            _merge_with(
                answer=lambda restored, seen, labels, scores, keep: {
                    **_answer(restored, seen, labels, scores, keep),
                    "labels": labels[: len(keep)],
                }
            ),
            _merge_with(
                answer=lambda restored, seen, labels, scores, keep: {
                    **_answer(restored, seen, labels, scores, keep),
                    "labels": labels,
                }
            ),
        ),
    ),
)


def compare_detections(expected: _Detection, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; its values may be plain lists."""
    if not isinstance(got, Mapping) or any(key not in got for key in KEYS):
        came = f"a dict with {sorted(map(str, got))}" if isinstance(got, Mapping) else name_of(got)
        return f"it returns {came} where a dict with boxes, labels and scores is expected"
    try:
        boxes, labels, scores = (torch.as_tensor(got[key]).detach() for key in KEYS)
    except (TypeError, ValueError, RuntimeError):  # torch's word for a list of tensors of several elements, of None ...
        return "boxes, labels and scores are not three tensors, or lists of numbers"
    yours = {"boxes": boxes.view(-1, 4) if boxes.numel() == 0 else boxes, "labels": labels, "scores": scores}
    faults = {
        key: compare_tensors(expected[key].double(), yours[key].double()) for key in ("scores", "boxes", "labels")
    }
    if not any(faults.values()):
        return None
    if scores.ndim != 1 or len({len(part) for part in (boxes, labels, scores) if part.ndim}) != 1:
        shapes = ", ".join(str(tuple(part.shape)) for part in (boxes, labels, scores))
        return f"boxes, labels and scores are of shapes {shapes}: each detection has one of each"
    if len(scores) != len(expected["scores"]):
        return f"it has {len(scores)} detections, and another number is expected"
    if (scores.diff() > 0).any():
        return "the detections do not come best first"
    return next(f"of {key}, {fault}" for key, fault in faults.items() if fault is not None)


def _view(
    scale: float, flipped: bool, boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float]
) -> dict[str, Any]:
    return {
        "scale": scale,
        "flipped": flipped,
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def _case(what: str, views: Sequence[_View], iou_thresh: float = 0.5, max_detections: int = 100) -> Case:
    return Case(what, {"views": list(views), "width": 100, "iou_thresh": iou_thresh, "max_detections": max_detections})


_ONE = _view(1.0, False, [[10, 20, 30, 60], [60, 10, 90, 50]], [1, 2], [0.7, 0.9])
_TWICE = _view(2.0, False, [[24, 40, 60, 120], [140, 150, 180, 190]], [1, 1], [0.8, 0.6])
_MIRRORED = _view(1.0, True, [[12, 10, 42, 50], [70, 20, 90, 64]], [2, 1], [0.5, 0.4])
_HALF_MIRRORED = _view(0.5, True, [[35, 10, 45, 30], [2, 30, 12, 45]], [1, 3], [0.65, 0.3])
_NOTHING = _view(1.5, False, [], [], [])

_WORKED = (
    _case("one view at scale 1", [_ONE]),
    _case("one view at scale 2", [_TWICE]),
    _case("one mirrored view", [_MIRRORED]),
    _case("a mirrored view at scale 0.5", [_HALF_MIRRORED]),
    _case("two views that see one object twice", [_ONE, _TWICE]),
    _case("four views", [_ONE, _TWICE, _MIRRORED, _HALF_MIRRORED]),
    _case(
        "four views, of which the two best detections are asked for", [_HALF_MIRRORED, _TWICE, _MIRRORED, _ONE], 0.5, 2
    ),
    _case("a high iou_thresh", [_ONE, _TWICE, _MIRRORED], 0.95),
    _case("two classes in one place", [_ONE, _view(1.0, False, [[10, 20, 30, 60]], [3], [0.6])]),
    _case("a view that sees nothing", [_NOTHING, _ONE]),
)


def _is_clear(views: Sequence[_View], iou_thresh: float) -> bool:
    """Return whether no rounding decides: no overlap close to a threshold, no two scores alike."""
    boxes, scores = torch.cat([_back(view, 100) for view in views]), torch.cat([view["scores"] for view in views])
    iou, ordered = box_iou(boxes, boxes), scores.sort().values
    return bool(min((iou - limit).abs().min() for limit in (0.5, iou_thresh)) > 0.01 and ordered.diff().min() > 1e-3)


def _random(generator: torch.Generator) -> list[Case]:
    def views(shapes: Sequence[tuple[float, bool]]) -> list[_View]:
        corner = 5 + 50 * torch.rand(4, 2, generator=generator)
        objects = torch.cat([corner, corner + 10 + 30 * torch.rand(4, 2, generator=generator)], dim=1)
        classes = torch.randint(1, 3, (4,), generator=generator)
        seen: list[_View] = []
        for scale, flipped in shapes:
            boxes = objects + 4 * torch.rand(4, 4, generator=generator) - 2
            boxes = scale * (_mirror(boxes, 100) if flipped else boxes)
            scores = 0.1 + 0.85 * torch.rand(4, generator=generator)
            rows = boxes.round(decimals=1).tolist(), classes.tolist(), scores.round(decimals=3).tolist()
            seen.append(_view(scale, flipped, *rows))
        return seen

    cases: list[Case] = []
    settings = [(0.5, 100), (0.3, 100), (0.6, 3), (0.4, 2), (0.7, 5)]
    while len(cases) < len(settings):
        iou_thresh, limit = settings[len(cases)]
        drawn = views([(1.0, False), (2.0, True), (0.5, False), (1.5, True)])
        if _is_clear(drawn, iou_thresh):
            cases.append(_case("four random views", drawn, iou_thresh, limit))
    return cases


MERGE = Exercise(
    name="merge",
    reference=merge,
    start="Begin with a single view that is neither scaled nor mirrored, and then undo one thing at a time.",
    worked=_WORKED,
    random=_random,
    mistakes=_MISTAKES,
    compare=compare_detections,
)
