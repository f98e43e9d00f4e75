"""A real JupyterLab with a copy of the lessons, and a Chromium that looks at it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

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
        f"--ServerApp.root_dir={folder / 'notebooks'}",
    ]
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTER_PLATFORM_DIRS": "1"}
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
    """A notebook that is open in JupyterLab, and what the browser complained of meanwhile."""

    def __init__(self, page: Page, address: str, name: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{address}/lab/tree/{name}?reset")
        self.wait_until_idle()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def wait_until_idle(self) -> None:
        """Wait for a kernel that is there and has nothing to do."""
        kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        self.page.wait_for_function(f"{kernel} === 'idle'", timeout=180_000)

    def command(self, name: str, **options: str) -> None:
        """Run a command of JupyterLab's, as its menus do, and wait for it, but not for ever."""
        self.page.evaluate(
            """([name, options]) => Promise.race([
                window.jupyterapp.commands.execute(name, options),
                new Promise((_, reject) => setTimeout(() => reject(new Error(`${name} does not end`)), 180_000)),
            ])""",
            [name, options],
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
