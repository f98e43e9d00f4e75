"""A real JupyterLab with a copy of the lessons, and a Chromium that looks at it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, ConsoleMessage, Locator, expect, sync_playwright

from rcnn_edu.explore.scene import Scene
from tests.browser.chromium import find_chromium

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "tests" / "output"  # screenshots, for people to look at
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a stock JupyterLab that serves a copy of the notebooks; it asks nobody for news."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT / "data" / "pictures", folder / "data" / "pictures")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="),
        f"--ServerApp.root_dir={folder}",
    ]
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),  # two servers that write to one spoil its files
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        wait_for(address + "/api", server, folder / "server.log")
        yield address
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab does not answer; its log ends:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium: `make test` tries to bring one and says what to do")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def screenshots() -> Path:
    OUTPUT.mkdir(exist_ok=True)
    return OUTPUT


class Notebook:
    """A notebook that is open in JupyterLab, and what the browser complained of meanwhile.

    ``patience`` is how long it may take to run, in seconds.
    """

    def __init__(self, browser: Browser, address: str, name: str, patience: float = 600) -> None:
        self.patience = 1000 * patience
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{address}/lab/tree/notebooks/{name}?reset")
        self.wait_until_idle()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def wait_until_idle(self) -> None:
        """Wait for a kernel that is there and has nothing to do."""
        kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        self.page.wait_for_function(f"{kernel} === 'idle'", timeout=self.patience)

    def command(self, name: str, **options: str) -> None:
        """Run a command of JupyterLab's, as its menus do, and wait for it, but not for ever."""
        self.page.evaluate(
            """([name, options, patience]) => Promise.race([
                window.jupyterapp.commands.execute(name, options),
                new Promise((_, reject) => setTimeout(() => reject(new Error(`${name} does not end`)), patience)),
            ])""",
            [name, options, self.patience],
        )

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        self.wait_until_idle()

    def scroll_to(self, source: str) -> None:
        """Bring the code cell that contains ``source`` into sight: JupyterLab draws only what is near the window."""
        self.page.evaluate(
            """(source) => {
                const { content } = window.jupyterapp.shell.currentWidget;
                const place = content.widgets.findIndex(
                    ({ model }) => model.type === "code" && model.sharedModel.getSource().includes(source)
                );
                if (place < 0) throw new Error(`no code cell contains ${source}`);
                content.activeCellIndex = place;
                content.scrollToItem(place, "start"); // its promise may stay open where nothing has to move
            }""",
            source,
        )

    def ask(self, code: str) -> str:
        """Return what the code prints in the notebook's own kernel."""
        printed: str = self.page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const request = kernel.requestExecute({ code, store_history: false });
                let text = "";
                request.onIOPub = ({ header, content }) => {
                    if (header.msg_type === "stream") text += content.text;
                    if (header.msg_type === "error") text += content.evalue;
                };
                await request.done;
                return text;
            }""",
            code,
        )
        return printed.strip()

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the notebook's kernel: numbers, texts, and lists of them."""
        return json.loads(self.ask(f"import json; print(json.dumps({expression}))"))

    def explorer(self, source: str, scene: Scene, panel: int = 0) -> "Picture":
        """Return the explorer that the cell with ``source`` shows, in sight.

        ``scene`` is laid out as its picture is; x and y are those of its panel number ``panel``.
        """
        self.scroll_to(source)
        canvas = self.page.locator(".jp-CodeCell", has_text=source).locator("canvas[data-seq]")
        canvas.wait_for(timeout=60_000)
        canvas.scroll_into_view_if_needed()
        return Picture(canvas, scene, panel)

    def slide(self, label: str, *keys: str, handle: int = 0) -> None:
        """Press keys on a slider's handle."""
        knob = self.page.locator(".widget-slider", has_text=label).locator(".noUi-handle").nth(handle)
        knob.focus()
        for key in keys:
            knob.press(key)

    def check_that_nothing_complains(self) -> None:
        assert self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        assert self.page.get_by_text("Traceback").count() == 0
        assert self.page.get_by_text("Error displaying widget").count() == 0
        assert self.complaints == []

    def themes(self) -> Iterator[tuple[int, str]]:
        """Yield after switching to each theme: its number among a colour's shades, and its name for a file."""
        for number, name in ((0, "light"), (1, "dark"), (0, "light")):
            theme = f"JupyterLab {name.title()}"
            self.command("apputils:change-theme", theme=theme)
            self.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
            self.page.wait_for_timeout(500)
            yield number, name


