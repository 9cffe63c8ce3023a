"""The labelling page: what the server refuses, what is saved, and what a browser makes of it."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.open import open_data
from selfsup.data.text import Texts
from selfsup.errors import UserError
from selfsup.labelling.pool import Pool
from selfsup.labelling.session import Refused, Session, free_key
from support.kills import Command
from test_suggest import blobs, pool_of
from webdriver import BACKSPACE, DELETE, DRIVER, ENTER, RIGHT, Browser, wait

pytest.importorskip("starlette", reason="pip install 'selfsup[label]'")
pytest.importorskip("uvicorn", reason="pip install 'selfsup[label]'")
browser = pytest.mark.skipif(DRIVER is None, reason="there is no chromedriver: apt-get install chromium-driver")

from selfsup.labelling.page.server import make_app  # noqa: E402

HOST, TOKEN = "127.0.0.1:8000", "the-token"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(pool_of(blobs()[0]), tmp_path / "labels.csv", n=5)
    assert made.wait()
    yield made
    made.close()


def label(number: int, name: str | None, before: str | None = None, tab: str = "a", event: str = "") -> dict[str, Any]:
    event = event or f"{tab} {number} {name} {before}"
    return {"kind": "label", "number": number, "name": name, "before": before, "tab": tab, "event": event}


# The session


def test_every_action_is_saved_and_can_be_undone(session: Session) -> None:
    session.act(label(3, "cat"))
    session.act(label(4, "  two   words, \"'<b> "))
    assert session.path.read_text() == 'path,label\n3,cat\n4,"two words, ""\'<b>"\n'
    session.act(label(3, "dog", before="cat"))
    for place, wanted in enumerate(({3: "cat", 4: "two words, \"'<b>"}, {3: "cat"}, {})):
        item = session.act({"kind": "undo", "tab": "a", "event": f"u{place}"})
        assert item is not None
        assert session.labels == wanted
    with pytest.raises(Refused, match="nothing to undo"):
        session.act({"kind": "undo", "tab": "a", "event": "u9"})
    assert session.path.read_text() == "path,label\n"


def test_an_action_that_comes_twice_is_done_once(session: Session) -> None:
    session.act(label(3, "cat", event="1"))
    session.act({"kind": "undo", "tab": "a", "event": "2"})
    session.act(label(3, "cat", event="1"))
    assert session.labels == {}


def test_two_tabs_do_not_overwrite_each_other(session: Session) -> None:
    session.act(label(3, "cat", tab="a"))
    with pytest.raises(Refused, match="another tab has changed this sample, to 'cat'"):
        session.act(label(3, "dog", tab="b"))
    session.act(label(3, "cat", tab="b"))  # both say the same
    session.act(label(3, "dog", before="cat", tab="b"))
    with pytest.raises(Refused, match="another tab"):
        session.act({"kind": "undo", "tab": "a", "event": "u"})
    assert session.labels == {3: "dog"}
    session.act(label(4, "cat", tab="a"))
    session.act({"kind": "undo", "tab": "b", "event": "v"})
    assert session.labels == {3: "cat", 4: "cat"}, "each tab undoes its own"


def test_many_tabs_at_once_lose_nothing(session: Session) -> None:
    def work(tab: int) -> None:
        for number in range(tab, 100, 4):
            session.act(label(number, f"class {number % 3}", tab=str(tab)))

    threads = [threading.Thread(target=work, args=(tab,)) for tab in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = open_data(np.zeros((180, 8, 8), np.uint8), str(session.path)).labels
    assert labels is not None
    assert [labels.classes[i] for i in labels.ids[:100]] == [f"class {number % 3}" for number in range(100)]


@pytest.mark.parametrize("name", ["", " ", "a|b", "x" * 201, "\x00", "\ud800", "\x1b[31m"])
def test_names_that_a_file_cannot_keep_are_refused(session: Session, name: str) -> None:
    with pytest.raises(Refused, match="a class has a name"):
        session.act(label(3, name))


@pytest.mark.parametrize("number", [-1, 180, 1.5, "3", None, True])
def test_samples_that_are_not_there_are_refused(session: Session, number: Any) -> None:
    with pytest.raises(Refused, match="no such sample"):
        session.act(label(number, "cat"))


def test_a_file_that_cannot_be_written_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.act(label(3, "cat"))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Refused, match="No space left"):
        session.act(label(4, "dog"))
    monkeypatch.undo()
    assert session.labels == {3: "cat"}
    assert session.path.read_text() == "path,label\n3,cat\n"
    session.act(label(4, "dog"))
    assert session.labels == {3: "cat", 4: "dog"}


def test_labels_spread_and_the_next_samples_are_uncertain(session: Session) -> None:
    group = blobs()[1]
    while session.count < 8:
        number = session.state()["queue"][0]["number"]
        session.act(label(number, f"g{group[number]}"))
        assert session.wait()
    state = session.state()
    assert {one["name"] for one in state["classes"]} == {"g0", "g1", "g2", "g3"}
    assert state["unsure"] < 30
    kinds = [item["kind"] for item in state["groups"]]
    assert kinds[-1] == "given"
    assert kinds.count("class") == 4
    for item in state["groups"]:
        if item["kind"] == "class":
            assert all(sample["guess"] == item["name"] for sample in item["items"])
            sure = [sample["confidence"] for sample in item["items"]]
            assert sure == sorted(sure)
    json.dumps(state)


def test_a_file_is_continued_and_a_strange_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    pool = pool_of(blobs()[0])
    path.write_text("path,label\n3,cat\n7,dog\n9,\n")
    session = Session(pool, path)
    assert session.labels == {3: "cat", 7: "dog"}
    session.close()
    for text, told in {
        "path,label\nx.png,cat\n": "another --out",
        "path,label\n1,a|b\n": "several labels",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=told):
            Session(pool, path)
        assert path.read_text() == text


def test_keys() -> None:
    assert free_key("7", []) == "7"
    assert free_key("cat", []) == "c"
    assert free_key("Cat", ["c"]) == "a"
    assert free_key("猫です", []) == "1"
    assert free_key("cat", "123456789abcdefghijklmnopqrstuvwxyz0") == ""


# The server


def ask(app: Any, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send one request to an ASGI application."""
    given = {"host": HOST} | {key.replace("_", "-"): value for key, value in headers.items()}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path.partition("?")[0],
        "raw_path": path.encode(), "query_string": path.partition("?")[2].encode(), "root_path": "",
        "headers": [(key.encode(), value.encode()) for key, value in given.items()], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    head = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def app(session: Session) -> Any:
    def show(number: int, side: int) -> tuple[bytes, str] | str | None:
        return [(b"png", "image/png"), "<script>alert(1)</script>", None][number % 3]

    return make_app(session, show, TOKEN, 8000)


