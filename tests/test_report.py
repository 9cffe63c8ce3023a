"""The report: what it holds, what it escapes, and what a browser makes of it."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.reports import report as reports
from selfsup.reports import show
from selfsup.reports.charts import Line, chart
from selfsup.reports.embedding_map import layout
from selfsup.reports.page import escape, tag
from support.browser import browser, chromium

ATTACKS = (
    "<script>document.title='owned'</script>.png",
    "<img src=x onerror=document.title='owned'>.png",
    "a\"b'&c.png",
)


class Elements(HTMLParser):
    """All elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on a folder whose names are markup, with its report."""
    root = tmp_path_factory.mktemp("hostile")
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = root / "images" / ("<b>bold</b>" if number % 2 else "plain") / str(number)
        path = folder / (*ATTACKS, f"{number}.png")[number // 2 % 4]
        path.parent.mkdir(parents=True)
        Image.fromarray(generator.integers(0, 255, (12, 12, 3), np.uint8) // (1 + number % 2)).save(path)
    (path.parent / "<i>broken<").mkdir()
    (path.parent / "<i>broken<" / "i>.png").write_bytes(b"")
    run = selfsup.pretrain(
        str(root / "images"), encoder="convnet", epochs=2, batch_size=16, out=root / "run", workers=0, quiet=True
    )
    selfsup.report(
        run, data=str(root / "images"), labels="folders", out=root / "report.html", scratch=False, quiet=True
    )
    return root


def scripted(page: Path, script: str, name: str) -> Path:
    """Return a copy of a page without its policy, with one more script at the end."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    copy = page.with_name(name)
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return copy


def test_every_part_is_there(hostile: Path) -> None:
    text = (hostile / "report.html").read_text()
    anchors = re.findall(r'<section id="([a-z-]+)"', text)
    wanted = "done inputs training labels neighbours map patches confusion label-free skipped"
    assert anchors == wanted.split()
    assert re.findall(r'<a href="#([a-z-]+)"', text) == anchors
    assert "RankMe" in text
    assert "90°" in text
    assert "empty file" in text, "the skipped file has its reason"
    saved = json.loads((hostile / "run" / "evaluation.json").read_text())
    for score in saved["scores"]:
        assert f"{score['mean']:.1%}" in text, "every number of the evaluation is in the table"


def test_nothing_is_loaded_and_every_name_is_text(hostile: Path) -> None:
    text = (hostile / "report.html").read_text()
    elements = Elements(text)
    assert len(elements.all("script")) == 1
    assert not elements.all("link") + elements.all("iframe") + elements.all("b") + elements.all("i")
    for _, attributes in elements.found:
        for key in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/"))
        assert not any(key.startswith("on") for key in attributes)
    assert not re.search(r"url\((?!data:image/)", text)
    assert "&lt;script&gt;document.title=&#x27;owned&#x27;&lt;/script&gt;.png" in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


def test_it_is_accessible_and_small(hostile: Path) -> None:
    path = hostile / "report.html"
    elements = Elements(path.read_text())
    assert path.stat().st_size < 5_000_000
    assert all(image.get("alt") for image in elements.all("img"))
    assert all(drawing.get("role") == "img" for drawing in elements.all("svg"))
    assert {head.get("scope") for head in elements.all("th")} == {"row", "col"}
    assert {meta.get("name") for meta in elements.all("meta")} >= {"viewport", "color-scheme"}
    assert elements.all("html")[0]["lang"] == "en"


@browser
def test_a_browser_runs_our_script_and_no_other(hostile: Path) -> None:
    dom = chromium(hostile / "report.html", "--dump-dom")
    assert "<title>rotation · convnet</title>" in dom, "no name became a script"
    assert dom.count("<circle") > 30
    assert not re.search(r"<circle[^>]*><title>", dom), "our script took over the names of the dots"


def requests(page: Path) -> list[str]:
    """Return what a page, and not the browser for itself, asked of the network."""
    log = page.with_suffix(".net.json")
    chromium(page, "--dump-dom", f"--log-net-log={log}")
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"]
    return [url for url in asked if not url.startswith(("file:", "data:"))]


