"""A Chromium without windows that looks at pages of a server of ours, and remembers what it was sent for and complained of."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.web.exporter import PAGE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
INSECURE = "page.test"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    f"--host-resolver-rules=MAP {INSECURE} 127.0.0.1",
)
WEBGPU_FLAGS = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
"""WebGPU on the processor: SwiftShader comes with Chromium."""
PATIENCE_MS = 600_000
"""How long a page may take: a busy machine is slow, and where all is well nothing waits so long."""

PACKING = """
    const unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const pack = async (image) => {
        const url = await new Promise((resolve) => {
            const reader = new FileReader();
            reader.onload = () => resolve(reader.result);
            reader.readAsDataURL(new Blob([image.data]));
        });
        return { ...image, data: url.slice(url.indexOf(",") + 1) };
    };
"""


def lacking() -> str | None:
    """What is missing here to open pages in a browser, in words."""
    if not CHROMIUM:
        return "no Chromium: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "no Playwright: pip install playwright"
    return None


@contextmanager
def chromium(port: int, *flags: str) -> Iterator[Browser]:
    """A Chromium that looks at what the server at ``port`` serves."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags], timeout=PATIENCE_MS)
        yield Browser(running, port)
        running.close()


@contextmanager
def serving(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[int]:
    """The port of a server of ``folder``: the page's own, with its headers or with others."""
    module = serve_py()
    if headers is not None:
        module.HEADERS = dict(headers)  # type: ignore[attr-defined]
    with module.server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def serve_py() -> ModuleType:
    """The page's own server, as a module."""
    spec = importlib.util.spec_from_file_location("serve", PAGE / "serve.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Browser:
    """A Chromium that is running; ``look`` opens a page in it."""

    running: Any
    port: int
    opened: list[Any] = field(default_factory=list)

    def look(self, path: str, *, host: str = "localhost", port: int | None = None, **context: Any) -> Visit:
        """Open ``path`` of our server, and wait until the page has a model, or none."""
        visit = self.blank(**context)
        visit.page.goto(f"http://{host}:{port or self.port}/{path}")
        visit.settle()
        return visit

    def blank(self, **context: Any) -> Visit:
        """A page that shows nothing yet. Service workers, which would fetch each page's files once more, take ``service_workers="allow"``."""
        usual = {"viewport": {"width": 1280, "height": 900}, "service_workers": "block"}
        made = self.running.new_context(**{**usual, **context})
        made.set_default_timeout(PATIENCE_MS)
        self.opened.append(made)
        return Visit(made.new_page())

    def close_pages(self) -> None:
        while self.opened:
            self.opened.pop().close()


@dataclass
class Visit:
    """A page, every address that it asked for, and every error that it logged."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Service Worker registration blocked" not in message.text:
            self.errors.append(message.text)

    def settle(self) -> None:
        """Wait until nothing is under way."""
        self.page.wait_for_selector("#status:is([data-state=ready], [data-state=off])")

    def show(self, picture: Path | dict[str, Any]) -> None:
        """Choose ``picture`` and wait for the answer, or for the complaint."""
        self.after(lambda: self.page.set_input_files("#file", picture))

    def check(self) -> None:
        """Press the button that checks this browser, and wait."""
        self.after(lambda: self.page.click("#check"))

    def open_folder(self, folder: Path) -> None:
        """Choose ``folder`` as the bundle, and wait."""
        self.after(lambda: self.page.set_input_files("#bundle", folder))

    def after(self, action: Callable[[], object]) -> None:
        """Do ``action`` and wait until the page is done with it."""
        # Set by us before, so that it is seen to change: the page may be done before we look.
        self.page.evaluate("document.querySelector('#status').dataset.state = 'busy'")
        action()
        self.settle()

    @property
    def answer(self) -> str:
        return str(self.page.inner_text("#said"))

    @property
    def problem(self) -> str | None:
        return str(self.page.inner_text("#problem")) if self.page.is_visible("#problem") else None

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def decode(self, content: bytes) -> Array | str:
        """What the page's own decoder makes of an image file: (height, width, channels), or its refusal."""
        script = """async (file) => {
            const { decodeFile } = await import("./decode.js");
            try { return await pack(await decodeFile(new Blob([unpack(file)]))); } catch (error) { return error.message; }
        }"""
        found = self._call(script, base64.b64encode(content).decode())
        return found if isinstance(found, str) else _array(found, np.uint8)

    def logits(self, bundle: str, content: bytes) -> Array:
        """The logits of an image file, from the bundle at ``bundle``, in a worker of its own."""
        script = """async ({ path, file }) => {
            const { Engine } = await import("./engine.js");
            const engine = new Engine();
            try {
                await engine.call("open", { path });
                await engine.call("load", { backend: "wasm", threads: 1 });
                const { logits } = await engine.call("classify", { file: new Blob([unpack(file)]) });
                return [...logits];
            } finally {
                engine.stop();
            }
        }"""
        return np.array(self._call(script, {"path": bundle, "file": base64.b64encode(content).decode()}), np.float32)

    def parse(self, content: bytes) -> str:
        """How many tensors the page finds in a safetensors file, or its refusal."""
        script = """async (file) => {
            const { parse } = await import("./safetensors.js");
            try { return `${parse(unpack(file).buffer, "it").size} tensors`; } catch (error) { return error.message; }
        }"""
        return str(self._call(script, base64.b64encode(content).decode()))

    def prepare(self, image: Array, preprocessing: dict[str, Any], size: tuple[int, int]) -> Array:
        """What the page makes of decoded pixels (height, width, channels): float32 (channels, height, width)."""
        script = """async ({ file, width, height, channels, preprocessing, size }) => {
            const { prepare } = await import("./preprocess.js");
            const { tensor } = prepare({ width, height, channels, data: unpack(file) }, preprocessing, size);
            return await pack({ data: new Uint8Array(tensor.buffer) });
        }"""
        height, width, channels = image.shape
        packed = base64.b64encode(image.tobytes()).decode()
        found = self._call(
            script,
            {
                "file": packed,
                "width": width,
                "height": height,
                "channels": channels,
                "preprocessing": preprocessing,
                "size": list(size),
            },
        )
        return np.frombuffer(base64.b64decode(found["data"]), np.float32).reshape(-1, *size)

    def _call(self, script: str, argument: object) -> Any:
        """Run ``script`` in the page, where ``unpack`` and ``pack`` turn base64 into bytes and back."""
        return self.page.evaluate(f"async (argument) => {{ {PACKING} return await ({script})(argument); }}", argument)


def _array(image: dict[str, Any], dtype: Any) -> Array:
    content = np.frombuffer(base64.b64decode(image["data"]), dtype)
    return content.reshape(image["height"], image["width"], image["channels"])
