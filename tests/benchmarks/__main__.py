"""``python -m tests.benchmarks [SUBJECT ...]``: print the figures and write them to data/results.

``--quick`` only shows that everything runs: tiny shapes, two rounds, no memory, no file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from rcnn_edu.training.machine import describe_machine
from tests.benchmarks import assignment, masks, models, nms, roi, soft_nms
from tests.benchmarks.harness import ROOT, Case, measure, peak_memory, table

RESULTS = ROOT / "data" / "results"
SUBJECTS: dict[str, Callable[[bool], list[Case]]] = {
    "roi": roi.cases,
    "nms": nms.cases,
    "soft_nms": soft_nms.cases,
    "assignment": assignment.cases,
    "masks": masks.cases,
    "models": models.cases,
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure against torchvision.")
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; all of them unless told"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes, two rounds, no memory, no file: a smoke test"
    )
    parser.add_argument("--rounds", type=int, default=7, help="calls of each contender (default: 7)")
    parser.add_argument("--peak-memory", nargs=2, metavar=("CASE", "CONTENDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")

    for subject in options.subjects or SUBJECTS:
        cases = SUBJECTS[subject](options.quick)
        if options.peak_memory:  # the fresh process of one contender, started by the harness
            index, contender = options.peak_memory
            print(peak_memory(cases[int(index)], contender))
            continue
        rounds = 2 if options.quick else options.rounds
        figures = measure(subject, cases, rounds, with_memory=not options.quick)
        command = " ".join(["python -m tests.benchmarks", *arguments])
        report = {"command": command, **describe_machine(), **figures}
        print(table(report), end="\n\n")
        if not options.quick:
            path = RESULTS / f"bench_{subject}_cpu.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
