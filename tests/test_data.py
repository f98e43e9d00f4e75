"""The files that ship with the course are what their page says, and as small."""

from pathlib import Path

import pytest
import torch

from rcnn_edu.datasets import CocoDataset, SyntheticScenes

DATA = Path(__file__).parents[1] / "data"
SCENES = CocoDataset(DATA / "scenes", DATA / "scenes" / "annotations.json")
FETCHED = DATA / "nuclei"  # by whoever wants them; not shipped


def test_data_are_small() -> None:
    shipped = [path for path in DATA.rglob("*") if path.is_file() and FETCHED not in path.parents]
    sizes = {path: path.stat().st_size / 2**20 for path in shipped}
    assert sum(sizes.values()) < 60
    assert len(list((DATA / "scenes").glob("*.png"))) <= 24
    assert all(size < 12 for path, size in sizes.items() if path.suffix == ".safetensors")


def test_every_folder_is_on_the_page() -> None:
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for folder in DATA.iterdir():
        if folder.is_dir() and folder != FETCHED:
            assert f"`{folder.name}/`" in page


@pytest.mark.parametrize("index", range(0, 24, 5))
def test_the_sample_scenes_are_drawn_by_the_code_that_is_here(index: int) -> None:
    """Nearly: other versions of numpy or Pillow may round a pixel otherwise."""
    (image, target), (drawn, expected) = SCENES[index], SyntheticScenes(24, seed=2)[index]
    assert (image - drawn).abs().mean() < 0.01
    assert torch.equal(target["labels"], expected["labels"])
    assert (target["boxes"] - expected["boxes"]).abs().max() <= 1
    assert (target["masks"] != expected["masks"]).float().mean() < 0.001


def test_the_sample_scenes_show_every_class() -> None:
    assert SCENES.categories == SyntheticScenes.categories
    seen = torch.cat([SCENES[index][1]["labels"] for index in range(len(SCENES))])
    assert set(seen.tolist()) == {1, 2, 3, 4}
