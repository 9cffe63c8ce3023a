"""Exporters: an encoder in the formats of other tools, for each kind of data."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from selfsup.base.checks import check_new_file, check_new_folder
from selfsup.base.printing import Printable
from selfsup.base.quiet import quiet_libraries
from selfsup.base.writing import write_atomically
from selfsup.errors import UserError, need
from selfsup.exporters.maps import maps_program
from selfsup.run import Run
from selfsup.spec import Spec
from selfsup.train.checkpoint import save_tensors

EXPORTERS = {
    "image": "selfsup.exporters.image",
    "text": "selfsup.exporters.text",
    "video": "selfsup.exporters.batch_only",
    "audio": "selfsup.exporters.audio",
    "trajectory": "selfsup.exporters.image",
}
REPRESENTATION = "representation"
PROGRAMS = ("torch", "onnx")
COMMON = {"safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}  # of every kind, with their suffixes


class Exporter(Protocol):
    """The exporter of one kind of data; a module."""

    FORMATS: Mapping[str, str]  # its own ones, with the suffix of each; "" is a folder

    def open_dims(self, spec: Spec) -> dict[int, Any]:
        """Return the dimensions of a batch that an exported program leaves dynamic."""

    def program(self, encoder: nn.Module, spec: Spec) -> tuple[nn.Module, Tensor]:
        """Return what becomes a program, the encoder and what it takes for granted, and two samples for it."""

    def write(self, encoder: nn.Module, spec: Spec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
        """Write a format of its own; return how to load it."""


def exporter(kind: str) -> Exporter:
    """Return the exporter of a kind of data."""
    return importlib.import_module(EXPORTERS[kind])


@dataclass(frozen=True, repr=False)
class Exported(Printable):
    """The file or folder that `export` wrote, and how to load it."""

    path: Path
    how: str

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "how": self.how}

    def __rich__(self) -> str:
        return f"{self.path}\n{self.how}"


def write_export(run: Run, format: str, path: Path | None, output: str = REPRESENTATION) -> Exported:
    """Write the encoder of a run in a format, by default as encoder.SUFFIX in the current folder.

    `output`: what a program returns, its representation or its `maps`, patch features. Raises `UserError` for an
    encoder that the format cannot hold, or a missing package.
    """
    spec = run.spec
    own = exporter(spec.kind)
    formats = {**COMMON, **own.FORMATS}
    if format not in formats:
        raise UserError(f"{run.encoder_name} cannot be exported as {format}; give --format {', '.join(formats)}")
    if output != REPRESENTATION and format not in PROGRAMS:
        raise UserError(f"--output is for --format {' and '.join(PROGRAMS)}, not {format}: leave it out")
    suffix = formats[format]
    path = path or Path(("encoder" if format in COMMON else f"encoder-{format}") + suffix)
    (check_new_file if suffix else check_new_folder)(path)
    encoder: Any = run.load()
    about = {"encoder": run.encoder_name, "task": run.task, **spec.to_json()}
    if format not in COMMON:
        return Exported(path, own.write(encoder, spec, run.encoder_name, format, path, about))
    if format == "safetensors":
        save_tensors(path, encoder.state_dict(), about)
        return Exported(path, "load: selfsup.load(run), or safetensors.torch.load_file(path) into the same encoder")
    open_dims, (program, example) = own.open_dims(spec), own.program(encoder, spec)
    what = ""
    if output != REPRESENTATION:
        program, example, open_dims, what = maps_program(encoder, spec, run.encoder_name)
        about, what = about | {"output": output}, f"; {what}"
    if format == "torch":
        buffer = io.BytesIO()
        with quiet_libraries(), _one_line(run, format, "onnx"):
            exported = torch.export.export(program, (example,), dynamic_shapes=(open_dims,))
        torch.export.save(exported, buffer, extra_files={"selfsup.json": json.dumps(about)})
        write_atomically(path, buffer.getvalue())
        return Exported(path, f"load: torch.export.load({str(path)!r}).module(){what}")
    need("onnx", "onnx")
    need("onnxscript", "onnx")
    # the kernels of attention differ in their strides, which ONNX's decomposition does not expect
    with quiet_libraries(), sdpa_kernel(SDPBackend.MATH), _one_line(run, format, "torch"):
        made: Any = torch.onnx.export(program, (example,), dynamo=True, dynamic_shapes=(open_dims,), verbose=False)
    proto = made.model_proto  # made anew by every access
    entry = proto.metadata_props.add()
    entry.key, entry.value = "selfsup", json.dumps(about)
    write_atomically(path, proto.SerializeToString())
    return Exported(path, f"load: onnxruntime.InferenceSession({str(path)!r}).run(None, {{'x': x}}){what}")


@contextmanager
def _one_line(run: Run, format: str, other: str) -> Iterator[None]:
    """Say in one line that torch cannot trace an encoder: its own errors are pages long."""
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines()] or [""]
        told = [line.split(">: ", 1)[-1] for line in lines if line.startswith("<class ")]  # torch's summary
        reason = (told or [line for line in lines if line] or [type(error).__name__])[0][:200]
        raise UserError(
            f"{run.encoder_name} ({run.spec.describe()}) cannot be exported as {format}: {reason}; "
            f"use selfsup.load, or --format {other}, timm or safetensors"
        ) from error
