"""A JupyterLab server in a temporary folder, and pages of it in the system's Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"
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

    def page(self, name: str, dark: bool = False, width: int = 1200, height: int = 1000):
        """The notebook on a page of its own, all cells run."""
        page = self._browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=2)
        page.set_default_timeout(60_000)
        page.goto(f"{self.url}/doc/workspaces/{name.removesuffix('.ipynb')}/tree/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        self._theme(page, dark)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        return page

    @staticmethod
    def _theme(page, dark: bool) -> None:
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        page.get_by_role("menuitem", name="Settings", exact=True).click()
        page.get_by_text("Theme", exact=True).hover()
        page.get_by_text(theme, exact=True).click()
        page.wait_for_selector(f"body[data-jp-theme-light='{str(not dark).lower()}']", state="attached")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(url: str, server: subprocess.Popen, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with exit status {server.returncode}")
        try:
            urllib.request.urlopen(f"{url}/api/status", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not answer within {seconds:.0f} s")


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: install the package chromium")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """JupyterLab on a free port, with settings of its own: the reader's are neither used nor changed."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    url = f"http://127.0.0.1:{(port := _free_port())}"
    own = {f"JUPYTER{kind}_DIR": str(home / kind) for kind in FOLDERS}
    silent = Path(
        own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    )
    silent.parent.mkdir(parents=True)
    silent.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
        f"--port={port}", "--port-retries=0", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=", "--ServerApp.password=",
    ]  # fmt: skip
    with open(home / "server.log", "w") as log:
        server = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_for(url, server)
        yield Lab(folder, url, browser)
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(scope="session")
def artefacts():
    """Where screenshots go."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS
