"""Runs on the Hub, against a stand-in for its API on this machine: what goes there, comes back, and is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import save

import selfsup
from selfsup.cli import main
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.score import Score
from selfsup.reports.card import model_card
from support.sources import images

pytest.importorskip("huggingface_hub", reason="the Hub's own client, which timm needs too")
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Enough of the Hub's HTTP API to create a repository, commit to it, and read it: files by repository."""

    repos: dict[str, dict[str, bytes]]
    cards: list[str]  # whose front matter was to be checked
    status = 0  # what is answered instead
    private: set[str]
    large: dict[str, bytes]  # uploaded apart from the commit, by hash
    refused = ""  # why large files are not taken

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.answer(b"{}", 404, X_Error_Code=code)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.status:
            return self.answer(b"{}", self.status)
        assert self.headers["Authorization"] == "Bearer hf_stand_in"
        parts = self.path.strip("/").split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            if name not in self.repos and (asked.get("private") or asked.get("visibility") == "private"):
                self.private.add(name)
            self.repos.setdefault(name, {})
            return self.answer(json.dumps({"url": f"http://{self.headers['Host']}/{name}"}).encode())
        if self.path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return self.answer(b'{"errors": [], "warnings": []}')
        if self.path.endswith(".git/info/lfs/objects/batch"):
            here, error = f"http://{self.headers['Host']}", {"code": 507, "message": self.refused}
            told = json.loads(body)["objects"]
            for one in told:
                one |= (
                    {"error": error} if self.refused else {"actions": {"upload": {"href": f"{here}/lfs/{one['oid']}"}}}
                )
            return self.answer(json.dumps({"transfer": "basic", "objects": told}).encode())
        if parts[4] == "preupload":
            asked = [(one["path"], "lfs" if one["path"].endswith(".safetensors") else "regular")
                     for one in json.loads(body)["files"]]  # fmt: skip
            files = [{"path": path, "uploadMode": mode} for path, mode in asked]
            return self.answer(json.dumps({"files": [{**one, "shouldIgnore": False} for one in files]}).encode())
        assert parts[4] == "commit"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.repos["/".join(parts[2:4])][line["value"]["path"]] = content
            if line["key"] == "lfsFile":
                self.repos["/".join(parts[2:4])][line["value"]["path"]] = self.large[line["value"]["oid"]]
        told = {
            "commitUrl": f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{COMMIT}",
            "commitOid": COMMIT,
            "success": True,
        }
        return self.answer(json.dumps(told).encode())

    def do_PUT(self) -> None:
        """Take a large file, in chunks or whole."""
        self.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"{}")

    def do_GET(self) -> None:
        if self.status:
            return self.answer(b"{}", self.status)
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in self.repos:
            return self.missing("RepoNotFound")
        files = self.repos[name]
        if parts[0] == "api" and len(parts) > 5 and parts[5] not in ("main", COMMIT):
            return self.missing("RevisionNotFound")
        if parts[0] == "api":
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            tree = [{"type": "file", "path": one["rfilename"], "size": one["size"], "oid": "0"} for one in siblings]
            told = tree if parts[4:5] == ["tree"] else {"id": name, "sha": COMMIT, "siblings": siblings}
            told = told if isinstance(told, list) else told | {"private": name in self.private}
            return self.answer(json.dumps(told).encode())
        path = "/".join(parts[4:])
        if path not in files:
            return self.missing("EntryNotFound")
        content = files[path]
        return self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    """Return the handler of a running stand-in, with its repositories; the token of this machine is its own."""

    class Own(Hub):
        pass

    Own.repos, Own.cards, Own.private, Own.large = {}, [], set(), {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # whose servers are not of the Hub's API
    yield Own
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def evaluated(one_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with an evaluation."""
    folder = shutil.copytree(one_run, tmp_path_factory.mktemp("hub") / "run")
    names = {"rotation": 0.91, "untrained": 0.75, "raw pixels": 0.7, "PCA": 0.72}
    scores = [Score(name, "linear", 1, mean, 0.0123, (mean - 0.01, mean + 0.01)) for name, mean in names.items()]
    about = {
        "run": str(folder), "task": "rotation", "encoder": "convnet", "metric": "accuracy", "unit": "labels per class",
        "draws": 2, "test": {"samples": 100, "name": str(folder / "photos")}, "data": {"name": str(folder / "photos")},
        "labels": {"1": 1}, "classes": 10, "chance": {"value": 0.1, "words": "always the most common class"},
        "warnings": ["3 samples could not be read and are left out"],
    }  # fmt: skip
    Evaluation(about, tuple(scores)).save(folder / "evaluation.json")
    return folder


def test_a_run_is_pushed_and_opened_again(hub: type[Hub], evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(evaluated), "user/photos-rotation", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "hf://user/photos-rotation"
    files = hub.repos["user/photos-rotation"]
    assert set(files) == {"README.md", "recipe.json", "encoder.safetensors", "evaluation.json"} == set(told["files"])
    assert files["encoder.safetensors"] == (evaluated / "encoder.safetensors").read_bytes()
    assert list(hub.large.values()) == [files["encoder.safetensors"]], "weights go apart from the commit"
    assert str(evaluated.parent).encode() not in b"".join(files.values()), "where a folder lies is nobody's concern"
    assert "command" not in json.loads(files["recipe.json"])
    assert hub.cards == [files["README.md"].decode()], "the Hub checks the head of the card"
    files["code.py"] = b"raise SystemExit"
    run = selfsup.Run("hf://user/photos-rotation")
    assert run.done
    assert not (run.folder / "code.py").exists(), "nothing else is fetched"
    x = run.spec.example(2)
    assert (run.load()(x) == selfsup.load(evaluated)(x)).all()
    assert (
        Evaluation.load(run.folder / "evaluation.json").scores == Evaluation.load(evaluated / "evaluation.json").scores
    )
    assert (
        main(["embed", "hf://user/photos-rotation@main", "digits", "-o", str(run.folder / "x.parquet"), "--quiet"]) == 0
    )


def test_the_card_has_numbers_with_intervals_and_baselines(evaluated: Path, one_run: Path) -> None:
    result = Evaluation.load(evaluated / "evaluation.json")
    card = model_card(selfsup.Run(evaluated), result, "user/photos")
    assert card.startswith("---\nlibrary_name: selfsup\n")
    for heading in ("## Use", "## Intended use", "## Training", "## Results"):
        assert f"\n{heading}\n" in card
    assert result.verdict in card
    for name in ("rotation", "untrained", "raw pixels", "PCA"):
        one = result.score(name, "linear", 1)
        assert f"| {name} | linear | {100 * one.mean:.1f} ± {100 * one.half:.1f} |" in card
    assert "95% interval over 2 draws of the labels" in card
    assert "Warning: 3 samples" in card
    assert "on 100 test samples of photos" in card
    assert "selfsup.load('hf://user/photos')" in card
    assert "nothing is claimed" in model_card(selfsup.Run(one_run), None, "user/photos")


@pytest.mark.parametrize("name", ["photos", "user/", "user/a b", "user/a/b", "user/../x", "https://x/y", "user/a@b c"])
def test_impossible_names(name: str, one_run: Path) -> None:
    with pytest.raises(UserError, match="is not a name on the Hub"):
        selfsup.push(one_run, name)
    with pytest.raises(UserError, match="is not a name on the Hub"):
        selfsup.Run(f"hf://{name}")


def test_what_the_hub_refuses_is_one_line(
    hub: type[Hub],
    one_run: Path,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, words in {
        "hf://user/nothing": "there is no such run",
        "hf://user/plain@old": "there is no such revision",
    }.items():
        hub.repos["user/plain"] = {"config.json": b"{}"}
        with pytest.raises(UserError, match=words):
            selfsup.Run(name)
    with pytest.raises(UserError, match=r"is not a run of selfsup: it has no recipe\.json"):
        selfsup.Run("hf://user/plain")
    selfsup.push(one_run, "user/secret", private=True)
    selfsup.push(one_run, "user/secret", private=True)
    with pytest.raises(UserError, match="is there already and public"):
        selfsup.push(one_run, "user/plain", private=True)
    assert set(hub.repos["user/plain"]) == {"config.json"}
    monkeypatch.setattr(hub, "refused", "over quota")
    with pytest.raises(RunFailed, match=r"client of the Hub failed.*over quota"):
        selfsup.push(one_run, "user/secret")
    monkeypatch.setattr(hub, "status", 403)
    with pytest.raises(UserError, match="does not allow it"):
        selfsup.push(one_run, "user/other")
    monkeypatch.setattr(hub, "status", 418)
    with pytest.raises(RunFailed, match="the Hub answered"):
        selfsup.push(one_run, "user/other")
    (finished_run / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match="is unfinished"):
        selfsup.push(finished_run, "user/other")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no token of the Hub"):
        selfsup.push(one_run, "user/other")


def test_without_a_network(one_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunFailed, match="the Hub cannot be reached"):
        selfsup.Run("hf://user/photos")
    with pytest.raises(RunFailed, match="the Hub cannot be reached"):
        selfsup.push(one_run, "user/photos")
    folder = shutil.copytree(one_run, tmp_path / "cache" / "hub" / "user" / "photos" / "main")
    assert selfsup.Run("hf://user/photos").folder == folder, "what is here serves"


def test_a_model_that_timm_pushed_is_fetched_with_its_weights(hub: type[Hub], tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=4).state_dict()
    about = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}}
    files = {
        "config.json": json.dumps(about).encode(),
        "model.safetensors": save(state),
        "code.py": b"raise SystemExit",
    }
    hub.repos |= {"lab/cells": files, "lab/other": {"config.json": b"{}", "model.safetensors": save(state)}}
    hub.repos["lab/empty"] = {"config.json": b"{}"}
    given = {"encoder": "hf-hub:lab/cells", "steps": 1, "batch_size": 4, "quiet": True, "out": tmp_path / "run"}
    run = selfsup.pretrain(images(), task="rotation", **given)
    assert (run.encoder_name, run.spec.mean) == ("test_resnet", (0.1, 0.2, 0.3))
    start = run.load_start()
    assert start is not None
    assert all(torch.equal(value, state[key]) for key, value in start.model.state_dict().items())
    assert not list((tmp_path / "cache").rglob("code.py"))
    before = (tmp_path / "run" / "encoder.safetensors").read_bytes()
    selfsup.pretrain(images(), task="rotation", **given)  # finished already: the same weights
    assert (tmp_path / "run" / "encoder.safetensors").read_bytes() == before
    for name, told in {
        "lab/nothing": "hf-hub:lab/nothing: there is no such model on the Hub",
        "lab/other": "not a model of timm: its config.json names no architecture",
        "lab/empty": "has no weights",
    }.items():
        with pytest.raises(UserError, match=told):
            selfsup.adapt(images(), **given | {"encoder": f"hf-hub:{name}", "out": tmp_path / "no"})
    assert not (tmp_path / "no").exists()
    hub.status = 401
    with pytest.raises(UserError, match=r"hf-hub:lab/gated: .*\(HTTP 401\)"):
        selfsup.pretrain(images(), task="rotation", **given | {"encoder": "hf-hub:lab/gated", "out": tmp_path / "no"})
