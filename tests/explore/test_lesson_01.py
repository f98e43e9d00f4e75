import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rcnn_edu.explore import lesson_01
from rcnn_edu.explore.lesson_01 import SIZE, STRIDES, TENTHS, RoIState, pool_all, roi_explorer, roi_scene, sample_points
from rcnn_edu.explore.scene import Cells, Text
from rcnn_edu.ops import roi_align


@st.composite
def states(draw: st.DrawFn) -> RoIState:
    x = sorted(draw(st.lists(st.floats(0, SIZE[1] - 1), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.floats(0, SIZE[0] - 1), min_size=2, max_size=2)))
    return RoIState(
        roi=(x[0], y[0], x[1] + 1, y[1] + 1),  # what the canvas lets through: within the picture, at least 1 px wide
        picture=draw(st.sampled_from(["photograph", "ramp"])),
        stride=draw(st.sampled_from(STRIDES)),
        output_size=draw(st.sampled_from([2, 3, 4, 7, 14])),
        sampling_ratio=draw(st.sampled_from([0, 1, 2, 3, 4])),
        aligned=draw(st.booleans()),
        bin=draw(st.integers(0, 195)),
    )


@pytest.mark.parametrize(("stride", "rounded"), [(1, (12, 9, 45, 32)), (16, (1, 1, 3, 2)), (32, (0, 0, 1, 1))])
def test_the_box_of_the_first_question(stride: int, rounded: tuple[int, ...]) -> None:
    state = RoIState(roi=TENTHS, stride=stride)
    assert pool_all(state).rounded == rounded
    assert str(list(rounded)) in roi_scene(state).alt


def test_the_picture_says_how_far_the_corners_moved() -> None:
    panels = roi_scene(RoIState(roi=TENTHS, stride=16)).panels
    texts = [item.text for panel in panels for item in panel.items if isinstance(item, Text)]
    start = texts.index("error, px")
    assert texts[start + 1 : start + 5] == ["+3.6", "+7.3", "+2.8", "−0.1"]


def test_on_the_grid_nothing_is_rounded() -> None:
    alt = roi_scene(RoIState(roi=(160.0, 32.0, 352.0, 320.0), stride=32)).alt
    assert "off by [+0.0, +0.0, +0.0, +0.0] px" in alt


@given(states())
def test_every_state_that_can_be_dragged_to_has_a_picture(state: RoIState) -> None:
    scene = roi_scene(state)
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 120_000
    assert scene == roi_scene(state)


@given(states())
def test_the_weights_of_a_bin_inside_the_map_add_up_to_one(state: RoIState) -> None:
    weights = pool_all(replace(state, aligned=True)).weights
    assert weights.sum().item() == pytest.approx(1, abs=1e-4)
    assert (weights >= 0).all()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_samples_are_drawn_where_the_operator_reads(ratio: int, aligned: bool) -> None:
    state = RoIState(roi=(101.3, 60.9, 333.1, 300.2), stride=16, output_size=3, sampling_ratio=ratio, aligned=aligned)
    ramp = (torch.arange(32.0) + 0.5).expand(1, 1, 24, 32)  # each cell holds the x of its centre
    pooled = roi_align(ramp, torch.tensor([[0, *state.roi]]), 3, 1 / 16, ratio, aligned)[0, 0]
    assert torch.allclose(sample_points(state)[..., 0].mean(dim=2), pooled, atol=1e-4)
    down = roi_align(ramp[..., :24].mT, torch.tensor([[0, *state.roi]]), 3, 1 / 16, ratio, aligned)[0, 0]
    assert torch.allclose(sample_points(state)[..., 1].mean(dim=2), down, atol=1e-4)


def test_on_the_ramp_roi_align_is_the_exact_average() -> None:
    pooled = pool_all(RoIState(picture="ramp", stride=32))
    assert pooled.error(pooled.by_align) < 1e-4 < pooled.error(pooled.by_pool)
    assert pooled.error(pooled.exact) == 0


