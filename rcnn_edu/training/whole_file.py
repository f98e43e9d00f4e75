"""Files of figures, written whole or not at all."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write ``content`` as json: an interruption, or a full disk, leaves what was there before."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
