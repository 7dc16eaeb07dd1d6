"""The web page without a network: what its service worker keeps, when it lets go of it, and what makes the page an app."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from helpers import browser as browsers
from helpers.browser import Browser, Visit
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_exporters.web.exporter import PAGE

pytestmark = [
    pytest.mark.skipif(browsers.lacking() is not None, reason=browsers.lacking() or ""),
    pytest.mark.npm("onnxruntime-web"),
]

KEPT = "#facts :text('kept on this device')"


@pytest.fixture(scope="module")
def made(served: Path) -> Path:
    """``first`` and ``second``: sites of two models, with the same page."""
    for name, width in (("first", 8), ("second", 12)):
        checkpoint = save_checkpoint(served / f"{name}.pt", small_spec(channels=width))
        assert run("export", checkpoint, "-o", served / f"{name}-onnx").code == 0
        assert run("export", served / f"{name}-onnx", "--format", "web", "-o", served / name).code == 0
    return served


@pytest.fixture
def site(made: Path) -> Path:
    """A copy of ``first``, to be changed."""
    shutil.rmtree(made / "site", ignore_errors=True)
    return Path(shutil.copytree(made / "first", made / "site"))


@pytest.fixture
def visit(browser: Browser, site: Path) -> Visit:
    """The page, after it was kept."""
    visit = browser.look("site/?threads=1", service_workers="allow")
    visit.page.wait_for_selector(KEPT)
    return visit


def again(visit: Visit) -> None:
    """Open the page once more."""
    visit.page.reload()
    visit.settle()


def stored(visit: Visit) -> list[str]:
    """The names that the page has in the browser's storage."""
    script = """async () => {
        const found = [];
        for (const name of await caches.keys()) {
            for (const { url } of await (await caches.open(name)).keys()) found.push(url.split("/").at(-1));
        }
        return found.sort();
    }"""
    return list(visit.page.evaluate(script))


def test_what_is_kept_is_what_the_page_loads_under_its_hash(visit: Visit, site: Path) -> None:
    files = json.loads((site / "manifest.json").read_text())["files"]
    assert stored(visit) == sorted(["manifest.json", *{f"sha256-{h}" for n, h in files.items() if n != "serve.py"}])
    size = sum((site / name).stat().st_size for name in files if name != "serve.py")
    assert f"{size / 1e6:.1f} MB are kept on this device" in visit.page.inner_text("#facts")


def test_another_visit_loads_the_manifest_alone(visit: Visit, site: Path) -> None:
    for name in ("model.onnx", "app.js", "ort-wasm-simd-threaded.wasm"):
        (site / name).unlink()
    again(visit)
    assert visit.problem is None and "Ready" in visit.page.inner_text("#status")


def test_a_new_model_is_loaded_on_the_next_visit_and_kept_in_turn(visit: Visit, site: Path, made: Path) -> None:
    shutil.copytree(made / "second", site, dirs_exist_ok=True)
    again(visit)
    assert visit.problem is None
    visit.page.wait_for_selector(KEPT)
    visit.page.context.set_offline(True)
    again(visit)
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ")
    files = json.loads((made / "second" / "manifest.json").read_text())["files"]
    assert stored(visit) == sorted(["manifest.json", *{f"sha256-{h}" for n, h in files.items() if n != "serve.py"}])


def test_files_that_are_not_those_exported_are_not_kept(browser: Browser, site: Path) -> None:
    with (site / "view.js").open("a") as file:
        file.write("\n")
    visit = browser.look("site/?threads=1", service_workers="allow")
    worker = "navigator.serviceWorker.ready.then(() => true)"
    assert visit.problem is None and visit.page.evaluate(worker)
    again(visit)
    assert "manifest.json" not in stored(visit) and not visit.page.locator(KEPT).count()


def test_where_another_site_has_moved_in_the_page_lets_go(visit: Visit, site: Path) -> None:
    shutil.rmtree(site)
    site.mkdir()
    (site / "index.html").write_text("<title>another</title>")
    visit.page.reload()
    assert visit.page.title() == "another"
    gone = """async () => {
        while ((await navigator.serviceWorker.getRegistrations()).length) await new Promise((next) => setTimeout(next, 10));
    }"""
    visit.page.evaluate(gone)
    assert stored(visit) == []


def test_browsers_offer_to_install_the_page(visit: Visit) -> None:
    session = visit.page.context.new_cdp_session(visit.page)
    errors = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {error["errorId"] for error in errors} <= {"in-incognito"}  # as all pages of the tests are
    found = session.send("Page.getAppManifest")
    assert found["errors"] == [] and found["url"].endswith("/site/app.webmanifest")
    for icon in json.loads((PAGE / "app.webmanifest").read_text())["icons"]:
        assert (PAGE / icon["src"]).is_file()
    with Image.open(PAGE / "icon-512.png") as image:
        assert image.size == (512, 512)
