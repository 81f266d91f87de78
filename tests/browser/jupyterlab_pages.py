"""JupyterLab in a folder of its own, and pages of it in the system's Chromium; for tests and benchmarks."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",  # containers and root
]
FOLDERS = ("_CONFIG", "_DATA", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")


class Lab:
    """A running JupyterLab: write notebooks into its folder, open them as pages."""

    def __init__(self, folder: Path, url: str, browser):
        self.folder, self.url, self._browser = folder, url, browser

    def write(self, name: str, *cells: str) -> None:
        """A notebook of code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)

    def open(self, name: str, width: int = 1200, height: int = 1000, **context):
        """The notebook on a page of its own, its kernel ready. Keywords go to Playwright's new_page."""
        page = self._browser.new_page(
            viewport={"width": width, "height": height}, **{"device_scale_factor": 2, **context}
        )
        page.set_default_timeout(60_000)
        page.goto(f"{self.url}/doc/workspaces/{name.removesuffix('.ipynb')}/tree/{name}?reset")
        # The notebook's own indicator says idle also while there is no kernel yet. Narrow pages hide both.
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(state="attached")
        return page

    def page(self, name: str, dark: bool = False, **options):
        """The notebook, opened in JupyterLab's light or dark theme, all cells told to run."""
        page = self.open(name, **options)
        set_theme(page, dark)
        choose(page, "Run", "Run All Cells")
        return page


def choose(page, menu: str, *path: str) -> None:
    """Picks an entry of JupyterLab's menus."""
    page.get_by_role("menuitem", name=menu, exact=True).click()
    for entry in path[:-1]:
        page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).hover()
    page.locator(".lm-Menu-itemLabel").get_by_text(path[-1], exact=True).click()


def set_theme(page, dark: bool) -> None:
    """JupyterLab's light or dark theme, and waits until it is on."""
    choose(page, "Settings", "Theme", "JupyterLab Dark" if dark else "JupyterLab Light")
    light = str(not dark).lower()
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")


@contextmanager
def chromium():
    """The system's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def jupyterlab(browser, home: Path, folder: Path | None = None):
    """JupyterLab on a free port, with settings of its own: the reader's are neither used nor changed.

    It is started in `folder`, by default a new one.
    """
    folder = folder or home / "notebooks"
    folder.mkdir(exist_ok=True)
    own = {f"JUPYTER{kind}_DIR": str(home / kind) for kind in FOLDERS}
    silent = home / "LAB_SETTINGS" / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    silent.parent.mkdir(parents=True)
    silent.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
        f"--port={port}", "--port-retries=0", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=", "--ServerApp.password=",
    ]  # fmt: skip
    with open(home / "server.log", "w") as log:
        server = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(url, server, home / "server.log")
        yield Lab(folder, url, browser)
    finally:
        server.terminate()
        server.wait(timeout=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(
    url: str, server: subprocess.Popen, log: Path, seconds: float = 90, path: str = "/api/status"
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with exit status {server.returncode}:\n{log.read_text()}")
        try:
            urllib.request.urlopen(f"{url}{path}", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not answer within {seconds:.0f} s:\n{log.read_text()}")
