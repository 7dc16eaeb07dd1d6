"""Serves a folder of this page to the browsers of this machine: ``python3 serve.py [FOLDER] [--port N]``.

Any web server will do. This one sends the headers that isolate the page, without which browsers give it one thread.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import io
from pathlib import Path
from typing import BinaryIO

TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}

POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
"""The page has it in its head, too, where it does not hold for workers."""

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with the right types and headers, whatever this machine's table of types says."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_head(self) -> BinaryIO | io.BytesIO | None:
        # Times count whole seconds, and a page that was put back is older: neither tells whether a browser has this file.
        del self.headers["If-Modified-Since"]
        return super().send_head()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is served is no news."""


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of ``folder`` on this machine's own address; port 0 takes a free one."""
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder of this page to the browsers of this machine.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(
            f"{options.folder} is no folder: give one that --format web made, or none for the one that this file is in"
        )
    try:
        with server(options.folder, options.port) as running:
            print(f"http://localhost:{running.server_port}/   (Ctrl-C ends)", flush=True)
            running.serve_forever()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        parser.exit(1, f"error: port {options.port} cannot be used: {error.strerror}. Choose another with --port\n")


if __name__ == "__main__":
    main()