class Picture:
    """An explorer's canvas; x and y are in the units of one of its panels."""

    def __init__(self, canvas: Locator, scene: Scene, panel: int) -> None:
        self.canvas, self.page = canvas, canvas.page
        self.width, self.panel = scene.width, scene.panels[panel]

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return where (x, y) lies in the whole picture, as canvas.js maps it."""
        left, top, width, height = self.panel.place
        x1, y1, x2, y2 = self.panel.view
        scale = min(width / (x2 - x1), height / (y2 - y1))
        return (
            left + (width - scale * (x2 - x1)) / 2 + scale * (x - x1),
            top + (height - scale * (y2 - y1)) / 2 + scale * (y - y1),
        )

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """Return where (x, y) lies in the window."""
        box = self.canvas.bounding_box()
        assert box is not None
        scale = box["width"] / self.width
        right, down = self._pixel(x, y)
        return box["x"] + scale * right, box["y"] + scale * down

    def says(self, text: str) -> None:
        """Wait until the picture's text contains this."""
        expect(self.canvas).to_have_attribute("aria-label", re.compile(re.escape(text)), timeout=30_000)

    def said(self) -> str:
        """Return the picture's text."""
        return self.canvas.get_attribute("aria-label") or ""

    def drag(self, start: Sequence[float], end: Sequence[float], steps: int = 5) -> list[float]:
        """Drag with the mouse and return the round trip of each step in ms."""
        mouse = self.page.mouse
        mouse.move(*self.spot(*start))
        mouse.down()
        times = []
        for step in range(1, steps + 1):
            before = self.canvas.get_attribute("data-seq") or ""
            mouse.move(*self.spot(*(a + step / steps * (b - a) for a, b in zip(start, end, strict=True))))
            expect(self.canvas).not_to_have_attribute("data-seq", before, timeout=30_000)
            times.append(float(self.canvas.get_attribute("data-round-trip") or "nan"))
        mouse.up()
        return times

    def touch(self, start: Sequence[float], shift: tuple[float, float]) -> None:
        """Drag with a finger, by a shift in pixels of the window."""
        session = self.page.context.new_cdp_session(self.page)
        x, y = self.spot(*start)
        for kind, share in (("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0)):
            point = {"x": x + share * shift[0], "y": y + share * shift[1]}
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def press(self, *keys: str) -> None:
        """Press keys on the canvas. None may reach JupyterLab, where ``b`` would insert a cell."""
        cells = self.page.locator(".jp-Cell").count()
        self.canvas.focus()
        for key in (*keys, "b"):
            self.canvas.press(key)
        assert self.page.locator(".jp-Cell").count() == cells

    def shows(self, x: float, y: float, color: str) -> bool:
        """Whether the canvas shows the colour at (x, y), soft edges allowed for."""
        rgb: list[int] = self.canvas.evaluate(
            """(canvas, [x, y, width]) => {
                const at = [x, y].map((value) => Math.floor((value * canvas.width) / width));
                return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
            }""",
            [*self._pixel(x, y), self.width],
        )
        return all(abs(seen - int(color[1 + 2 * i : 3 + 2 * i], 16)) <= 40 for i, seen in enumerate(rgb))


@pytest.fixture(scope="module")
def lesson(request: pytest.FixtureRequest, browser: Browser, lab: str) -> Iterator[Notebook]:
    """The lesson that the module names as ``LESSON``, run from top to bottom once."""
    notebook = Notebook(browser, lab, request.module.LESSON)
    notebook.run_all()
    yield notebook
    notebook.page.close()


def check_static_pictures(browser: Browser, folder: Path, lesson: str, sources: Sequence[str]) -> None:
    """Check that the committed lesson, read without a kernel, shows each explorer's picture."""
    html, _ = HTMLExporter(require_js_url="", mathjax_url="").from_filename(str(ROOT / "notebooks" / lesson))
    (folder / "lesson.html").write_text(html)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto((folder / "lesson.html").as_uri())
    for source in sources:
        picture = page.locator(".jp-Cell", has_text=source).locator("img")
        assert picture.evaluate("image => image.naturalWidth") == 1920
    assert page.locator("canvas").count() == 0
    page.close()
