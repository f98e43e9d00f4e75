"""The training loop: what it learns, that it goes on exactly, alone and in company, and what it refuses."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rcnn_edu.datasets import SceneSettings, SyntheticScenes
from rcnn_edu.models import FasterRCNN, tiny_faster_rcnn
from rcnn_edu.models.weights import read_tensors
from rcnn_edu.training.log import read_log
from rcnn_edu.training.train import LOG, STATE, TrainSettings, train
from tests.training.worker import SCENES, small_model

SETTINGS = TrainSettings(steps=6, batch_size=2, learning_rate=0.02, warmup_steps=2)


@pytest.fixture(autouse=True)
def one_thread() -> object:
    """Run on one thread: images of 64 px give two nothing to do, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Callable[[dict[str, object]], None]:
    def on_log(record: dict[str, object]) -> None:
        if record["step"] == step:
            raise StoppedError

    return on_log


def test_the_rate_rises_and_falls() -> None:
    settings = TrainSettings(steps=100, learning_rate=1.0, warmup_steps=9)
    rates = [settings.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] or max(rates) == rates[8]
    assert rates[50] == pytest.approx(0.5, abs=0.01)
    assert 0 < rates[99] < 0.001
    steps = replace(settings, schedule="steps")
    assert [steps.learning_rate_at(step) for step in (20, 70, 95)] == pytest.approx([1, 0.1, 0.01])


def test_losses_fall_and_the_log_tells(tmp_path: Path) -> None:
    records: list[dict[str, object]] = []
    settings = TrainSettings(steps=30, batch_size=2, learning_rate=0.02, warmup_steps=5)
    train(small_model(), SCENES, tmp_path, settings, log_every=5, on_log=records.append)
    assert [record["step"] for record in records] == [5, 10, 15, 20, 25, 30]
    assert read_log(tmp_path / LOG) == records
    losses = [float(str(record["loss"])) for record in records]
    assert losses[-1] < 0.7 * losses[0]
    for record in records:
        parts = [float(str(value)) for name, value in record.items() if name.startswith("loss_")]
        assert sum(parts) == pytest.approx(record["loss"])


def test_the_same_run_twice_gives_the_same_weights_another_seed_others(tmp_path: Path) -> None:
    models = [small_model() for _ in range(3)]
    for model, folder, seed in zip(models, "abc", (0, 0, 1), strict=True):
        train(model, SCENES, tmp_path / folder, replace(SETTINGS, seed=seed))
    assert_equal(weights(models[0]), weights(models[1]))
    assert any(
        not torch.equal(a, b) for a, b in zip(weights(models[0]).values(), weights(models[2]).values(), strict=True)
    )


def test_an_interrupted_run_goes_on_exactly(tmp_path: Path) -> None:
    whole, broken, other = small_model(), small_model(), small_model(seed=5)
    train(whole, SCENES, tmp_path / "whole", SETTINGS, log_every=1)
    with pytest.raises(StoppedError):  # at step 5; what was last saved is step 4
        train(broken, SCENES, tmp_path / "broken", SETTINGS, save_every=2, log_every=1, on_log=stop_at(5))
    train(other, SCENES, tmp_path / "broken", SETTINGS, log_every=1)  # what the model was at first does not matter now
    assert_equal(weights(other), weights(whole))
    lines = [read_log(tmp_path / run / LOG) for run in ("whole", "broken")]
    assert [record["step"] for record in lines[1]] == [1, 2, 3, 4, 5, 6]
    assert [record["loss"] for record in lines[0]] == [record["loss"] for record in lines[1]]


def test_a_finished_run_only_gives_its_result(tmp_path: Path) -> None:
    first, second = small_model(), small_model(seed=5)
    train(first, SCENES, tmp_path, SETTINGS)
    state = (tmp_path / STATE).read_bytes()
    train(second, SCENES, tmp_path, SETTINGS)
    assert_equal(weights(first), weights(second))
    assert (tmp_path / STATE).read_bytes() == state


def test_without_an_average_the_result_is_the_last_step_s(tmp_path: Path) -> None:
    model = small_model()
    train(model, SCENES, tmp_path, replace(SETTINGS, ema_decay=0))
    tensors, _ = read_tensors(tmp_path / STATE)
    assert_equal(weights(model), {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})


