"""Runs on the Hub of Hugging Face: hf://user/name, fetched into the cache, and pushed there. Files alone: no code.

hf-hub:user/name is a model of timm there, as timm pushes it: its weights, and in config.json which model it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.base.cache import cache_folder
from selfsup.errors import RunFailed, UserError, need

PREFIX = "hf://"
MODEL = re.compile(r"hf[-_]hub:(?!timm/)")  # those of timm itself it knows by name
CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
ENCODER, RECIPE, EVALUATION = "encoder.safetensors", "recipe.json", "evaluation.json"
FILES = (RECIPE, ENCODER, EVALUATION, "tokenizer.json", "start.safetensors")  # that are fetched, where they are there
_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)


def on_hub(name: object) -> bool:
    """Return whether a run is named as one on the Hub."""
    return isinstance(name, str) and name.startswith(PREFIX)


def repository(name: str) -> tuple[str, str]:
    """Return user/name and the revision, main by default, of [hf://]user/name[@revision].

    Raises `UserError` for other names.
    """
    repo, _, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(repo) or ".." in repo or "--" in repo or not re.fullmatch(r"[\w.-]*", revision, re.ASCII):
        raise UserError(f"{name} is not a name on the Hub: give user/name, of letters, digits, - _ and single dots")
    return repo, revision or "main"


def fetch(name: str) -> Path:
    """Return the folder of a run on the Hub, whose files are brought up to date; without a network those of before.

    Raises `UserError` for a run that the Hub does not have, `RunFailed` if the Hub does not answer and nothing is here.
    """
    repo, revision = repository(name)
    hub = need("huggingface_hub", "hub")
    folder = cache_folder() / "hub" / repo / revision
    with _one_line(repo):
        hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(FILES),
            local_dir=folder,
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    if not (folder / RECIPE).exists():
        raise UserError(f"{PREFIX}{repo} is not a run of selfsup: it has no {RECIPE}")
    return folder


class HubModel(NamedTuple):
    """A model of timm on the Hub: its name in timm, its file of weights, and what normalizes images, where it says."""

    architecture: str
    weights: Path
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def fetch_model(name: str) -> HubModel:
    """Return the model hf-hub:user/name[@revision], fetched as `fetch` does.

    Raises `UserError` for what is not a model of timm, and as `fetch` does.
    """
    repo, revision = repository(MODEL.sub("", name))
    hub = need("huggingface_hub", "hub")
    folder = cache_folder() / "hub" / repo / revision
    for wanted in WEIGHTS:
        with _one_line(repo, "hf-hub:", "model"):
            hub.snapshot_download(
                repo, revision=revision, allow_patterns=[CONFIG, wanted], local_dir=folder,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )  # fmt: skip
        if (folder / wanted).exists():
            break
    else:
        raise UserError(f"{name} has no weights: neither {' nor '.join(WEIGHTS)}")
    try:
        about = json.loads((folder / CONFIG).read_bytes())
        more = about.get("pretrained_cfg", about)
        mean, std = (tuple(map(float, more.get(key) or ())) for key in ("mean", "std"))
        return HubModel(str(about["architecture"]), folder / wanted, mean, std)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{name} is not a model of timm: its {CONFIG} names no architecture; where it is one, give --encoder NAME "
            f"--weights {folder / wanted}"
        ) from None


def push(name: str, files: Mapping[str, Path | bytes], private: bool) -> str:
    """Create user/name on the Hub where it is not there, write files there in one commit, and return its address.

    Raises `UserError` without a token or permission, and for a public repository where a `private` one is asked for;
    `RunFailed` if the Hub does not answer.
    """
    repo, revision = repository(name)
    hub: Any = need("huggingface_hub", "hub")
    if hub.get_token() is None:
        raise UserError("no token of the Hub on this machine: `hf auth login`, or set HF_TOKEN")
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    added = [hub.CommitOperationAdd(path, content) for path, content in files.items()]
    with _one_line(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise UserError(
                f"{PREFIX}{repo} is there already and public: make it private on its page, or give another name"
            )
        api.create_commit(repo, added, commit_message="selfsup push", revision=revision)
    return f"{api.endpoint}/{repo}"


@contextlib.contextmanager
def _one_line(repo: str, prefix: str = PREFIX, kind: str = "run") -> Iterator[None]:
    """Turn the errors of the Hub and of the network into ours."""
    name = prefix + repo
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        what = f"such {kind}" if isinstance(error, errors.RepositoryNotFoundError) else "such revision"
        raise UserError(f"{name}: there is no {what} on the Hub, or it is private and HF_TOKEN is not") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise UserError(f"{name}: the token of this machine does not allow it (HTTP {status})") from None
        raise RunFailed(f"{name}: the Hub answered {str(error).splitlines()[0]}") from None
    except (OSError, errors.LocalEntryNotFoundError) as error:
        raise RunFailed(f"{name}: the Hub cannot be reached ({_first_line(error)})") from None
    except UserError:
        raise
    except Exception as error:  # of large files the client raises what it likes, the reason behind it
        network = type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
        what = "the Hub cannot be reached" if network else "the client of the Hub failed"
        raise RunFailed(f"{name}: {what} ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    told = [" ".join(str(one).split()) for one in (error, error.__cause__) if one is not None]
    return (" ".join(dict.fromkeys(filter(None, told))) or type(error).__name__)[:300]
