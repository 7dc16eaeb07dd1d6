"""Firefox and WebKitGTK without windows, driven by the protocols that they bring: Marionette, and WebDriver over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 600
"""How long a step may take: a busy machine is slow, and where all is well nothing waits so long."""

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "marionette.port": 0,  # any that is free
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}

WEBKIT_DRIVER, XVFB = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
MINI_BROWSER = next(Path("/usr").glob("lib*/*/webkit2gtk-4*/MiniBrowser"), None)


def lacking_firefox() -> str | None:
    """What is missing here to open pages in Firefox, in words."""
    return None if FIREFOX else "no Firefox: apt-get install firefox-esr"


def lacking_webkit() -> str | None:
    """What is missing here to open pages in WebKitGTK, in words."""
    if WEBKIT_DRIVER and MINI_BROWSER and XVFB:
        return None
    return "no WebKitGTK: apt-get install webkit2gtk-driver xvfb"


@dataclass(frozen=True)
class Driver:
    """A browser with one window, by the commands of WebDriver."""

    command: Callable[[str, Mapping[str, Any]], Any]

    def open(self, url: str) -> None:
        """Load a page."""
        self.command("Navigate", {"url": url})

    def run(self, function: str, *arguments: object) -> Any:
        """What an async function of JavaScript returns in the page.

        Raises:
            AssertionError: with its message, where it throws.
        """
        script = f"""const given = Array.from(arguments), done = given.pop();
            ({function})(...given).then((value) => done({{ value }}), (error) => done({{ problem: String(error) }}));"""
        found = self.command("ExecuteAsyncScript", {"script": script, "args": list(arguments)})
        assert "problem" not in found, found["problem"]
        return found.get("value")


@contextmanager
def firefox(profile: Path) -> Iterator[Driver]:
    """A Firefox whose settings and data lie in the empty folder ``profile``."""
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    place = profile / "MarionetteActivePort"
    with _running(FIREFOX, "--headless", "--no-remote", "--marionette", "--profile", profile) as process:
        port = _wait(process, lambda: place.is_file() and int(place.read_text() or 0))
        with closing(socket.create_connection(("127.0.0.1", port), PATIENCE_S)) as connection:
            command = _Marionette(connection)
            command("NewSession", {})
            command("SetTimeouts", {"script": PATIENCE_S * 1000})
            yield Driver(command)


class _Marionette:
    """Commands as ``LENGTH:[0, id, name, parameters]``, and answers as ``LENGTH:[1, id, error, result]``."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rwb")
        self._id = 0
        self._read()  # its greeting

    def __call__(self, name: str, parameters: Mapping[str, Any]) -> Any:
        self._id += 1
        content = json.dumps([0, self._id, f"WebDriver:{name}", dict(parameters)]).encode()
        self._stream.write(b"%d:%s" % (len(content), content))
        self._stream.flush()
        _, _, error, result = self._read()
        assert error is None, error
        return result["value"] if isinstance(result, dict) and result.keys() == {"value"} else result

    def _read(self) -> Any:
        length = b""
        while (byte := self._stream.read(1)) != b":":
            assert byte, "Firefox has ended"
            length += byte
        return json.loads(self._stream.read(int(length)))


@contextmanager
def webkit(home: Path) -> Iterator[Driver]:
    """WebKitGTK's MiniBrowser on a screen of its own, whose data lie in the empty folder ``home``."""
    with ExitStack() as stack:
        read, write = os.pipe()
        stack.callback(os.close, read)
        stack.enter_context(_running(XVFB, "-displayfd", write, "-screen", "0", "1600x1200x24", pass_fds=(write,)))
        os.close(write)
        with os.fdopen(os.dup(read)) as screen:
            display = f":{screen.readline().strip()}"
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        # As root, in a container, the sandbox has no namespaces to use.
        own |= {"DISPLAY": display, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1", "GDK_BACKEND": "x11"}
        process = stack.enter_context(_running(WEBKIT_DRIVER, f"--port={port}", env=own))
        _wait(process, lambda: _answers(port))
        options = {"binary": str(MINI_BROWSER), "args": ["--automation"]}
        made = _http(port, "/session", {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}})
        place = f"/session/{made['sessionId']}"
        paths = {"Navigate": "/url", "ExecuteAsyncScript": "/execute/async"}

        def command(name: str, parameters: Mapping[str, Any]) -> Any:
            return _http(port, place + paths[name], dict(parameters))

        _http(port, f"{place}/timeouts", {"script": PATIENCE_S * 1000})
        stack.callback(_http, port, place, None, "DELETE")
        yield Driver(command)


def _http(port: int, path: str, body: Mapping[str, Any] | None, method: str | None = None) -> Any:
    """What WebDriver answers: to a POST of ``body``, else to a GET or to ``method``."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


def _answers(port: int) -> bool:
    with closing(socket.socket()) as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _running(*command: object, env: Mapping[str, str] | None = None, pass_fds: tuple[int, ...] = ()) -> Iterator[Any]:
    """A process, and all that it starts: ended together."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: Any, found: Callable[[], Any]) -> Any:
    """The first true answer of ``found``, while ``process`` runs."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{process.args[0]} cannot be reached: it {'runs' if process.poll() is None else 'has ended'}")
