"""The comparison of mask networks: a row tells how many parameters its network has."""

import re

import pytest

from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.training.experiments.mask_head import NETWORKS, PAPER


@pytest.mark.parametrize("row", NETWORKS)
def test_a_row_says_how_many_parameters_there_are(row: str) -> None:
    network = NETWORKS[row](SCENES_CLASSES, TINY.channels)
    count = sum(parameter.numel() for parameter in network.parameters())
    match = re.fullmatch(r".*, ([\d.]+) million", row)
    assert match
    decimals = len(match[1].partition(".")[2])
    assert f"{count / 1e6:.{decimals}f}" == match[1]


def test_the_paper_s_rows_are_ours() -> None:
    assert PAPER.keys() <= NETWORKS.keys()
