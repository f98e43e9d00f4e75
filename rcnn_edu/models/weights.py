"""Checkpoints: torchvision's, renamed and folded into our layers, and our own, which are safetensors."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rcnn_edu.models.rcnn import FasterRCNN

StateDict = Mapping[str, Tensor]

# Where torchvision keeps what; (\.0)? and mask_fcn stand for the layout of the files it publishes.
RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^backbone\.body\.conv1\.", "backbone.body.stem.0."),
    (r"^backbone\.body\.layer([1-4])\.", lambda match: f"backbone.body.stages.{int(match[1]) - 1}."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)(\.0)?\.", r"backbone.fpn.laterals.\1."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)(\.0)?\.", r"backbone.fpn.outputs.\1."),
    (r"^rpn\.head\.conv(\.0\.0)?\.", "rpn.conv."),
    (r"^rpn\.head\.cls_logits\.", "rpn.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "box_head.fc2."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box_head.class_logits."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box_head.deltas."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda match: f"mask_head.network.{2 * int(match[1])}."),
    (r"^roi_heads\.mask_head\.mask_fcn(\d)\.", lambda match: f"mask_head.network.{2 * int(match[1]) - 2}."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "mask_head.network.8."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask_head.network.10."),
]
# Layers whose rows are classes, with torchvision's rows for background that ours do without.
BACKGROUND_ROWS = {"box_head.class_logits.": 0, "box_head.deltas.": 4, "mask_head.network.10.": 1}


def load_torchvision_state_dict(
    model: nn.Module, state_dict: StateDict, *, batch_norm_eps: float = 1e-5, new_classes: bool = False
) -> None:
    """Load, in place, the weights of torchvision's ``fasterrcnn_resnet50_fpn`` or ``maskrcnn_resnet50_fpn``.

    Its ``num_classes`` counts background, ours does not: 91 there are 90 here. Label k is class k in both.

    Args:
        model: ours, of the same kind: such as ``mask_rcnn_resnet50_fpn(num_classes=90)``.
        state_dict: as torchvision's model returns it, or as its published files hold it.
        batch_norm_eps: of the batch norms, which a state dict does not tell: 1e-5 in a model that was built, 0 in the
            published COCO_V1 weights.
        new_classes: leave the layers that know about classes as they are, for training on others.

    Raises:
        ValueError: for a state dict of another model; it says what is missing, unknown or of another shape.
    """
    ours = model.state_dict()
    renamed = {}
    for name, tensor in _fold_batch_norms(state_dict, batch_norm_eps).items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if name == "box_head.fc1.weight":  # there channels come before bins
            tensor = tensor.view(len(tensor), -1, 7, 7).permute(0, 2, 3, 1).flatten(1)
        for layer, background in BACKGROUND_ROWS.items():
            if name.startswith(layer):
                tensor = ours.get(name, tensor) if new_classes else tensor[background:]
        renamed[name] = tensor
    _load(model, renamed, "the state dict", "it must come from torchvision's model of the same kind, and not from a v2")


def _fold_batch_norms(state_dict: StateDict, eps: float) -> dict[str, Tensor]:
    """Return the state dict with each batch norm as the scale and shift of the convolution before it."""
    folded = dict(state_dict)
    for norm in [name.removesuffix("running_var") for name in state_dict if name.endswith("running_var")]:
        weight, bias, mean, var = (
            folded.pop(norm + part) for part in ("weight", "bias", "running_mean", "running_var")
        )
        folded.pop(norm + "num_batches_tracked", None)
        conv = norm.replace(".bn", ".conv").replace("downsample.1.", "downsample.0.")
        folded[conv + "scale"] = weight * (var + eps).rsqrt()
        folded[conv + "shift"] = bias - mean * folded[conv + "scale"]
    return folded


def _load(model: nn.Module, state_dict: StateDict, source: str, advice: str) -> None:
    """Load all of ``state_dict`` into all of ``model``, or nothing and say what does not fit."""
    ours = model.state_dict()
    problems = [f"{name} is missing" for name in ours.keys() - state_dict.keys()]
    problems += [f"{name} is unknown" for name in state_dict.keys() - ours.keys()]
    problems += [
        f"{name} has shape {tuple(tensor.shape)} for {tuple(ours[name].shape)}"
        for name, tensor in state_dict.items()
        if name in ours and tensor.shape != ours[name].shape
    ]
    if problems:
        listed = "; ".join(sorted(problems)[:3])
        raise ValueError(f"{source} does not fit {type(model).__name__}, {len(problems)} problems: {listed}; {advice}")
    model.load_state_dict(state_dict)


def fetch_coco_weights(name: str) -> StateDict:
    """Return the COCO_V1 state dict of torchvision's model ``name``, downloaded once and verified by its hash.

    Load it with ``batch_norm_eps=0``, as it was trained.

    Raises:
        ConnectionError: if the file is neither there yet nor to be had; it says where to put it by hand.
    """
    weights = torchvision.models.get_model_weights(name)["COCO_V1"]
    try:
        state_dict: StateDict = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # urllib's errors are OSErrors
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ConnectionError(
            f"cannot download {weights.url} ({error}); connect to the internet, or put the file into {folder} by hand, "
            "or go on without it: weights=None, or a tiny preset, whose weights come with the course"
        ) from error
    return state_dict


def save_checkpoint(
    model: FasterRCNN, path: str | os.PathLike[str], *, preset: str, categories: Sequence[str], **options: Any
) -> None:
    """Write the model's weights, and how to build it again, into a safetensors file: all of it or nothing.

    Args:
        model: a detector.
        path: of the file, by custom ``*.safetensors``.
        preset: the name of the builder in ``presets`` that made the model.
        categories: the names of its classes, that of label 1 first.
        options: the builder's other arguments, such as ``mask=True``.

    Raises:
        ValueError: if the names are not as many as the model's classes.
    """
    if len(categories) != model.num_classes:
        raise ValueError(f"categories must name the model's {model.num_classes} classes, got {list(categories)}")
    sizes = {"min_size": model.transform.min_size, "max_size": model.transform.max_size}
    card = {"preset": preset, "categories": list(categories), "options": options, "sizes": sizes}
    write_tensors(path, model.state_dict(), card)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors and its card: ``preset``, ``categories``, ``options``, ``sizes``.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_tensors`, or for a file that is no checkpoint.
    """
    tensors, card = read_tensors(path)
    if "preset" not in card:
        raise ValueError(f"{path} does not say how to build its model; write checkpoints with save_checkpoint")
    return tensors, card


