"""The web page in Firefox, WebKitGTK (Safari's engine) and Chromium: the same numbers in each, to the last bit."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import browser as chromium
from helpers import webdriver
from helpers.pictures import READ, REFUSED
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, run
from s2mlp_deploy.data import images
from s2mlp_deploy.schema.manifest import Preprocessing

pytestmark = pytest.mark.npm("onnxruntime-web")


@contextmanager
def chromium_as_driver(_: Path) -> Iterator[webdriver.Driver]:
    with chromium.chromium(0) as browser:
        page = browser.blank(service_workers="allow").page

        def command(name: str, parameters: Mapping[str, Any]) -> Any:
            if name == "Navigate":
                return page.goto(parameters["url"])
            return page.evaluate(
                "({ script, args }) => new Promise((done) => new Function(script)(...args, done))", dict(parameters)
            )

        yield webdriver.Driver(command)


BROWSERS: dict[str, tuple[Callable[[Path], AbstractContextManager[webdriver.Driver]], Callable[[], str | None]]] = {
    "chromium": (chromium_as_driver, chromium.lacking),
    "firefox": (webdriver.firefox, webdriver.lacking_firefox),
    "webkit": (webdriver.webkit, webdriver.lacking_webkit),
}
"""By name, how a browser is started, and why it is not here."""

EACH = [pytest.param("chromium", marks=pytest.mark.thorough), "firefox", "webkit"]
"""All of test_web.py runs in Chromium, so that it is tried here with --thorough."""

CLASSES = {1: "Trouser", 7: "Sneaker", 8: "Bag"}
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)

USE_THE_PAGE = """async (pictures, encoded) => {
    const $ = (id) => document.getElementById(id);
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const base64 = (data) => btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""));
    const settled = async () => {
        while (!["ready", "off"].includes($("status").dataset.state)) await new Promise((next) => setTimeout(next, 10));
    };
    const after = async (action) => {
        $("status").dataset.state = "busy";
        action();
        await settled();
    };
    await settled();
    const report = { status: $("status").textContent, answers: [], logits: [], decoded: {} };
    for (const picture of pictures) {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes(picture)], "picture.png"));
        await after(() => document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true })));
        report.answers.push($("said").textContent);
    }
    await after(() => $("check").click());
    report.outcome = $("outcome").textContent;
    report.cases = Array.from($("cases").children, (row) => row.textContent);
    report.preparation = $("preparation").textContent;
    report.problem = $("problem").hidden ? null : $("problem").textContent;
    const { Engine } = await import("./engine.js");
    const engine = new Engine();
    await engine.call("open");
    await engine.call("load", { backend: "wasm", threads: 1 });
    for (const picture of pictures) {
        report.logits.push([...(await engine.call("classify", { file: new Blob([bytes(picture)]) })).logits]);
    }
    engine.stop();
    const { decodeFile } = await import("./decode.js");
    for (const [name, content] of Object.entries(encoded)) {
        try {
            const { width, height, channels, data } = await decodeFile(new Blob([bytes(content)]));
            report.decoded[name] = { shape: [height, width, channels], data: base64(data) };
        } catch (error) {
            report.decoded[name] = error.message;
        }
    }
    while (!$("facts").textContent.includes("kept on this device")) await new Promise((next) => setTimeout(next, 10));
    return report;
}"""


USE_IT_ONCE_MORE = """async () => {
    const $ = (id) => document.getElementById(id);
    const settled = async () => {
        while (!["ready", "off"].includes($("status").dataset.state)) await new Promise((next) => setTimeout(next, 10));
    };
    await settled();
    const status = $("status").textContent;
    $("status").dataset.state = "busy";
    $("check").click();
    await settled();
    return { status, outcome: $("outcome").textContent, preparation: $("preparation").textContent, isolated: crossOriginIsolated };
}"""


@dataclass(frozen=True)
class Report:
    """What the page did in a browser that was started once: with its server, and after that without."""

    found: dict[str, Any]
    offline: dict[str, Any]


def picture_of(label: int) -> Path:
    return sorted((TEST_IMAGES / str(label)).iterdir())[0]


@pytest.fixture(scope="module")
def reports(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """The report of a browser by its name, made when it is first wanted; skips where the browser is missing."""
    made: dict[str, Report] = {}
    assert run("export", PAPER_CHECKPOINT, "--data", TEST_IMAGES, "-o", served / "onnx").code == 0
    assert run("export", served / "onnx", "--format", "web", "-o", served / "site").code == 0
    pictures = [base64.b64encode(picture_of(label).read_bytes()).decode() for label in CLASSES]
    encoded = {**READ, **{name: content for name, (content, _) in REFUSED.items()}}
    given = [pictures, {name: base64.b64encode(content).decode() for name, content in encoded.items()}]

    def visit(driver: webdriver.Driver) -> Report:
        with chromium.serving(served) as port:
            driver.open(f"http://localhost:{port}/site/?threads=2")
            found = driver.run(USE_THE_PAGE, *given)
        driver.open(f"http://localhost:{port}/site/?threads=2")
        return Report(found, driver.run(USE_IT_ONCE_MORE))

    def report(name: str) -> Report:
        if lacking := BROWSERS[name][1]():
            pytest.skip(lacking)
        if name not in made:
            with BROWSERS[name][0](tmp_path_factory.mktemp(name)) as driver:
                made[name] = visit(driver)
        return made[name]

    return report


@pytest.mark.parametrize("name", EACH)
def test_the_page_classifies_checks_itself_and_prepares_pictures_exactly(
    reports: Callable[[str], Report], name: str
) -> None:
    found = reports(name).found
    assert found["status"].startswith("Ready: WebAssembly, ") and found["problem"] is None
    assert [answer.split(", ")[0] for answer in found["answers"]] == list(CLASSES.values())
    assert found["outcome"].startswith("Passed: ")
    assert len(found["cases"]) == 6 and all(row.endswith("✓ ok") for row in found["cases"])
    assert "8 golden images give exactly the tensors" in found["preparation"]


@pytest.mark.parametrize("name", EACH)
def test_pictures_are_read_as_pillow_reads_them(reports: Callable[[str], Report], name: str, tmp_path: Path) -> None:
    found = reports(name).found["decoded"]
    for kind, content in READ.items():
        assert not isinstance(found[kind], str), f"{kind}: {found[kind]}"
        (tmp_path / "picture").write_bytes(content)
        expected = np.asarray(images.read(tmp_path / "picture", PLAIN))
        decoded = np.frombuffer(base64.b64decode(found[kind]["data"]), np.uint8).reshape(found[kind]["shape"])
        colour = np.broadcast_to(decoded[:, :, :3], expected.shape).astype(int)
        assert np.abs(colour - expected).max() <= (2 if "jpeg" in kind else 0), kind  # decoders differ
    for kind, (_, reason) in REFUSED.items():
        assert isinstance(found[kind], str) and reason in found[kind], (kind, found[kind])


@pytest.mark.parametrize("name", EACH)
def test_the_page_works_without_its_server_once_it_was_there(reports: Callable[[str], Report], name: str) -> None:
    offline = reports(name).offline
    assert offline["status"].startswith("Ready: WebAssembly, ") and offline["isolated"]
    assert offline["outcome"].startswith("Passed: ")
    assert "8 golden images give exactly the tensors" in offline["preparation"]


@pytest.mark.parametrize("name", ["firefox", "webkit"])
def test_logits_and_distances_are_those_of_chromium(reports: Callable[[str], Report], name: str) -> None:
    expected, found = reports("chromium").found, reports(name).found
    assert found["logits"] == expected["logits"] and found["answers"] == expected["answers"]
    assert found["cases"] == expected["cases"]