def test_the_page_and_its_parts_are_there_and_closed_to_others(app: Any) -> None:
    for path in ("", "page.css", "page.js", "state", "sample/0/small"):
        status, head, body = ask(app, "GET", f"/{TOKEN}/{path}")
        assert status == 200, path
        assert body
        assert "default-src 'none'" in head["content-security-policy"]
        assert "unsafe" not in head["content-security-policy"]
        assert head["x-content-type-options"] == "nosniff"
        assert ask(app, "GET", f"/another/{path}")[0] == 404
        assert ask(app, "GET", f"/{path}")[0] == 404
        assert ask(app, "GET", f"/{TOKEN}/{path}", host="evil.example")[0] == 404, "DNS rebinding"
        assert ask(app, "GET", f"/{TOKEN}/{path}", host="127.0.0.1:9")[0] == 404
        assert ask(app, "GET", f"/{TOKEN}/{path}", origin="http://evil.example")[0] == 403
    assert ask(app, "GET", f"/{TOKEN}/server.py")[0] == 404
    assert ask(app, "GET", f"/{TOKEN}/..%2f..%2fsession.py")[0] == 404
    assert ask(app, "GET", f"/{TOKEN}/sample/999/small")[0] == 404
    assert ask(app, "GET", f"/{TOKEN}/sample/2/small")[0] == 404
    assert ask(app, "GET", f"/{TOKEN}/sample/0/small")[1]["content-type"] == "image/png"
    assert ask(app, "GET", f"/{TOKEN}/sample/1/small")[1]["content-type"].startswith("text/plain")


