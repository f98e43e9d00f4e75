"""The README's table of figures, made from data/results: ``python -m tests.benchmarks.readme`` writes it anew."""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
# What a reader decides by; the rest of the groups stand in data/results.
GROUPS = {
    "roi_align, forward": "RoIAlign, forward",
    "roi_align, forward and backward": "RoIAlign, forward and backward",
    "roi_pool, forward": "RoI Pooling, forward",
    "roi_pool, forward and backward": "RoI Pooling, forward and backward",
    "nms": "NMS, 100 to 10,000 boxes",
    "batched_nms": "NMS in groups, 300 to 8,800 boxes",
    "soft_nms, gaussian": "Soft-NMS, 100 to 3,000 boxes",
    "assign_anchors_to_gt": "assigning anchors to objects",
    "paste_masks": "pasting 100 masks",
    "crop_masks": "cropping 100 mask targets",
    "Mask R-CNN, inference": "Mask R-CNN R50-FPN, detecting",
    "Mask R-CNN, training step": "Mask R-CNN R50-FPN, a training step",
    "tiny Mask R-CNN, training step": "tiny Mask R-CNN, a training step",
}


def figures(results: Path) -> str:
    """Return the table, and on what it was measured."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("bench_*_cpu.json"))]
    rows: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for row in report["cases"]:
            rows.setdefault(row["group"], []).append(row)
    machines = {(report["cpu"], report["threads"], report["torch"], report["torchvision"]) for report in reports}
    lines = ["| | cases | times as fast: median (least to most) | peak memory, MB | theirs |", "|---|---|---|---|---|"]
    for group, name in GROUPS.items():
        if group in rows:
            lines.append(_line(name, rows[group], next(r for r in reports if group in r["median_ratios"])))
    measured = " and ".join(f"{cpu}, {n} threads, torch {t}, torchvision {v}" for cpu, n, t, v in sorted(machines))
    return "\n".join([*lines, "", f"Measured on {measured}, by `make bench`.", "", *_trained(results)]) + "\n"


def _trained(results: Path) -> list[str]:
    """Return what became of the two models that were trained alike."""
    report = json.loads((results / "training_against_torchvision.json").read_text(encoding="utf-8"))
    steps, batch_size = report["settings"]["steps"], report["settings"]["batch_size"]
    lines = [
        "| trained alike | box AP | mask AP | processor seconds a training step | detecting, ms an image |",
        "|---|---|---|---|---|",
    ]
    for name, model in report["trained"].items():
        box, mask = (100 * model[kind]["AP"] for kind in ("box", "mask"))
        step, detecting = model["training_seconds_per_step"], 1000 * model["detection_seconds_per_image"]
        lines.append(f"| {name} | {box:.1f} | {mask:.1f} | {step:.2f} | {detecting:.0f} |")
    return [
        *lines,
        "",
        "The tiny Mask R-CNN and torchvision's of the same architecture, trained from the same backbone on the same",
        f"scenes, {steps:,} steps of {batch_size}, with one seed and on one thread, by",
        "`python -m tests.benchmarks.training OUT`.",
    ]


def _line(name: str, rows: list[dict[str, Any]], report: dict[str, Any]) -> str:
    ratios = [row["ratio"] for row in rows]
    largest = max(rows, key=lambda row: float(row["contenders"]["ours"]["median_ms"]))
    memory = {name: figures["peak_memory_mb"] for name, figures in largest["contenders"].items()}
    ratio = f"{report['median_ratios'][rows[0]['group']]:.1f}"
    if len(rows) > 1:
        ratio += f" ({min(ratios):.1f} to {max(ratios):.1f})"
    return f"| {name} | {len(rows)} | {ratio} | {memory['ours']:.0f} | {memory[largest['rival']]:.0f} |"


def updated(readme: str, results: Path) -> str:
    """Return the README's text with the table as the results have it now."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + figures(results) + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8"), ROOT / "data" / "results"), encoding="utf-8")