def test_images_may_be_prepared_by_other_processes(tmp_path: Path) -> None:
    here, there = small_model(), small_model()
    settings = replace(SETTINGS, steps=2)
    train(here, SCENES, tmp_path / "here", settings)
    train(there, SCENES, tmp_path / "there", settings, workers=1)
    assert_equal(weights(here), weights(there))


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_like_one_that_never_was(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.worker", "40"]

    def run(folder: str, patience: float | None) -> int:
        """Return the exit status; the process is killed so many seconds after its first step."""
        with subprocess.Popen([*command, str(tmp_path / folder)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if patience is not None and process.stdout.readline():
                time.sleep(patience)
                process.send_signal(signal.SIGKILL)
            process.communicate()
        return process.returncode

    assert run("whole", None) == 0
    moments = random.Random(0)
    ends = [run("killed", moments.uniform(0, 0.15)) for _ in range(10)]
    assert ends.count(-signal.SIGKILL) >= 8  # the others had come to the end before
    assert run("killed", None) == 0
    whole, killed = (read_tensors(tmp_path / folder / "result.safetensors")[0] for folder in ("whole", "killed"))
    assert_equal(whole, killed)


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_the_whole_batch(tmp_path: Path) -> None:
    run = ["-m", "tests.training.worker", "8"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *run, str(tmp_path / "one")], check=True, env=environment, capture_output=True)
    subprocess.run(
        [*launch, sys.executable, *run, str(tmp_path / "two")], check=True, env=environment, capture_output=True
    )
    one, two = (read_log(tmp_path / run / LOG) for run in ("one", "two"))
    assert len(one) == len(two) == 8
    # At first the weights are the same, and each image has nearly as many anchors that count: two means of nearly
    # equally many are nearly the mean of all.
    for name in ("loss_objectness", "loss_rpn_box_reg"):
        assert two[0][name] == pytest.approx(one[0][name], rel=0.005)
    # The halves of a batch have unequally many positive RoIs, and the mean of two means is not the mean of all: that
    # is how far two processes may be from one.
    assert [record["loss"] for record in two] == pytest.approx([record["loss"] for record in one], rel=0.05)
    weights_one, weights_two = (read_tensors(tmp_path / run / "result.safetensors")[0] for run in ("one", "two"))
    for name, value in weights_one.items():
        torch.testing.assert_close(weights_two[name], value, rtol=0, atol=5e-3)


def test_other_settings_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    train(small_model(), SCENES, tmp_path, SETTINGS)
    state = (tmp_path / STATE).read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(learning_rate 0.02 -> 0.01\); train into another folder"):
        train(small_model(), SCENES, tmp_path, replace(SETTINGS, learning_rate=0.01))
    assert (tmp_path / STATE).read_bytes() == state


def test_another_kind_of_model_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    train(small_model(), SCENES, tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="of another kind of model"):
        train(tiny_faster_rcnn(2), SCENES, tmp_path, SETTINGS)


def test_a_damaged_state_is_not_gone_on_with(tmp_path: Path) -> None:
    train(small_model(), SCENES, tmp_path, SETTINGS)
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{STATE} is not a whole safetensors file"):
        train(small_model(), SCENES, tmp_path, SETTINGS)


def test_a_half_written_state_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / f"{STATE}.partial").write_bytes(b"half of a file")
    model, other = small_model(), small_model()
    train(model, SCENES, tmp_path, SETTINGS)
    train(other, SCENES, tmp_path / "other", SETTINGS)
    assert_equal(weights(model), weights(other))


def test_a_cut_line_of_the_log_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / LOG
    path.write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n" + '{"step": 2, "lo', encoding="utf-8")
    assert read_log(path) == [{"step": 1, "loss": 2.0}]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.state_dict()["box_head.fc1.weight"].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0: try a lower learning rate"):
        train(model, SCENES, tmp_path, SETTINGS)
    assert not (tmp_path / STATE).exists()


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the dataset is empty"):
        train(small_model(), SyntheticScenes(0), tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps and batch_size must be at least 1, got 0 and 8"),
        ({"batch_size": 0}, "steps and batch_size must be at least 1, got 5 and 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"ema_decay": 1.0}, "ema_decay from 0 to below 1"),
        ({"schedule": "exponential"}, "schedule must be 'cosine' or 'steps', got 'exponential'"),
        ({"scale_range": (2.0, 1.0)}, "scale_range must be the smallest and the largest factor"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_settings_under_which_nothing_is_learnt_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**{"steps": 5, **wrong})  # type: ignore[arg-type]


def test_images_without_any_object_can_be_learnt_from(tmp_path: Path) -> None:
    empty = SyntheticScenes(4, settings=SceneSettings(size=(64, 64), num_objects=(0, 0)))
    model: FasterRCNN = small_model()
    train(model, empty, tmp_path, replace(SETTINGS, steps=2))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
