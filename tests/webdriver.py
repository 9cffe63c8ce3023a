"""A browser that a test types into: Chromium by its WebDriver, spoken to with the standard library."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver") if CHROMIUM else None
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ENTER, BACKSPACE, RIGHT, DELETE = "\ue007", "\ue003", "\ue014", "\ue017"


class Browser:
    """One window; a context manager that ends the driver and the browser it started."""

    def __init__(self) -> None:
        assert DRIVER is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL)
        wait(lambda: self.ready(), "the driver")
        options = {"binary": CHROMIUM, "args": FLAGS}
        asked = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.session = f"/session/{self.ask('POST', '/session', asked)['sessionId']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.ask("DELETE", self.session)
        finally:
            self.process.terminate()
            self.process.wait()

    def ready(self) -> bool:
        try:
            return bool(self.ask("GET", "/status")["ready"])
        except OSError:
            return False

    def ask(self, method: str, path: str, data: Mapping[str, Any] | None = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.address + path, body, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        self.ask("POST", f"{self.session}/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        return self.ask("POST", f"{self.session}/execute/sync", {"script": script, "args": arguments})

    def type(self, keys: str) -> None:
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": strokes}
        self.ask("POST", f"{self.session}/actions", {"actions": [keyboard]})

    def command(self, name: str, **parameters: object) -> None:
        self.ask("POST", f"{self.session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("GET", f"{self.session}/screenshot")))

    def tab(self) -> str:
        return str(self.ask("POST", f"{self.session}/window/new", {"type": "tab"})["handle"])

    def switch(self, handle: str) -> None:
        self.ask("POST", f"{self.session}/window", {"handle": handle})

    def here(self) -> str:
        return str(self.ask("GET", f"{self.session}/window"))


def wait(holds: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")