def test_only_the_page_itself_may_act(app: Any, session: Session) -> None:
    body = json.dumps(label(3, "cat")).encode()
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "https://" + HOST}):
        assert ask(app, "POST", f"/{TOKEN}/act", body, **headers)[0] == 403
    assert ask(app, "GET", f"/{TOKEN}/act")[0] == 404
    assert session.labels == {}
    origin = {"origin": f"http://{HOST}"}
    status, _, answer = ask(app, "POST", f"/{TOKEN}/act", body, **origin)
    assert status == 200
    assert json.loads(answer)["given"] == 1
    assert session.labels == {3: "cat"}
    for bad in (b"", b"[]", b"{", b"\xff", b"[" * 9000, b"1" * 9000):
        assert ask(app, "POST", f"/{TOKEN}/act", bad, **origin)[0] == 400
    assert ask(app, "POST", f"/{TOKEN}/act", b" " * 20_000, **origin)[0] == 413
    for refused in (b"{}", b'{"kind": "label", "number": 1e400}', json.dumps(label(3, "dog")).encode()):
        status, _, answer = ask(app, "POST", f"/{TOKEN}/act", refused, **origin)
        assert (status, "refused" in json.loads(answer)) == (409, True)


def test_a_state_that_is_known_is_not_sent_again(app: Any, session: Session) -> None:
    assert ask(app, "GET", f"/{TOKEN}/state?version={session.version}")[0] == 204
    assert ask(app, "GET", f"/{TOKEN}/state?version=-1")[0] == 200