@browser
def test_no_request_leaves_the_page(hostile: Path) -> None:
    report = hostile / "report.html"
    assert requests(report) == []
    leaky = scripted(report, "new Image().src = 'http://leak.example/x.png'", "leaky.html")
    assert requests(leaky) == ["http://leak.example/x.png"], "this test would see one"
    guarded = hostile / "guarded.html"
    guarded.write_text(report.read_text().replace("</main>", "<img src='http://leak.example/x.png'></main>"))
    assert requests(guarded) == [], "the page's own policy forbids it"


@browser
def test_pointing_at_a_dot_shows_the_sample(hostile: Path) -> None:
    script = """
        const map = document.querySelector(".map"), box = map.querySelector("svg").getBoundingClientRect();
        const circle = map.querySelectorAll("circle")[3], scale = box.width / 1000;
        const at = (name) => box[name] + circle.getAttribute(name === "left" ? "cx" : "cy") * scale;
        const event = new PointerEvent("pointermove", {clientX: at("left"), clientY: at("top")});
        map.querySelector("svg").dispatchEvent(event);
    """
    dom = chromium(scripted(hostile / "report.html", script, "hover.html"), "--dump-dom")
    tip = re.search(r'<div class="tip"([^>]*)>.*?class="words">([^<]*)<', dom, re.DOTALL)
    assert tip
    assert "hidden" not in tip[1]
    assert ".png · " in tip[2], "path and label"
    assert dom.count('class="chosen"') + len(re.findall(r'class="s\d chosen"', dom)) == 1


@browser
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_the_screen(hostile: Path, width: int) -> None:
    inner = scripted(
        hostile / "report.html", "parent.postMessage([innerWidth, document.body.scrollWidth], '*')", "in.html"
    )
    frame = hostile / f"frame{width}.html"
    frame.write_text(
        "<body style='margin:0'><script>onmessage = (e) => document.body.dataset.size = e.data</script>"
        f"<iframe src='{inner.name}' style='border:0;width:{width}px;height:9000px'></iframe>"
    )  # a window of chromium is never narrower than 500 pixels
    screenshot = hostile / f"{width}.png"
    size = (f"--window-size={max(width, 500)},9000", "--virtual-time-budget=2000", "--allow-file-access-from-files")
    chromium(frame, *size, f"--screenshot={screenshot}")
    wide = re.search(r'data-size="(\d+),(\d+)"', chromium(frame, *size, "--dump-dom"))
    assert wide
    assert int(wide[1]) == width
    assert int(wide[2]) <= width, "nothing sticks out"
    pixels = np.asarray(Image.open(screenshot).convert("L"))[:, :width]
    assert np.unique(pixels).size > 50
    assert pixels[:4000].std() > 10, "the page is not blank"


def test_an_unfinished_run_without_data_or_labels_has_a_report(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "encoder.safetensors").unlink()
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["data"]["name"] = "arrays"  # as those of Python are called
    (run / "recipe.json").write_text(json.dumps(recipe))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # a kill cut it
    result = selfsup.report(run, quiet=True)
    assert result.path == run / "report.html"
    text = result.path.read_text()
    assert "unfinished" in text
    assert "can no longer be found (unknown folder, file or data set &#x27;arrays&#x27;). Give them" in text
    assert "Few-label numbers were not measured" in text
    assert any("no longer" in note for note in result.notes)
    (run / "metrics.jsonl").unlink()
    assert "has not written any metrics" in selfsup.report(run, quiet=True).path.read_text()