def write_tensors(path: str | os.PathLike[str], tensors: StateDict, card: Mapping[str, Any]) -> None:
    """Write named tensors, and a card that says what they are, into a safetensors file: all of it or nothing."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"rcnn_edu": json.dumps({**card, "sha256": _digest(tensors)})}
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        partial.replace(path)
    except SafetensorError as error:  # a full disk is one of these too
        raise OSError(
            f"cannot write {path} ({error}); is there space left? what was there before is as it was"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the card of a file by :func:`write_tensors`. Nothing in it is executed.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is no safetensors, not by :func:`write_tensors`, cut short or changed since.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); if it was copied, copy it again; a .pt or .pth file is "
            "a pickle, which could run anything: it is not opened"
        ) from error
    if "rcnn_edu" not in metadata:
        raise ValueError(f"{path} does not say how to build its model; write checkpoints with save_checkpoint")
    card = json.loads(metadata["rcnn_edu"])
    if card.pop("sha256") != _digest(tensors):
        raise ValueError(f"{path} is damaged: its weights are not those that were saved; copy or download it again")
    return tensors, card


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, new_heads: bool = False) -> dict[str, Any]:
    """Load, in place, the weights of a checkpoint into a model of the same kind, and return the checkpoint's card.

    Args:
        model: of the checkpoint's preset.
        path: of the checkpoint.
        new_heads: leave the layers whose shape depends on the classes as they are, for training on others, and a head
            of another kind too: so a cascade can begin with a Mask R-CNN's backbone, RPN and mask head.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_checkpoint`, or for a model of another kind.
    """
    tensors, card = read_checkpoint(path)
    if new_heads:
        state = model.state_dict()
        for head in ("box_head.", "mask_head."):
            ours, theirs = ({name for name in names if name.startswith(head)} for names in (state, tensors))
            if ours != theirs:
                tensors = {name: values for name, values in tensors.items() if name not in theirs}
                tensors.update({name: state[name] for name in ours})
        for name, values in state.items():
            if name in tensors and values.shape[1:] == tensors[name].shape[1:] and len(values) != len(tensors[name]):
                tensors[name] = values  # rows are classes
    advice = f"it is of {card['preset']} with {len(card['categories'])} classes; see load_model"
    _load(model, tensors, str(path), advice)
    return card


def _digest(tensors: StateDict) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
