"""`make lab`, as a student types it, ends with the home notebook in JupyterLab."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from jupyterlab_pages import FOLDERS, free_port, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(tmp_path):
    """The address of what `make lab` serves; settings are of its own, and no window opens."""
    if shutil.which("make") is None or not (ROOT / ".venv/ready").exists():
        pytest.skip("make lab needs make, and the environment in .venv")
    port = free_port()
    own = {f"JUPYTER{kind}_DIR": str(tmp_path / kind) for kind in FOLDERS}
    quiet = {"BROWSER": "true", "JUPYTER_PORT": str(port), "JUPYTER_TOKEN": "secret"}
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen(
            ["make", "lab"],
            cwd=ROOT,
            env={**os.environ, **own, **quiet},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}", server, tmp_path / "server.log", path="/api?token=secret")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_the_home_notebook_opens_and_its_lessons_are_there(served, browser, artefacts):
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(90_000)
    page.goto(f"{served}/lab/tree/index.ipynb?token=secret&reset")
    page.get_by_role("heading", level=1).first.wait_for()
    page.screenshot(path=str(artefacts / "home.png"))
    page.get_by_role("link", name="02 Change of variables").click()
    page.get_by_role("heading", name="Change of variables", level=1).wait_for()
    page.close()
