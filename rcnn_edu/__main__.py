"""The command line: ``python -m rcnn_edu COMMAND``; ``COMMAND --help`` shows examples."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from rcnn_edu.doctor import doctor

PRESETS = (
    "tiny_faster_rcnn",
    "tiny_mask_rcnn",
    "tiny_cascade_rcnn",
    "faster_rcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn",
    "cascade_rcnn_resnet50_fpn",
)
MODEL_HELP = "a checkpoint, or the name of a model that is ready made: tiny_mask_rcnn (default), tiny_cascade_rcnn, \
mask_rcnn_resnet50_fpn (downloads COCO's weights), faster_rcnn_resnet50_fpn"


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    lines = "\n".join(f"  python -m rcnn_edu {name} {example}".rstrip() for example in examples)
    return commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_data(command: argparse.ArgumentParser, scenes_seed: int) -> None:
    data = command.add_argument_group("data", "a COCO-format folder, or synthetic scenes")
    data.add_argument("--images", metavar="FOLDER", help="with the images that the annotations name")
    data.add_argument("--annotations", metavar="FILE", help="json in COCO's format")
    data.add_argument("--scenes", type=int, metavar="NUMBER", help="of synthetic scenes, in the place of a folder")
    data.add_argument("--scenes-seed", type=int, default=scenes_seed, metavar="SEED", help=f"(default: {scenes_seed})")


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", help="to compute on: cpu, cuda, mps (default: cuda where there is one, else cpu)")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = argparse.ArgumentParser(prog="python -m rcnn_edu", description="The course's command line.")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    doctors = "Check versions, device, widgets and files, and say what to do about problems."
    _command(commands, "doctor", f"{doctors} Exit status: 0 when all is well, 1 otherwise.", [""])

    train = _command(
        commands,
        "train",
        "Train a detector; called again, it goes on where it was. For several devices: torchrun --nproc-per-node 2 -m "
        "rcnn_edu train ...",
        [
            "out/scenes --scenes 4000 --steps 2000",
            "out/mine --images photos --annotations photos.json --steps 1000 --min-size 256",
            "out/mine --images photos --annotations photos.json --preset mask_rcnn_resnet50_fpn --weights COCO_V1",
        ],
    )
    train.add_argument("out", metavar="OUT", help="folder for the model, the log and what it takes to go on")
    _add_data(train, scenes_seed=0)
    train.add_argument("--preset", choices=PRESETS, default="tiny_mask_rcnn", help="(default: %(default)s)")
    train.add_argument("--masks", action="store_true", help="let a cascade draw masks too")
    train.add_argument("--weights", metavar="W", help="to begin with: COCO_V1, or a checkpoint with the same backbone")
    train.add_argument("--min-size", type=int, metavar="PX", help="shorter side that images are resized to")
    train.add_argument("--steps", type=int, default=1000, help="of the optimiser (default: %(default)s)")
    train.add_argument("--batch-size", type=int, default=8, help="images a step (default: %(default)s)")
    train.add_argument("--learning-rate", type=float, default=0.04, help="the highest one (default: %(default)s)")
    train.add_argument(
        "--scale-range",
        type=float,
        nargs=2,
        default=(0.8, 1.25),
        metavar=("MIN", "MAX"),
        help="factors on an image's scale (default: 0.8 1.25)",
    )
    train.add_argument("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    train.add_argument("--workers", type=int, default=0, help="processes that prepare images (default: %(default)s)")
    train.add_argument("--save-every", type=int, default=100, metavar="STEPS", help="(default: %(default)s)")
    _add_device(train)

    evaluate = _command(
        commands,
        "evaluate",
        "Print a model's average precision, by COCO's rules, and the kinds of its errors.",
        ["--scenes 200", "--model out/mine/model.safetensors --images photos --annotations photos.json --out ap.json"],
    )
    evaluate.add_argument("--model", default="tiny_mask_rcnn", help=MODEL_HELP)
    _add_data(evaluate, scenes_seed=1)
    evaluate.add_argument("--out", metavar="FILE", help="json file for all figures")
    evaluate.add_argument("--overwrite", action="store_true", help="replace the file if there is one")
    _add_device(evaluate)

    detect = _command(
        commands,
        "detect",
        "Find objects in images: write pictures with boxes and masks, and a json in COCO's format.",
        ["data/scenes --out out", "holiday.jpg --model mask_rcnn_resnet50_fpn --out out"],
    )
    detect.add_argument("images", nargs="+", metavar="IMAGE", help="images, or folders of images")
    detect.add_argument("--out", required=True, metavar="FOLDER", help="for the pictures and detections.json")
    detect.add_argument("--model", default="tiny_mask_rcnn", help=MODEL_HELP)
    detect.add_argument("--score-thresh", type=float, default=0.5, help="of what is drawn (default: %(default)s)")
    detect.add_argument(
        "--multi-scale", action="store_true", help="look at several scales, and mirrored: slower, better"
    )
    detect.add_argument("--overwrite", action="store_true", help="replace pictures that are there")
    _add_device(detect)

    experiment = _command(
        commands,
        "experiment",
        "Repeat a paper's table in miniature, or show its figures as they are stored.",
        ["soft_nms", "soft_nms --show", "multi_scale --seeds 1 --quick"],
    )
    experiment.add_argument("name", metavar="NAME", help="of the experiment; a wrong one lists them all")
    experiment.add_argument("--seeds", type=int, default=3, metavar="N", help="how many, from 0 on (default: 3)")
    experiment.add_argument("--show", action="store_true", help="measure nothing, show what is stored")
    experiment.add_argument("--quick", action="store_true", help="only see that it runs: small, and nothing is stored")
    _add_device(experiment)

    download = _command(
        commands, "download", "Fetch what the course does not bring.", ["nuclei --to nuclei", "mask_rcnn_resnet50_fpn"]
    )
    download.add_argument(
        "what",
        choices=["nuclei", "mask_rcnn_resnet50_fpn", "faster_rcnn_resnet50_fpn"],
        help="the nuclei, real images with masks (CC0); or the weights of a model trained on COCO",
    )
    download.add_argument("--to", default="nuclei", metavar="FOLDER", help="for the nuclei (default: %(default)s)")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name, those of the shell unless given, and return its exit status."""
    options = parser().parse_args(arguments)
    if options.command == "doctor":
        return doctor()
    commands = importlib.import_module("rcnn_edu.commands")  # not before: the doctor must work where torch does not
    try:
        if getattr(options, "device", "") is None:
            options.device = commands.default_device()
        getattr(commands, options.command)(options)
    except (ArithmeticError, OSError, TypeError, ValueError) as error:
        print(f"rcnn_edu {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"rcnn_edu {options.command}: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