def test_data_without_labels_are_looked_at_and_not_evaluated(finished_run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    text = selfsup.report(finished_run, data=x, out=tmp_path / "r.html", quiet=True).path.read_text()
    assert "has no labels" in text
    assert "not of the data of the run" in text
    assert 'id="confusion"' not in text
    assert text.count("<circle") >= 40
    assert not (finished_run / "evaluation.json").exists()


def test_one_label_per_class_has_a_report_without_few_label_numbers(finished_run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    (tmp_path / "few.csv").write_text("path,label\n0,a\n1,b\n")
    found = selfsup.report(finished_run, data=x, labels=tmp_path / "few.csv", out=tmp_path / "r.html", quiet=True)
    assert "not measured: no class" in found.notes[-1]
    text = found.path.read_text()
    assert "none can be set aside to measure on" in text
    assert "seed 0" not in text, "it has a row of its own"


def test_a_saved_evaluation_is_shown_and_not_measured_again(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    evaluation = selfsup.evaluate(
        run, data="digits", shots="1,5", draws=2, protocol="linear", scratch=False, quiet=True
    )
    evaluation.save(run / "evaluation.json")
    monkeypatch.setattr("selfsup.commands.evaluate.evaluate", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr("selfsup.reports.samples.layout", lambda x, _: x[:, :2])  # many times faster than t-SNE
    text = selfsup.report(run, data="digits", quiet=True).path.read_text()
    assert f"{evaluation.score('raw pixels', 'linear', 5).mean:.1%} ±" in text
    (run / "evaluation.json").write_text('{"scores": [{"shots": 0}], "about": {}}')
    with pytest.raises(UserError, match="is not a saved evaluation"):
        selfsup.report(run, quiet=True)


def test_an_evaluation_of_other_labels_is_not_shown(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, digits = finished_run, open_data("digits")
    assert digits.labels is not None
    names = np.array(digits.labels.classes)[digits.labels.ids]
    few = tmp_path / "few.csv"

    def write(first: str) -> None:
        rows = [f"{i},{first if i == 0 else name}" for i, name in enumerate(names[:100])]
        few.write_text("\n".join(["path,label", *rows]))

    write(names[0])
    given = {"labels": str(few), "quiet": True}
    options = {"shots": 1, "draws": 2, "protocol": "linear", "scratch": False}
    saved = selfsup.evaluate(run, data="digits", **given, **options)
    again: list[str] = []
    whole = reports.write_report
    monkeypatch.setattr(reports, "write_report", lambda *_, **__: None)
    monkeypatch.setattr("selfsup.commands.evaluate.evaluate", lambda *_, **__: again.append("measured") or saved)
    selfsup.report(run, data="digits", **given)
    selfsup.report(run, **given)
    assert not again, "the same labels, from the same file"
    write("9")
    selfsup.report(run, **given)  # labels of the run's own data, which are digits
    selfsup.report(run, data="digits", **given)
    assert len(again) == 2, "one label is another"
    write(names[0])
    test = digits.take(np.arange(200, 300))
    selfsup.report(run, data="digits", test=test, **given)
    assert len(again) == 3, "measured on other samples"
    old = json.loads((run / "evaluation.json").read_text())
    del old["about"]["data"]["fingerprint"]
    (run / "evaluation.json").write_text(json.dumps(old))
    selfsup.report(run, data="digits", **given)
    assert len(again) == 4, "an old file does not say of which labels it is"
    monkeypatch.setattr(reports, "write_report", whole)
    bare = selfsup.report(run, data=np.zeros((40, 8, 8), np.uint8), quiet=True)
    assert "has no labels; those of evaluation.json are of other data or labels" in bare.path.read_text()


def test_confusion_with_test_data_and_with_many_classes(finished_run: Path, tmp_path: Path, monkeypatch) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    monkeypatch.setattr("selfsup.reports.samples.CLASSES", 5)
    digits = open_data("digits")
    parts = digits.take(np.arange(300)), digits.take(np.arange(300, 500))
    options = {"data": parts[0], "test": parts[1], "quiet": True}
    selfsup.evaluate(run, **options, shots=5, draws=2, protocol="linear", scratch=False)
    text = selfsup.report(run, **options).path.read_text()
    assert "Linear probe on 300 labelled samples, measured on 200 others" in text
    assert "most frequent errors among 10 classes" in text


def test_bad_input_is_one_line(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        ([str(tmp_path)], "is not a run folder"),
        ([str(finished_run), "--data", "nowhere/at/all"], "unknown folder, file or data set"),
        ([str(finished_run), "-o", str(tmp_path / "no" / "r.html")], "no such folder"),
        ([str(finished_run), "-o", str(tmp_path)], "is a folder"),
        ([str(finished_run), "--seed", "-1"], "--seed must be"),
    ]
    for words, told in cases:
        assert main(["report", *words, "--quiet"]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_markup_is_escaped_by_default() -> None:
    assert tag("a", "<b>", href='"x"') == '<a href="&quot;x&quot;">&lt;b&gt;</a>'
    assert escape(os.fsdecode(b"\xff.png")) == "\\udcff.png"


def test_a_chart_of_one_point_and_of_a_constant_is_drawn() -> None:
    for points in ([(1.0, 0.0)], [(1.0, 5.0), (2.0, 5.0)], [(1.0, -1e9), (1e6, 1e9)]):
        drawn = chart("t", [Line("l", points)], below="x", log=True)
        assert not re.search(r"nan|inf", drawn)
        paths = " ".join(re.findall(r'points="([^"]*)"', drawn))
        inside = [tuple(map(float, pair.split(","))) for pair in paths.split()]
        assert all(0 <= x <= 440 and 0 <= y <= 270 for x, y in inside)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 60])
@pytest.mark.parametrize("kind", ["random", "equal", "zero", "one dimension"])
def test_a_layout_is_finite_whatever_the_features(count: int, kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(count, 1 if kind == "one dimension" else 6)).astype(np.float32)
    x = {"equal": np.ones_like(x), "zero": np.zeros_like(x)}.get(kind, x)
    places = layout(x)
    assert places.shape == (count, 2)
    assert ((places >= 0) & (places <= 1)).all()


def test_groups_stay_together_on_the_map() -> None:
    generator = np.random.default_rng(0)
    group = np.arange(90) % 3
    x = (np.eye(3)[group] * 5 + generator.normal(size=(90, 3)) * 0.3).astype(np.float32)
    places = layout(x)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(90)
    assert (group[distance.argmin(1)] == group).mean() > 0.95


def test_a_band_ends_where_there_is_no_interval() -> None:
    points = [(1.0, 0.5), (2.0, 0.6), (4.0, 0.7)]
    drawn = chart("t", [Line("l", points, [0.1, 0.1, float("nan")])], below="x")
    (band,) = re.findall(r'<polygon points="([^"]*)"', drawn)
    assert len(band.split()) == 4, "the last point, of all labels, has none"
    assert "nan" not in drawn
    assert "<polygon" not in chart("t", [Line("l", points, [0.1, float("nan"), float("nan")])], below="x")


def test_a_run_is_shown_on_fewer_samples_than_its_queue_has(tmp_path: Path) -> None:
    data = selfsup.open_data("digits")
    run = selfsup.pretrain(
        data.take(np.arange(64)), task="moco", encoder="convnet", steps=1, batch_size=32, queue_size=64, quiet=True,
        out=tmp_path / "run",
    )  # fmt: skip
    found = selfsup.show("moco", data.take(np.arange(20)), run=run.folder, count=2, out=tmp_path / "a.png")
    assert found.path.exists()


def test_several_views_of_an_image_stand_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = []
    monkeypatch.setattr(show, "save_panels", lambda rows, spec, path: shown.append(rows))
    selfsup.show("simclr", "digits", out=tmp_path / "a.png", count=2)
    selfsup.show("rotation", "digits", out=tmp_path / "a.png", count=2)
    assert [panel.caption for panel in shown[0][0]] == ["original", "image 0, view 0", "image 0, view 1"]
    source = selfsup.open_data("digits")
    pixels = np.stack([source.read(i)[..., 0] for i in range(len(source))]).reshape(len(source), -1).astype(float)
    for row in shown[0]:
        found = np.asarray(row[0].content, float).ravel()
        assert max(np.corrcoef(found, one)[0, 1] for one in pixels if one.std()) > 0.999, "an image as it is"
    assert shown[1][0][0].caption == "0°"
