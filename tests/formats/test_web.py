"""The web page in a real browser: what it says of pictures, what it refuses, and that it fetches nothing from elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import browser as browsers
from helpers import npm
from helpers.browser import INSECURE, Browser, Visit, serving
from helpers.pictures import READ, REFUSED, pixels
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, random_model, run, save_checkpoint, small_spec
from s2mlp_deploy.data import images
from s2mlp_deploy.families.s2mlp.spec import single_stage
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_exporters.web import exporter

pytestmark = [
    pytest.mark.skipif(browsers.lacking() is not None, reason=browsers.lacking() or ""),
    pytest.mark.npm("onnxruntime-web"),
]

SIZE = (20, 28)
ONE = "site/?threads=1"
"""The page as most tests see it: a second thread costs more than it brings to models so small, on a busy machine much more."""
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
"""Pixels as they are, 0 to 255."""


@pytest.fixture(scope="module")
def sites(served: Path) -> Path:
    """Where bundles lie: ``site``, ``int8`` and ``ort`` of the bundled checkpoint and more, for the tests to add to."""
    onnx, int8 = served / "onnx", served / "int8"
    assert run("export", PAPER_CHECKPOINT, "--data", TEST_IMAGES, "-o", onnx).code == 0
    calibrated = ("--precision", "int8", "--data", TEST_IMAGES, "--calibration", TEST_IMAGES)
    assert run("export", PAPER_CHECKPOINT, *calibrated, "-o", int8).code == 0
    assert run("export", onnx, "--format", "web", "-o", served / "site").code == 0
    return served


@pytest.fixture(scope="module")
def odd(served: Path) -> Path:
    """A checkpoint for images of 20x28, and pictures of many shapes."""
    pictures = served / "pictures"
    pictures.mkdir()
    for i, (height, width) in enumerate([(20, 28), (41, 57), (300, 90), (33, 200), (7, 5)]):
        Image.fromarray(pixels(height, width)).save(pictures / f"{i}.png")
    save_checkpoint(served / "small.pt", small_spec())
    return served


@pytest.fixture
def visit(browser: Browser, sites: Path) -> Visit:
    return browser.look(ONE)


def picture_of(label: int) -> Path:
    return sorted((TEST_IMAGES / str(label)).iterdir())[0]


# Answers


def test_pictures_get_their_classes_and_the_page_says_how_long_it_took(visit: Visit) -> None:
    expected = {1: "Trouser", 7: "Sneaker", 8: "Bag"}
    for label, name in expected.items():
        visit.show(picture_of(label))
        assert visit.problem is None and visit.answer.startswith(f"{name}, ")
        shown = visit.page.locator("#classes li").all_inner_texts()
        assert len(shown) == 5 and shown[0].startswith(name)
        shares = [float(text.split()[-2]) for text in shown]
        assert shares == sorted(shares, reverse=True) and 50 < shares[0] <= 100
    assert "median of" in visit.page.inner_text("#latency") and visit.page.inner_text("#first").endswith(" ms")
    assert visit.errors == []


def test_once_a_picture_is_there_the_page_offers_to_choose_another(visit: Visit) -> None:
    assert visit.page.inner_text("#choose") == "Choose a picture"
    visit.show(picture_of(1))
    for label, name in {7: "Sneaker", 8: "Bag"}.items():
        assert visit.page.is_visible("#preview") and visit.page.is_visible("#choose")
        assert visit.page.inner_text("#choose") == "Choose another picture"
        with visit.page.expect_file_chooser() as chooser:
            visit.page.click("#choose")
        visit.after(lambda chooser=chooser, label=label: chooser.value.set_files(picture_of(label)))  # type: ignore[misc]
        assert visit.answer.startswith(f"{name}, ")


def test_the_page_says_what_runs_and_how_pictures_are_prepared(visit: Visit) -> None:
    assert visit.page.inner_text("#status") == "Ready: WebAssembly, 1 thread"
    facts = visit.page.inner_text("#facts")
    assert "site" in facts and "10 classes" in facts and "ONNX Runtime Web 1." in facts
    steps = visit.page.inner_text("#steps")
    assert "bicubic" in steps and "28 × 28" in steps and "minus 0.286" in steps


@pytest.mark.parametrize("query", ["?threads=2", "?bundle=../int8", "?bundle=../onnx&threads=1"])
def test_this_browser_computes_what_the_bundle_says(browser: Browser, sites: Path, query: str) -> None:
    visit = browser.look(f"site/{query}")
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ")
    manifest = json.loads((sites / ("int8" if "int8" in query else "onnx") / "manifest.json").read_text())
    rows = visit.page.locator("#cases tr").all_inner_texts()
    assert len(rows) == (1 if "int8" in query else 6)
    assert all(
        "ok" in row and f"{manifest['tolerance']['relative_l2']:.0e}".replace("e-0", "e-") in row for row in rows
    )
    assert "8 golden images give exactly the tensors" in visit.page.inner_text("#preparation")
    assert visit.errors == []


def test_a_model_of_one_logit_names_one_of_its_two_classes(browser: Browser, odd: Path, sites: Path) -> None:
    model = random_model(small_spec(classes=1))
    files = sorted((odd / "pictures").iterdir())
    contract = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    logits = reference_logits.run(model, images.load(files, contract, SIZE))[:, 0]
    middle = float(np.median(logits)) - 1e-3
    model.head.fc.bias.sub_(middle)
    options = {"img_size": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3, "class_names": ["no", "yes"]}
    torch.save({"model": model.state_dict(), **options}, sites / "one.pt")
    assert run("export", sites / "one.pt", "-o", sites / "one").code == 0
    visit = browser.look("site/?bundle=../one&threads=1")
    assert "1 logit for 2 classes" in visit.page.inner_text("#facts")
    for file, logit in zip(files, logits - middle, strict=True):
        visit.show(file)
        share = 100 / (1 + np.exp(-abs(logit)))
        name, shown = visit.answer.split(", ")
        assert name == ("yes" if logit > 0 else "no") and float(shown.split()[0]) == pytest.approx(share, abs=0.06)
    assert {logit > middle for logit in logits} == {True, False}
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ")
    assert visit.errors == []


def test_numbers_that_are_off_are_told(browser: Browser, sites: Path) -> None:
    shutil.copytree(sites / "onnx", sites / "strict")
    manifest = json.loads((sites / "strict" / "manifest.json").read_text())
    manifest["tolerance"]["relative_l2"] = 1e-9
    manifest["preprocessing"]["mean"][1] += 0.02
    (sites / "strict" / "manifest.json").write_text(json.dumps(manifest))
    visit = browser.look(f"{ONE}&bundle=../strict")
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Failed: ")
    assert all("off" in row for row in visit.page.locator("#cases tr").all_inner_texts())
    assert "up to 5.1 levels of 255 off: this page's preparation is not the model's" in visit.page.inner_text(
        "#preparation"
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--resize", "squash", "--interpolation", "lanczos"),
        ("--resize", "shorter-then-crop", "--crop-fraction", 0.875, "--interpolation", "bilinear"),
        ("--batch", 3),
    ],
    ids=lambda options: str(options[1]),
)
def test_other_preparations_and_fixed_batches_are_the_same_here(
    browser: Browser,
    sites: Path,
    odd: Path,
    options: tuple[object, ...],
) -> None:
    bundle = odd / f"odd-{options[1]}"
    assert run("export", odd / "small.pt", "--golden-images", odd / "pictures", *options, "-o", bundle).code == 0
    visit = browser.look(f"{ONE}&bundle=../{bundle.name}")
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ")
    assert "5 golden images give exactly the tensors" in visit.page.inner_text("#preparation")
    visit.show(odd / "pictures" / "2.png")
    assert visit.answer.startswith("class ") and visit.errors == []


def test_a_bundle_is_opened_from_a_folder_and_by_dropping_its_files(browser: Browser, sites: Path) -> None:
    visit = browser.look(ONE)
    visit.open_folder(sites / "int8")
    assert "int8" in visit.page.inner_text("#facts")
    visit.show(picture_of(7))
    assert visit.answer.startswith("Sneaker, ")
    drop(visit, *(f"../onnx/{file.name}" for file in (sites / "onnx").iterdir()))
    assert "fp32" in visit.page.inner_text("#facts")
    shutil.copy(picture_of(8), sites / "bag.png")
    drop(visit, "../bag.png")
    assert visit.answer.startswith("Bag, ") and visit.problem is None and visit.errors == []


def drop(visit: Visit, *addresses: str) -> None:
    """Drop files on the page, which lie on its server."""
    script = """async (addresses) => {
        const dataTransfer = new DataTransfer();
        for (const address of addresses) {
            const content = await (await fetch(address)).blob();
            dataTransfer.items.add(new File([content], address.split("/").at(-1)));
        }
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }"""
    visit.after(lambda: visit.page.evaluate(script, addresses))


def test_what_onnxruntime_optimized_runs_too(browser: Browser, sites: Path) -> None:
    assert run("export", sites / "onnx", "--format", "ort", "-o", sites / "ort").code == 0
    visit = browser.look(f"{ONE}&bundle=../ort")
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed: ")


def test_the_camera_gives_a_picture(visit: Visit) -> None:
    visit.after(lambda: visit.page.click("#camera-button"))
    assert visit.page.is_visible("#video") and visit.page.get_attribute("#camera-button", "aria-expanded") == "true"
    visit.after(lambda: visit.page.click("#take"))
    assert visit.problem is None and "%" in visit.answer
    assert not visit.page.is_visible("#video") and visit.page.is_visible("#preview")
    assert visit.errors == []


# Where the page is served from


def test_everything_comes_from_the_page_s_own_server(browser: Browser, visit: Visit) -> None:
    visit.show(picture_of(7))
    visit.check()
    assert len(visit.requests) > 20
    own = f"http://localhost:{browser.port}/site/"
    assert [url for url in visit.requests if not url.startswith((own, f"blob:http://localhost:{browser.port}/"))] == []
    refused = visit.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'allowed', () => 'refused')")
    assert refused == "refused" and any("Content Security Policy" in error for error in visit.errors)


def test_workers_reach_the_page_s_own_server_alone(visit: Visit, sites: Path) -> None:
    (sites / "probe.js").write_text(
        "addEventListener('securitypolicyviolation', (event) => postMessage(event.effectiveDirective));"
        "fetch('http://127.0.0.1:9/').then(() => postMessage('allowed'), () => {});"
    )
    script = "() => new Promise((done) => { new Worker('../probe.js').onmessage = ({ data }) => done(data); })"
    assert visit.page.evaluate(script) == "connect-src"
    assert f'content="{browsers.serve_py().POLICY}"' in (sites / "site" / "index.html").read_text()


def test_without_isolation_it_takes_one_thread_and_says_so(browser: Browser, sites: Path) -> None:
    with serving(sites, headers={}) as port:
        visit = browser.look("site/?threads=2", port=port)
        assert "1 thread" in visit.page.inner_text("#status") and "One thread only" in visit.page.inner_text(
            "#threads-note"
        )
        visit.show(picture_of(7))
        assert visit.answer.startswith("Sneaker, ") and visit.errors == []
        browsers_own = browser.look("site/")
        assert not browsers_own.page.is_visible("#threads-note")


def test_an_address_that_browsers_do_not_trust_is_explained(browser: Browser, sites: Path) -> None:
    visit = browser.look("site/", host=INSECURE)
    assert visit.problem and "Open it over https, or on this machine as http://localhost" in visit.problem


def test_a_backend_that_is_not_in_the_page_is_refused_not_replaced(browser: Browser, sites: Path) -> None:
    visit = browser.look("site/?backend=webgpu")
    assert visit.problem == "WebGPU is not used: this page was exported without --webgpu. Choose WebAssembly."
    assert visit.page.inner_text("#status") == "No model"
    option = visit.page.locator("#backend [value=webgpu]")
    assert option.is_disabled() and option.inner_text() == "WebGPU (not in this page)"
    visit.after(lambda: visit.page.select_option("#backend", "wasm"))
    assert visit.problem is None and "Ready: WebAssembly" in visit.page.inner_text("#status")


# Bundles that are not run


def change_model(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)


def edit(**values: Any) -> Callable[[Path], None]:
    """A change of the manifest's fields; dots lead into it."""

    def change(bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        for path, value in values.items():
            *places, last = path.split("__")
            target = manifest
            for place in places:
                target = target[place]
            target[last] = value
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return change


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed model": (change_model, "model.onnx is not the file that was exported (its SHA-256 differs"),
    "no manifest": (
        lambda b: (b / "manifest.json").unlink(),
        "has no manifest.json. Expected a folder as s2mlp-export",
    ),
    "no model": (lambda b: (b / "model.onnx").unlink(), "model.onnx is missing: copy the whole bundle again"),
    "no json": (lambda b: (b / "manifest.json").write_text("{"), "is not valid JSON"),
    "another json": (lambda b: (b / "manifest.json").write_text("[]"), "has schema version none"),
    "another schema": (edit(schema_version=2), "has schema version 2, and this page reads 1"),
    "a path": (edit(files={"../site/model.onnx": "0" * 64}), "lists files in a way that is not known"),
    "an engine": (edit(format="trt"), "a bundle of format “trt”, which a browser cannot run"),
    "bfloat16": (edit(precision="bf16"), "holds bf16 numbers"),
    "float16 input": (edit(input__dtype="float16"), "takes float16 input"),
    "other preparation": (
        edit(preprocessing__resize="longest"),
        "prepared with resize “longest”, which this page cannot",
    ),
    "other interface": (
        edit(interface={"input": "image", "output": "logits"}),
        "takes image and gives logits: this page feeds float and reads logits",
    ),
    "five channels": (edit(spec__in_channels=5), "does not fit the model's channels"),
    "few labels": (edit(labels=["one"]), "has not one label for each class"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bundle_that_is_not_whole_or_not_for_browsers_is_refused(browser: Browser, sites: Path, case: str) -> None:
    change, message = BROKEN[case]
    bundle = sites / f"broken-{case.replace(' ', '-')}"
    shutil.copytree(sites / "onnx", bundle)
    change(bundle)
    visit = browser.look(f"{ONE}&bundle=../{bundle.name}")
    assert visit.problem and message in visit.problem, visit.problem
    assert visit.page.inner_text("#status") == "No model"
    assert visit.page.is_disabled("#file") and visit.page.is_disabled("#check")


def test_after_a_bundle_that_was_refused_another_can_be_opened(browser: Browser, sites: Path) -> None:
    visit = browser.look(f"{ONE}&bundle=../pictures")
    assert visit.problem and "has no manifest.json" in visit.problem
    visit.open_folder(sites / "onnx")
    assert visit.problem is None and not visit.page.is_disabled("#check")
    visit.check()
    assert visit.page.inner_text("#outcome").startswith("Passed")


def test_golden_tensors_that_were_changed_are_not_replayed(browser: Browser, sites: Path) -> None:
    bundle = sites / "golden"
    shutil.copytree(sites / "onnx", bundle)
    content = bytearray((bundle / "golden.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "golden.safetensors").write_bytes(content)
    visit = browser.look(f"{ONE}&bundle=../golden")
    visit.check()
    assert visit.problem and "golden.safetensors is not the file that was exported" in visit.problem
    assert not visit.page.is_visible("#checked")


def test_a_file_of_tensors_is_not_believed_about_itself(visit: Visit, sites: Path) -> None:
    content = (sites / "onnx" / "golden.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")

    def with_header(**entry: Any) -> bytes:
        header = json.dumps({"input/a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}).encode()
        return len(header).to_bytes(8, "little") + header + bytes(8)

    assert visit.parse(with_header()) == "1 tensors" and visit.parse(content).endswith(" tensors")
    damaged = [content[:cut] for cut in (0, 7, 8, 100, 8 + length, len(content) - 1)]
    entries = [
        {"data_offsets": [0, 4]},
        {"data_offsets": [4, 12]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": None},
        {"shape": [1e20]},
        {"shape": [-2]},
        {"shape": ["2"]},
        {"dtype": "F64"},
    ]
    damaged += [with_header(**entry) for entry in entries]
    damaged += [
        b"\x02" + bytes(7) + b"[]",
        b"\x04" + bytes(7) + b"null",
        b"\x02" + bytes(7) + b"\xff\xff",
        b"\xff" * 16,
    ]
    for file in damaged:
        assert "is not a whole safetensors file" in visit.parse(file), file[:200]


def test_a_bundle_from_elsewhere_is_not_read(browser: Browser, sites: Path) -> None:
    visit = browser.look(f"{ONE}&bundle=https://example.org/model")
    assert visit.problem and "reads bundles from its own server only" in visit.problem
    assert not [url for url in visit.requests if "example.org" in url.split("?")[0]]


def test_a_bundle_that_was_not_judged_is_run_and_not_checked(browser: Browser, sites: Path, odd: Path) -> None:
    assert run("export", odd / "small.pt", "--no-gate", "-o", odd / "unjudged").code == 0
    visit = browser.look(f"{ONE}&bundle=../unjudged")
    assert "not judged" in visit.page.inner_text("#facts")
    visit.check()
    assert visit.problem and "holds no golden tensors" in visit.problem


# Pictures


def file_of(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def test_a_picture_that_cannot_be_used_as_it_is_is_refused(visit: Visit) -> None:
    for case, (content, message) in REFUSED.items():
        visit.show(picture_of(7))
        assert visit.problem is None and visit.answer.startswith("Sneaker, "), case
        visit.show(file_of("picture.png", content))
        assert visit.problem and message in visit.problem, (case, visit.problem)
        assert visit.page.locator("#classes li").count() == 0 and visit.answer == "", case
    assert visit.errors == []


def test_pictures_are_read_as_pillow_reads_them(visit: Visit, tmp_path: Path) -> None:
    for name, content in READ.items():
        found = visit.decode(content)
        assert not isinstance(found, str), f"{name}: {found}"
        (tmp_path / "picture").write_bytes(content)
        expected = np.asarray(images.read(tmp_path / "picture", PLAIN))
        colour = np.broadcast_to(found[:, :, :3], expected.shape).astype(int)
        most = 2 if "jpeg" in name else 0  # decoders differ
        assert np.abs(colour - expected).max() <= most, name


def test_pictures_are_prepared_as_pillow_prepares_them_to_the_last_bit(visit: Visit, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    filters = ("bilinear", "bicubic", "lanczos", "hamming", "box", "nearest")
    for i in range(90):
        height, width = (int(n) for n in rng.integers(1, 160, 2))
        if i % 15 == 0:
            height, width = int(rng.integers(300, 700)), int(rng.integers(20, 700))
        size = (height, width) if i % 8 == 0 else tuple(int(n) for n in rng.integers(1, 70, 2))
        order, channels = str(rng.choice(["RGB", "L"])), int(rng.choice([1, 3, 4]))
        bands = 1 if order == "L" else 3
        preprocessing = Preprocessing(
            mean=tuple(rng.random(bands)),
            std=tuple(rng.random(bands) + 0.1),
            channel_order=order,  # type: ignore[arg-type]
            resize=("shorter", "squash", "shorter-then-crop")[i % 3],
            interpolation=filters[i % 6 if i % 4 else 1],  # type: ignore[arg-type]
            crop_fraction=float(rng.choice([1, 0.875, 0.4])),
        )
        image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        Image.fromarray(image.squeeze(2) if channels == 1 else image).save(tmp_path / "a.png")
        expected = images.prepare(tmp_path / "a.png", preprocessing, size)
        found = visit.prepare(image, preprocessing.model_dump(mode="json"), size)
        assert found.tobytes() == expected.tobytes(), (image.shape, size, preprocessing)


def test_a_model_of_one_channel_sees_grey(browser: Browser, sites: Path, odd: Path) -> None:
    spec = single_stage(channels=5, depth=1, patch=4, expansion=2, classes=3, image_size=SIZE, in_channels=1)
    torch.save({"model": random_model(spec).state_dict(), "img_size": SIZE}, odd / "grey.pt")
    assert run("export", odd / "grey.pt", "--golden-images", odd / "pictures", "-o", odd / "grey").code == 0
    visit = browser.look(f"{ONE}&bundle=../grey")
    visit.check()
    assert "5 golden images give exactly the tensors" in visit.page.inner_text("#preparation")
    visit.show(odd / "pictures" / "1.png")
    assert visit.answer.startswith("class ") and "Made grey" in visit.page.inner_text("#steps")


# People


def test_nothing_is_wider_than_the_window(visit: Visit) -> None:
    def widths() -> dict[int, int]:
        found = {}
        for width in (320, 390, 1280):
            visit.page.set_viewport_size({"width": width, "height": 800})
            found[width] = visit.overflow()
        return found

    assert widths() == {320: 0, 390: 0, 1280: 0}
    visit.show(picture_of(0))
    visit.check()
    assert visit.page.is_visible("#checked") and widths() == {320: 0, 390: 0, 1280: 0}


def test_all_of_it_works_from_the_keyboard(visit: Visit) -> None:
    seen = []
    for _ in range(8):
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate(
            """() => {
                const at = document.activeElement;
                const shown = at.matches(".hidden-input") ? at.parentElement : at;
                return [at.id, getComputedStyle(shown).outlineStyle, parseFloat(getComputedStyle(shown).outlineWidth)];
            }"""
        )
        if not focused[0]:
            break
        assert focused[1] == "solid" and focused[2] >= 2, focused
        seen.append(focused[0])
    assert seen == ["file", "camera-button", "check", "backend", "threads", "bundle"]
    visit.page.focus("#check")
    visit.after(lambda: visit.page.keyboard.press("Enter"))
    assert visit.page.inner_text("#outcome").startswith("Passed")
    assert visit.page.evaluate("document.activeElement.id") == "check"
    visit.page.focus("#threads")
    visit.after(lambda: visit.page.keyboard.press("End"))
    last = visit.page.locator("#threads option").last.inner_text()
    assert f"WebAssembly, {last} thread" in visit.page.inner_text("#status")


@pytest.mark.npm("axe-core")
def test_axe_finds_nothing_to_complain_of(visit: Visit) -> None:
    visit.page.evaluate((npm.NODE_MODULES / "axe-core" / "axe.min.js").read_text("utf-8"))

    def complaints() -> list[object]:
        found = visit.page.evaluate("axe.run()")
        assert len(found["passes"]) > 15
        return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]]

    visit.show(picture_of(7))
    visit.check()
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        assert complaints() == [], scheme
    visit.show(file_of("a.png", b"none"))
    assert complaints() == []


def test_answers_and_problems_are_announced(visit: Visit) -> None:
    roles = {name: visit.page.get_attribute(f"#{name}", "role") for name in ("said", "outcome", "status", "problem")}
    assert roles == {"said": "status", "outcome": "status", "status": "status", "problem": "alert"}


# The format


def test_a_site_is_a_bundle_that_can_be_verified(sites: Path, tmp_path: Path) -> None:
    ran = run("verify", sites / "site", "--per-block")
    assert ran.code == 0 and "PASSED" in ran.out
    manifest = json.loads((sites / "site" / "manifest.json").read_text())
    assert manifest["format"] == "web" and manifest["engine"]["runtime_version"]
    assert {"index.html", "app.js", "ort-wasm-simd-threaded.wasm", "model.onnx", "serve.py"} <= manifest["files"].keys()
    shutil.copytree(sites / "site", tmp_path / "changed")
    (tmp_path / "changed" / "app.js").write_text("alert(1)")
    assert run("verify", tmp_path / "changed").code == 3


def test_a_runtime_that_was_changed_is_not_started(browser: Browser, sites: Path) -> None:
    shutil.copytree(sites / "site", sites / "other-runtime")
    with (sites / "other-runtime" / "ort-wasm-simd-threaded.wasm").open("ab") as file:
        file.write(b"\0")
    visit = browser.look("other-runtime/")
    assert visit.problem and "ort-wasm-simd-threaded.wasm is not the file that was exported" in visit.problem


def test_without_the_runtime_it_says_how_to_get_it(sites: Path, tmp_path: Path) -> None:
    ran = run("export", sites / "onnx", "--format", "web", "--ort-web", tmp_path, "-o", tmp_path / "out")
    assert ran.code == 4 and "npm install onnxruntime-web@" in ran.err and not (tmp_path / "out").exists()
    other = tmp_path / "other" / "dist"
    shutil.copytree(npm.WEB, other, ignore=shutil.ignore_patterns("*.map", "*.js"), symlinks=False, copy_function=touch)
    (tmp_path / "other" / "package.json").write_text('{"name": "left-pad", "version": "1.0.0"}')
    ran = run("export", sites / "onnx", "--format", "web", "--ort-web", other, "-o", tmp_path / "out")
    assert ran.code == 4 and "of the package 'left-pad'" in ran.err


def touch(source: str, destination: str) -> str:
    Path(destination).touch()
    return destination


def test_the_option_is_for_this_format_alone(sites: Path, tmp_path: Path) -> None:
    ran = run("export", sites / "onnx", "--format", "ort", "--ort-web", tmp_path, "-o", tmp_path / "out")
    assert ran.code == 2 and "--ort-web: not for --format ort" in ran.err


def test_what_the_page_could_not_feed_is_not_made_a_site(odd: Path, tmp_path: Path) -> None:
    half = ("--precision", "fp16", "--io-dtype", "fp16")
    assert run("export", odd / "small.pt", *half, "-o", tmp_path / "half").code == 0
    ran = run("export", tmp_path / "half", "--format", "web", "-o", tmp_path / "out")
    assert ran.code == 2 and "takes float16 input" in ran.err and not (tmp_path / "out").exists()


def test_webgpu_is_not_shipped_for_what_it_cannot_run(sites: Path, tmp_path: Path) -> None:
    ran = run("export", sites / "int8", "--format", "web", "--webgpu", "-o", tmp_path / "out")
    assert ran.code == 2 and "on the processor alone" in ran.err and not (tmp_path / "out").exists()


def test_a_model_that_no_browser_has_memory_for_is_not_made_a_site(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (sites / "onnx" / "model.onnx").stat().st_size
    monkeypatch.setattr(exporter, "MEMORY_BYTES", 2 * size)
    assert run("export", sites / "onnx", "--format", "web", "-o", tmp_path / "fits").code == 0
    monkeypatch.setattr(exporter, "MEMORY_BYTES", 2 * size - 1)
    ran = run("export", sites / "onnx", "--format", "web", "-o", tmp_path / "out")
    assert ran.code == 2 and "GB to load, and a browser has" in ran.err and not (tmp_path / "out").exists()
