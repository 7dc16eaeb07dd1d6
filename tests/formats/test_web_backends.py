"""WebGPU in the web page: used where its answers are right, else WebAssembly runs and the page says why; and how loading is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import browser as browsers
from helpers.browser import WEBGPU_FLAGS, Browser, Visit, chromium, serving
from helpers.support import run, save_checkpoint, small_spec

pytestmark = [
    pytest.mark.skipif(browsers.lacking() is not None, reason=browsers.lacking() or ""),
    pytest.mark.npm("onnxruntime-web"),
]

AUTOMATIC = "gpu/?threads=1"


@pytest.fixture(scope="module")
def sites(served: Path) -> Path:
    """``onnx`` and ``int8`` of a small checkpoint, ``site`` without what WebGPU needs and ``gpu`` with it."""
    checkpoint = save_checkpoint(served / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", served / "onnx").code == 0
    assert run("export", served / "onnx", "--format", "web", "-o", served / "site").code == 0
    assert run("export", served / "onnx", "--format", "web", "--webgpu", "-o", served / "gpu").code == 0
    return served


@pytest.fixture(scope="module")
def one_browser(served: Path) -> Iterator[Browser]:
    """A Chromium with WebGPU on its processor-only adapter."""
    with serving(served) as port, chromium(port, *WEBGPU_FLAGS) as browser:
        yield browser


def with_module(browser: Browser, address: str, name: str, change: Callable[[str], str]) -> Visit:
    """Open the page with one of its modules changed on the way."""
    visit = browser.blank()

    def answer(route: Any) -> None:
        found = route.fetch()
        changed = change(found.text())
        assert changed != found.text()
        route.fulfill(response=found, body=changed)

    visit.page.context.route(f"**/{name}", answer)
    visit.page.goto(f"http://localhost:{browser.port}/{address}")
    visit.settle()
    return visit


def note(visit: Visit) -> str:
    return str(visit.page.inner_text("#backend-note")) if visit.page.is_visible("#backend-note") else ""


@pytest.fixture
def adapter(browser: Browser, sites: Path) -> None:
    visit = browser.blank()
    visit.page.goto(f"http://localhost:{browser.port}/site/manifest.json")
    if not visit.page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this Chromium has no WebGPU on the processor")


@pytest.mark.usefixtures("adapter")
def test_webgpu_is_used_after_its_own_golden_check_and_gives_the_right_answers(browser: Browser, sites: Path) -> None:
    visit = browser.look(AUTOMATIC)
    assert visit.page.inner_text("#status") == "Ready: WebGPU" and note(visit) == ""
    loaded = {url.split("/")[-1] for url in visit.requests}
    assert "ort-wasm-simd-threaded.jspi.wasm" in loaded and "ort-wasm-simd-threaded.wasm" not in loaded
    assert "golden.safetensors" in loaded
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ") and visit.errors == []


@pytest.mark.usefixtures("adapter")
def test_where_webgpu_is_wrong_webassembly_runs_and_the_page_says_why(browser: Browser, sites: Path) -> None:
    def wrong(text: str) -> str:
        return (
            text.replace(
                "return results[output.name].data;",
                'return results[output.name].data.map((x) => (this.provider === "webgpu" ? x * 1.01 : x));',
            )
            .replace("this.#session = session;", "this.#session = session; this.provider = provider;")
            .replace("constructor(ort, session,", "constructor(provider, ort, session,")
            .replace("new Model(ort, session,", "new Model(provider, ort, session,")
        )

    visit = with_module(browser, AUTOMATIC, "model.js", wrong)
    assert visit.page.inner_text("#status") == "Ready: WebAssembly, 1 thread"
    assert "WebGPU is not used: its answers are off in this browser, by 1.0e-2 on the golden inputs" in note(visit)
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ")


REASONS = {
    "delete Navigator.prototype.gpu": "this browser has none",
    "Navigator.prototype.__defineGetter__('gpu', () => ({ requestAdapter: async () => null }))": "no graphics processor",
    "delete WebAssembly.Suspending": "lacks JavaScript Promise Integration",
}


@pytest.mark.parametrize("script", REASONS, ids=["none", "no adapter", "no JSPI"])
def test_where_webgpu_cannot_be_used_webassembly_runs_and_the_page_says_why(
    browser: Browser, sites: Path, script: str
) -> None:
    in_worker = script.replace("Navigator", "WorkerNavigator")
    visit = with_module(browser, AUTOMATIC, "worker.js", lambda text: f"{in_worker};\n{text}")
    assert visit.page.inner_text("#status") == "Ready: WebAssembly, 1 thread" and visit.problem is None
    assert note(visit).startswith("WebAssembly, since WebGPU is not used: ") and REASONS[script] in note(visit)
    assert visit.page.locator("#backend [value=webgpu]").is_disabled()


def test_a_bundle_whose_answers_cannot_be_checked_does_not_run_on_webgpu(browser: Browser, sites: Path) -> None:
    assert run("export", sites / "small.pt", "--no-gate", "-o", sites / "unjudged").code == 0
    visit = browser.look(f"{AUTOMATIC}&bundle=../unjudged")
    assert "Ready: WebAssembly" in visit.page.inner_text("#status") and "unjudged holds no golden tensors" in note(
        visit
    )


def test_a_site_ships_what_it_uses_alone(sites: Path) -> None:
    files = {name: json.loads((sites / name / "manifest.json").read_text())["files"].keys() for name in ("site", "gpu")}
    wasm = {name for name in files["site"] if name.endswith(".wasm")}
    assert wasm == {"ort-wasm-simd-threaded.wasm"}
    assert files["gpu"] - files["site"] == {
        "ort.jspi.min.mjs",
        "ort-wasm-simd-threaded.jspi.mjs",
        "ort-wasm-simd-threaded.jspi.wasm",
    }


def test_loading_is_shown_in_bytes(browser: Browser, sites: Path) -> None:
    visit = with_module(
        browser,
        "site/?threads=1",
        "engine.js",
        lambda text: text.replace(
            "onProgress?.(progress);", "(globalThis.told ??= []).push(progress); onProgress?.(progress);"
        ),
    )
    told = visit.page.evaluate("told")
    size = sum((sites / "site" / name).stat().st_size for name in ("model.onnx", "ort-wasm-simd-threaded.wasm"))
    assert told[-1] == {"loaded": size, "total": size} and len(told) > 1
    assert [entry["loaded"] for entry in told] == sorted(entry["loaded"] for entry in told)
    assert not visit.page.is_visible("#loading")
    shown = visit.page.evaluate("document.querySelector('#bytes').textContent")
    assert shown == f"{size / 1e6:.1f} of {size / 1e6:.1f} MB of model and runtime"