def test_error_is_the_root_of_the_mean_square() -> None:
    pooled = replace(pool_all(RoIState(output_size=2)), exact=torch.zeros(2, 2))
    assert pooled.error(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == 2.5


def test_the_mean_of_rounded_bins_by_hand() -> None:
    counting = torch.arange(36.0).view(1, 1, 6, 6)
    rois = torch.tensor([[0, 0.6, 1.2, 4.4, 4.8], [0, 40.0, 40.0, 50.0, 50.0]])
    first, outside = lesson_01.mean_of_bins(counting, rois, 2, 1.0)[:, 0]
    assert first.tolist() == [[13.5, 15.5], [25.5, 27.5]]  # rows 1-3 and 3-5, columns 1-2 and 3-4
    assert outside.tolist() == [[0, 0], [0, 0]]


def test_a_bin_beyond_the_last_is_the_last() -> None:
    assert lesson_01.chosen_bin(RoIState(output_size=2, bin=100)) == 3


def test_a_feature_is_the_mean_brightness_of_its_cell() -> None:
    photograph = torch.from_numpy(lesson_01.load_picture("photograph")).float()
    assert photograph.shape == (*SIZE, 3)
    features = lesson_01.feature_map("photograph", 32)
    assert features.shape == (1, 1, 12, 16)
    assert features[0, 0, 2, 3].item() == pytest.approx(photograph[64:96, 96:128].mean().item() / 255, abs=1e-5)


def test_explorer_controls_reach_the_picture() -> None:
    explorer = roi_explorer()
    picture, stride, output_size, chosen, samples, aligned, roi = explorer.children[0].children
    stride.value, samples.value, aligned.value, picture.value = 8, 0, False, "ramp"
    roi.value = (8.0, 16.0, 80.0, 90.0)
    output_size.value = 14
    assert chosen.max == 195
    chosen.value = 195
    output_size.value = 2  # fewer bins: the last of them is chosen
    assert explorer.state == RoIState((8.0, 16.0, 80.0, 90.0), "ramp", 8, 2, 0, False, 3)
    assert "stride 8" in explorer.canvas.scene["alt"]
    assert "ramp/8" in explorer.canvas.images


def test_explorer_presets_show_their_box() -> None:
    explorer = roi_explorer()
    buttons = {button.description: button for button in explorer.children[1].children}
    buttons["[12.4, 8.7, 45.2, 32.1]"].click()
    assert (explorer.state.roi, explorer.state.stride) == (TENTHS, 1)
    buttons["on the grid"].click()
    assert "off by [+0.0, +0.0, +0.0, +0.0] px" in explorer.canvas.scene["alt"]


def test_strides_scene_has_a_panel_for_each_stride_and_nothing_to_drag() -> None:
    scene = lesson_01.strides_scene((10.0, 10.0, 100.0, 100.0), (4, 32))
    assert [panel.title for panel in scene.panels] == ["stride 4", "stride 32", ""]
    assert not any(getattr(item, "handle", "") for panel in scene.panels for item in panel.items)


def test_gradients_scene_counts_the_cells() -> None:
    by_pool, by_align = torch.zeros(4, 4), torch.full((4, 4), 0.5)
    by_pool[1, 2], by_pool[1, 3] = 8, 0.001
    scene = lesson_01.gradients_scene((1.0, 1.0, 3.0, 3.0), 2, by_pool, by_align)
    assert "to 2 cells, RoIAlign to 16" in scene.alt
    cells = scene.panels[0].items[0]
    assert isinstance(cells, Cells)
    assert list(cells.texts[1]) == ["", "", "8.00", "<.01"]


def test_plots_carry_their_data_and_labels() -> None:
    shifts = torch.linspace(0, 1, 5)
    lines = {"RoI Pooling": shifts.round(), "RoIAlign": shifts}
    left, right = lesson_01.equivariance_figure(shifts, lines, shifts, lines).axes
    assert [line.get_label() for line in left.lines] == ["what it should do", "RoI Pooling", "RoIAlign"]
    assert np.array_equal(right.lines[1].get_ydata(), shifts)
    (axes,) = lesson_01.survivors_figure([16, 32], [4, 8, 16, 32], torch.rand(2, 4)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "32"]
    assert len(axes.lines) == 4
