"""Finding a Chromium, bringing one, and saying loudly when there is none: on pretended machines."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.browser import chromium
from tests.browser.chromium import find_chromium, install_chromium, main

Machine = Callable[..., list[str]]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Pretend a machine: its programs' exit statuses, who runs, and which command brings Playwright's Chromium.

    Returns the list of the commands that were run, browsers' own aside.
    """
    downloaded = tmp_path / "playwright" / "chrome"
    downloaded.parent.mkdir()

    def pretend(programs: dict[str, int], root: bool = False, brings: str = "") -> list[str]:
        commands: list[str] = []

        def run(command: list[str], **_options: object) -> SimpleNamespace:
            line = " ".join(command)
            if line.endswith("--version"):
                status = 0 if command[0] == str(downloaded) else programs[Path(command[0]).name]
                return SimpleNamespace(returncode=status)
            commands.append(line)
            if brings and brings in line:
                downloaded.touch()
            return SimpleNamespace(returncode=0 if brings and brings in line else 100)

        for program in programs:
            (tmp_path / program).touch(mode=0o755)
        playwright = SimpleNamespace(chromium=SimpleNamespace(executable_path=str(downloaded)))
        monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / name) if name in programs else None)
        monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(chromium, "sync_playwright", lambda: nullcontext(playwright))
        monkeypatch.setattr(chromium, "MAC_APPS", ())
        return commands

    find_chromium.cache_clear()
    yield pretend
    find_chromium.cache_clear()


def test_the_first_that_starts_is_taken(machine: Machine, tmp_path: Path) -> None:
    machine({"chromium-browser": 1, "google-chrome": 0, "google-chrome-stable": 0})  # the first is Ubuntu's stub
    assert find_chromium() == str(tmp_path / "google-chrome")


def test_playwright_s_own_will_do(machine: Machine, tmp_path: Path) -> None:
    machine({})
    assert find_chromium() is None
    find_chromium.cache_clear()
    (tmp_path / "playwright" / "chrome").touch()
    assert find_chromium() == str(tmp_path / "playwright" / "chrome")


def test_on_debian_as_root_its_package_comes_first(machine: Machine) -> None:
    commands = machine({"apt-get": 0}, root=True, brings="apt-get install")
    assert install_chromium() == ""
    assert commands == ["apt-get update", "apt-get install -y --no-install-recommends chromium"]


def test_where_debian_s_package_is_none_playwright_is_asked(machine: Machine) -> None:
    commands = machine({"apt-get": 0}, root=True, brings="playwright install chromium --with-deps")
    assert install_chromium() == ""
    assert len(commands) == 3


def test_nobody_else_touches_the_system(machine: Machine) -> None:
    commands = machine({"apt-get": 0}, root=False)
    why = install_chromium()
    assert [command.split(" -m ")[1] for command in commands] == ["playwright install chromium"]
    assert "playwright install chromium` brought none that starts (exit status 100)" in why


def test_it_says_loudly_that_the_tests_are_skipped_and_why(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine({})
    monkeypatch.setattr("sys.argv", ["chromium", "--install"])
    main()
    shown = capsys.readouterr().out
    assert "!!  THE BROWSER TESTS ARE SKIPPED" in shown
    assert "exit status 100" in shown


def test_it_says_which_one_the_tests_use(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = machine({"chromium": 0})
    monkeypatch.setattr("sys.argv", ["chromium", "--install"])
    main()
    assert capsys.readouterr().out.startswith("The browser tests' Chromium: ")
    assert not commands
