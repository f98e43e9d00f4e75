"""Exercise of lesson 02: one step down a feature pyramid, from a map of the body and the level above to the next level.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake

_Merge = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _enlarge(above: Tensor, height: int, width: int) -> Tensor:
    """Return each value repeated: cell i of the result lies over cell i // 2 of the coarser map."""
    return F.interpolate(above, size=(height, width), mode="nearest")


def _merge_with(
    *,
    lateral: Callable[[Tensor, Tensor, Tensor], Tensor] = F.conv2d,
    enlarge: Callable[[Tensor, int, int], Tensor] = _enlarge,
    join: Callable[[Tensor, Tensor], Tensor] = torch.add,
) -> _Merge:
    """Return the step with one of its parts replaced; with none, it is right."""

    def merge(feature: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> Tensor:
        return join(lateral(feature, weight, bias), enlarge(above, *feature.shape[-2:]))

    return merge


merge_top_down = _merge_with()


def _doubled(above: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(above, scale_factor=2.0, mode="nearest")


def _last_cells(above: Tensor, height: int, width: int) -> Tensor:
    return _doubled(above, height, width)[:, :, -height:, -width:]


def _tiled(above: Tensor, height: int, width: int) -> Tensor:
    return above.repeat(1, 1, 2, 2)[:, :, :height, :width]


def _at_coarse_size(feature: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> Tensor:
    shrunk = F.interpolate(F.conv2d(feature, weight, bias), size=(above.shape[2], above.shape[3]), mode="nearest")
    return shrunk + above


MISTAKES = (
    Mistake(
        "The coarser map is doubled, and at odd sizes that is one row or column too many. Enlarge it to the very size "
        "of the finer one.",
        (_merge_with(enlarge=_doubled),),
    ),
    Mistake(
        "At odd sizes the surplus is cut off at the wrong end: the first cells of both maps begin at the same pixel, "
        "so it is the last row or column that goes.",
        (_merge_with(enlarge=_last_cells),),
    ),
    Mistake(
        "At odd sizes the coarser map is stretched: cell i of the finer map lies over cell i // 2 of the coarser one, "
        "and takes its value.",
        (_merge_with(enlarge=lambda above, h, w: F.interpolate(above, size=(h, w), mode="nearest-exact")),),
    ),
    Mistake(
        "The values of the coarser map are blended with their neighbours. The paper's way is the nearest neighbour: "
        "each value is repeated, over 2 x 2 cells.",
        (
            _merge_with(enlarge=lambda above, h, w: F.interpolate(above, size=(h, w), mode="bilinear")),
            _merge_with(
                enlarge=lambda above, h, w: F.interpolate(above, size=(h, w), mode="bilinear", align_corners=True)
            ),
            _merge_with(enlarge=lambda above, h, w: F.interpolate(above, size=(h, w), mode="bicubic")),
        ),
    ),
    Mistake(
        "The coarser map is laid side by side as a whole. Each of its values is to be repeated in place, over the "
        "2 x 2 cells that lie in it.",
        (_merge_with(enlarge=_tiled),),
    ),
    Mistake(
        "Nothing comes down from the level above: the result is the lateral map alone.",
        (_merge_with(join=lambda lateral, above: lateral),),
    ),
    Mistake(
        "The lateral map takes no part: the result is the enlarged level above alone.",
        (_merge_with(join=lambda lateral, above: above),),
    ),
    Mistake(
        "The two maps are averaged. The paper adds them: the 3 x 3 convolution that follows can scale as it needs.",
        (_merge_with(join=lambda lateral, above: (lateral + above) / 2),),
    ),
    Mistake(
        "Of the two maps, the larger value of each cell is taken. The paper adds them.",
        (_merge_with(join=torch.maximum),),
    ),
    Mistake(
        "The two maps are stacked, so that the channels double. They have the same shape so that they can be added.",
        (_merge_with(join=lambda lateral, above: torch.cat([lateral, above], dim=1)),),
    ),
    Mistake(
        "The lateral convolution's bias is left out: it is added to every cell, one number for each output channel.",
        (_merge_with(lateral=lambda feature, weight, bias: F.conv2d(feature, weight)),),
    ),
    Mistake(
        "There is a ReLU that the paper has not: a level may be negative, and the pyramid is linear throughout.",
        (
            _merge_with(join=lambda lateral, above: F.relu(lateral + above)),
            _merge_with(lateral=lambda feature, weight, bias: F.relu(F.conv2d(feature, weight, bias))),
        ),
    ),
    Mistake(
        "The result has the size of the coarser map, so that the finer one's detail is lost. It is the coarser map "
        "that changes its size.",
        (_at_coarse_size,),
    ),
)


def _case(
    what: str, feature: list[list[list[float]]], weight: list[list[float]], bias: list[float], above: list[list[float]]
) -> Case:
    """Return a case of one image: ``above`` has one channel, and so has the result."""
    return Case(
        what,
        {
            "feature": torch.tensor([feature]),
            "weight": torch.tensor(weight)[:, :, None, None],
            "bias": torch.tensor(bias),
            "above": torch.tensor([[above]]),
        },
    )


WORKED = (
    _case("four cells under one", [[[1.0, 2.0], [3.0, 4.0]]], [[10.0]], [0.0], [[100.0]]),
    _case("a lateral bias", [[[1.0, 2.0], [3.0, 4.0]]], [[10.0]], [-500.0], [[100.0]]),
    _case("two channels into one", [[[1.0, 2.0]] * 2, [[3.0, 5.0]] * 2], [[10.0, -1.0]], [0.0], [[100.0]]),
    _case("two values above", [[[1.0, 2.0, 3.0, 4.0]] * 2], [[10.0]], [0.0], [[100.0, 200.0]]),
    _case(
        "an odd number of columns, five under three",
        [[[1.0, 2.0, 3.0, 4.0, 5.0]] * 2],
        [[10.0]],
        [0.0],
        [[100.0, 200.0, 300.0]],
    ),
    _case("an odd number of rows", [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]], [[10.0]], [0.0], [[100.0], [-200.0]]),
)


def _random(generator: torch.Generator) -> list[Case]:
    """Return cases of several images and channels, with even and odd sides."""
    cases = []
    for height, width in ((4, 6), (6, 7), (7, 6), (7, 11)):
        arguments = {
            "feature": torch.randn(2, 3, height, width, generator=generator),
            "weight": torch.randn(4, 3, 1, 1, generator=generator),
            "bias": torch.randn(4, generator=generator),
            "above": torch.randn(2, 4, -(-height // 2), -(-width // 2), generator=generator),
        }
        cases.append(Case(f"random maps of {height} x {width} cells", arguments))
    return cases


MERGE_TOP_DOWN = Exercise(
    name="merge_top_down",
    reference=merge_top_down,
    start="Begin with the lateral map: a 1 x 1 convolution of feature, which gives it as many channels as above has.",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
)
