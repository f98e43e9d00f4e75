"""Which Chromium the browser tests drive, and how to get one: ``python -m tests.browser.chromium [--install]``."""

import argparse
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPS = tuple(f"/Applications/{app}.app/Contents/MacOS/{app}" for app in ("Chromium", "Google Chrome"))
SKIPPED = """
!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
!!  THE BROWSER TESTS ARE SKIPPED: nobody has tried the explorers in a real JupyterLab.
!!  Why: {why}
!!  What to do: install Chromium or Google Chrome (Debian, as root: apt-get install chromium),
!!  or `python -m playwright install --with-deps chromium` in the environment, and run this again.
!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"""


@cache
def find_chromium() -> str | None:
    """Return the path of the first Chromium that starts (the system's, else Playwright's own), or None."""
    for path in (*map(shutil.which, NAMES), *MAC_APPS):
        if path and _starts(path):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if _starts(path) else None


def _starts(path: str) -> bool:
    """Return whether the browser tells its version: a stub of Ubuntu's, or one that lacks a library, does not."""
    if not Path(path).exists():
        return False
    return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0


def install_chromium() -> str:
    """Try what may bring a Chromium to this machine, and return why each attempt failed, empty after a success."""
    on_debian_as_root = shutil.which("apt-get") is not None and os.geteuid() == 0
    playwright = [sys.executable, "-m", "playwright", "install", "chromium"]
    attempts = [[playwright]]
    if on_debian_as_root:
        attempts = [
            [["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]],
            [[*playwright, "--with-deps"]],
        ]
    failures = []
    for attempt in attempts:
        for command in attempt:
            print("No Chromium yet; trying:", *command, flush=True)
            status = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}).returncode
        find_chromium.cache_clear()
        if find_chromium():
            return ""
        failures.append(f"`{' '.join(command)}` brought none that starts (exit status {status})")
    return "; ".join(failures)


def main() -> None:
    """Say which Chromium the browser tests use, or loudly that they are skipped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--install", action="store_true", help="where there is none, try to install it first")
    why = "no Chromium was found; if installing it was tried, the output above tells how that failed"
    if parser.parse_args().install and not find_chromium():
        why = install_chromium()
    print(f"The browser tests' Chromium: {find_chromium()}" if find_chromium() else SKIPPED.format(why=why), flush=True)


if __name__ == "__main__":
    main()