def test_a_port_in_use_is_one_line_before_any_work(
    one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(Pool, "of", lambda *_: pytest.fail("features were computed first"))
        words = ["label", str(one_run), "digits", "-o", str(tmp_path / "labels.csv"), "--port", str(port), "--quiet"]
        assert main(words) == 2
    told = f"selfsup: port {port} is in use; give another --port, or leave it out for a free one\n"
    assert capsys.readouterr().err == told
    assert os.listdir(tmp_path) == []


def test_without_the_extra_one_line_says_what_to_install(
    one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["label", str(one_run), "digits", "-o", str(tmp_path / "l.csv")]) == 2
    assert capsys.readouterr().err == "selfsup: this needs starlette: pip install 'selfsup[label]'\n"


# The command and the browser


@contextmanager
def served(run: Path, data: str, out: Path) -> Iterator[tuple[str, Command]]:
    """Run `selfsup label` and yield the page's address and the process."""
    with Command(["label", str(run), data, "-o", str(out), "--quiet", "--no-browser"]) as command:
        first = command.stderr.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{40,}/", first), first + command.stderr.read()
        yield first, command


def test_a_second_server_of_a_file_is_refused_and_ctrl_c_ends_well(
    one_run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "labels.csv"
    out.parent.mkdir()
    with served(one_run, str(images), out) as (_, process):
        assert main(["label", str(one_run), str(images), "-o", str(out), "--quiet"]) == 2
        assert "is in use by process" in capsys.readouterr().err
        process.send(signal.SIGINT)
        assert process.wait() == 0
        assert "0 labels in" in process.stderr.read()
    assert os.listdir(out.parent) == []


def test_a_browser_that_is_closed_loses_nothing_and_the_server_ends_well(
    one_run: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.csv"
    with served(one_run, str(images), out) as (address, process):
        host, path = address.removeprefix("http://").split("/", 1)

        def begin(action: dict[str, Any], of_it: int | None = None) -> socket.socket:
            body = json.dumps(action).encode()
            head = f"POST /{path}act HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\ncontent-length: {len(body)}"
            connection = socket.create_connection(("127.0.0.1", int(host.split(":")[1])))
            connection.sendall(head.encode() + b"\r\n\r\n" + body[:of_it])
            return connection

        with begin(label(0, "cat")) as kept:  # and never read: the browser was closed after a key
            wait(lambda: out.exists(), "the first label")
            begin(label(1, "dog"), of_it=9).close()
            begin(label(2, "dog")).close()
            wait(lambda: "2.png,dog" in out.read_text(), "the label of a closed tab")
            assert kept.recv(12) == b"HTTP/1.1 200"
            process.send(signal.SIGINT)  # a connection is still open
            assert process.wait() == 0
        told = process.stderr.read()
    assert "2 labels in" in told
    assert "Traceback" not in told
    assert out.read_text() == "path,label\ncat/0.png,cat\ncat/2.png,dog\n"


class Page:
    """The page in a browser, as a user sees it."""

    def __init__(self, window: Browser, address: str) -> None:
        self.window = window
        window.open(address)
        self.number()

    def number(self, other_than: int = -1) -> int:
        """Return the number of the sample that is shown, once it is another one."""

        def shown() -> int:
            text = self.window.run("return document.getElementById('current').dataset.number || '-1'")
            return int(text) + 1 if int(text) not in (-1, other_than) else 0

        return int(wait(shown, "a sample")) - 1

    def progress(self) -> str:
        return str(self.window.run("return document.getElementById('progress').textContent"))

    def settled(self, labels: int) -> str:
        """Wait until so many labels are saved and spread, and return the line of progress."""

        def done() -> bool:
            return bool(self.window.run("return state.given === arguments[0] && !state.busy && !waiting", labels))

        wait(done, f"{labels} labels")
        return self.progress()

    def give(self, name: str) -> None:
        """Label the shown sample by keys: the class's own, or its name for a new class."""
        number = self.number()
        # A class has its key once the server has answered: typed before that, its Enter could fall on the next sample.
        wait(lambda: self.window.run("return !waiting"), "the answer to the label before")
        keys = self.window.run("return Object.fromEntries(state.classes.map((one) => [one.name, one.key]))")
        self.window.type(keys.get(name, f"{name}{ENTER}"))
        self.number(number)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser() as made:
        yield made


@browser
def test_fifteen_digits_by_keys(one_run: Path, tmp_path: Path, window: Browser) -> None:
    out, labels = tmp_path / "labels.csv", open_data("digits").labels
    assert labels is not None
    with served(one_run, "digits", out) as (address, process):
        page = Page(window, address)
        given = {}
        for _ in range(15):
            number = page.number()
            given[number] = labels.classes[labels.ids[number]]
            page.give(given[number])
        told = page.settled(15)
        assert re.fullmatch(r"15 labels → \d+% of 1,797, [\d,]+ unsure", told), told
        rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
        assert {int(path): name for path, name in rows} == given
        last = list(given)[-1]
        window.type(BACKSPACE)
        page.settled(14)
        assert page.number() == last, "what was undone is shown again"
        process.send(signal.SIGKILL)
        process.wait()
    assert len(out.read_text().splitlines()) == 15, "a killed server loses nothing"
    result = selfsup.label(one_run, "digits", labels=str(out), out=tmp_path / "all.csv", quiet=True)
    assert result is not None
    sure = np.array([name is not None for name in result.labels])
    right = np.array([name == labels.classes[i] for name, i in zip(result.labels, labels.ids, strict=True)])
    assert right[sure].mean() > 0.8


@contextmanager
def in_thread(pool: Pool, out: Path, show: Any) -> Iterator[str]:
    """Serve the page of a pool from this process, and yield its address."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        session = Session(pool, out, n=5)
        config = uvicorn.Config(make_app(session, show, TOKEN, port), lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/{TOKEN}/"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
            session.close()


def png(number: int, side: int) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), (number % 256, 80, 80)).save(buffer, "png")
    return buffer.getvalue(), "image/png"


@browser
def test_a_thumbnail_is_corrected_and_two_tabs_agree(tmp_path: Path, window: Browser) -> None:
    out = tmp_path / "labels.csv"
    x, group = blobs()
    with in_thread(pool_of(x), out, png) as address:
        page = Page(window, address)
        for _ in range(8):
            page.give("abcd"[group[page.number()]])
        page.settled(8)
        number = int(
            window.run("const one = document.querySelector('.thumbs button'); one.click(); return one.dataset.number")
        )
        assert page.number() == number
        window.type("b")
        page.settled(9)
        assert f"{number},b\n" in out.read_text()
        skipped = page.number()
        window.type(RIGHT)
        page.number(skipped)
        first, second = window.here(), window.tab()
        window.switch(second)
        other = Page(window, address)
        shared = other.number()
        other.give("a")
        other.settled(10)
        window.switch(first)
        seen = "pinned = {number: arguments[0], path: '', label: null, guess: null}; render()"
        window.run(seen, shared)  # as this tab saw it before
        window.type("b")
        message = "return document.getElementById('message').textContent"
        wait(lambda: "another tab" in window.run(message), "the refusal")
        assert f"{shared},a\n" in out.read_text()
        wait(lambda: page.number() == shared, "the sample that the tabs disagree about")
        window.type(DELETE)
        page.settled(9)
        assert f"{shared},a\n" not in out.read_text()


@browser
@pytest.mark.parametrize("width", [390, 1200])
def test_names_are_text_and_the_page_fits(tmp_path: Path, window: Browser, width: int) -> None:
    attack = "<img src=x onerror=document.title='owned'>"
    for number in range(30):
        folder = tmp_path / "images" / "<b>bold<" / "b>" / str(number)
        folder.mkdir(parents=True)
        Image.new("RGB", (12, 12)).save(folder / f"{attack}.png")
    pool = Pool(open_data(tmp_path / "images"), np.arange(30), blobs((15, 15))[0])
    with in_thread(pool, tmp_path / "labels.csv", png) as address:
        window.command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        try:
            page = Page(window, address)
            window.type(f"+{attack}{ENTER}")
            page.settled(1)
            window.type(f"+{'long ' * 30}{ENTER}")
            page.settled(2)
            assert window.run("return document.querySelectorAll('b, script:not([src]), img[src=x]').length") == 0
            assert window.run("return document.title") == "2 labels · Label"
            assert attack in window.run("return document.getElementById('classes').textContent")
            assert attack in window.run("return document.getElementById('path').textContent")
            assert window.run("return document.body.scrollWidth <= innerWidth")
            grounds = []
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                window.command("Emulation.setEmulatedMedia", features=features)
                window.screenshot(tmp_path / f"{scheme}.png")
                grounds.append(np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("L"))[-3, 3])
            assert grounds[0] > 200 > 60 > grounds[1]
        finally:
            window.command("Emulation.clearDeviceMetricsOverride")
            window.command("Emulation.setEmulatedMedia", features=[])


@browser
def test_texts_are_read(tmp_path: Path, window: Browser) -> None:
    texts = Texts.of([f"{('<b>ball</b> game', 'bank money')[i % 2]} {i}" for i in range(40)])
    pool = Pool(texts, np.arange(40), np.eye(2, dtype=np.float32)[np.arange(40) % 2] + np.arange(40)[:, None] / 999)
    with in_thread(pool, tmp_path / "labels.csv", lambda number, _: texts.read(number)) as address:
        page = Page(window, address)
        for name in ("sport", "money"):
            page.give(name)
        page.settled(2)
        large = "return document.querySelector('#sample p').textContent"
        assert wait(lambda: window.run(large), "the text") == texts.read(page.number())
        assert window.run("return document.querySelectorAll('#sample b, .thumbs b').length") == 0
        assert window.run("return document.querySelectorAll('.texts p').length") > 2
