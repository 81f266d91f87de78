"""JupyterLab for browser tests: one server and one browser a session."""

import shutil
from pathlib import Path

import pytest
from jupyterlab_pages import CHROMIUM, chromium, jupyterlab

ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"


def pytest_configure(config):
    """One worker runs the browser; its mark must be known where pytest-xdist is switched off, too."""
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs")


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium, as Playwright drives it."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: install the package chromium")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """A `jupyterlab_pages.Lab`."""
    with jupyterlab(browser, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def artefacts():
    """The folder of screenshots."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS


@pytest.fixture
def opened(lab, artefacts):
    """Opens a copy of a notebook under a name of its own; its last state is kept as a picture."""
    from lesson_pages import LessonPage

    pages = {}

    def open_copy(path, name):
        shutil.copy(path, lab.folder / f"{name}.ipynb")
        pages[name] = lab.open(f"{name}.ipynb")
        return LessonPage(pages[name], path)

    yield open_copy
    for name, page in pages.items():
        page.screenshot(path=artefacts / f"{name}-end.png")
        page.close()
