"""`export`: the encoder in the formats of other tools. Imports torch only when it is called."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from selfsup.checks import check_new_file
from selfsup.errors import UserError, need, unknown
from selfsup.printing import Printable
from selfsup.run import Run

if TYPE_CHECKING:
    RunName = str | os.PathLike[str] | Run
    Target = str | os.PathLike[str]
else:
    RunName = Target = str  # what the command line can give

Format = Literal["safetensors", "timm", "torch", "onnx"]
SUFFIX = {"safetensors": ".safetensors", "timm": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


@dataclass(frozen=True)
class Exported(Printable):
    """What `export` wrote, and how to load it."""

    path: Path
    how: str

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "how": self.how}

    def __rich__(self) -> str:
        return f"{self.path}\n{self.how}"


def export(run: RunName, /, *, format: Format = "safetensors", out: Target | None = None) -> Exported:
    """Write the encoder of a run for use without selfsup.

    Args:
        run: A run folder.
        format: safetensors (a state dict), timm (a state dict with timm's names), torch (a torch.export program) or
            onnx. The programs take (B, C, H, W) normalised float32 with any B and return (B, dim).
        out: The file to write; by default encoder.SUFFIX (timm: encoder-timm.safetensors) in the current folder.

    Raises:
        UserError: For an encoder that the format cannot hold, or a missing package.
    """
    import torch

    from selfsup.encoders.timm_model import TimmModel
    from selfsup.train.checkpoint import save_tensors, write_atomically

    if format not in get_args(Format):
        raise unknown("format", format, get_args(Format))
    run = run if isinstance(run, Run) else Run(run)
    stem = "encoder-timm" if format == "timm" else "encoder"
    path = Path(out) if out is not None else Path(stem + SUFFIX[format])
    check_new_file(path)
    encoder: Any = run.load()
    spec = run.spec
    about = {"encoder": run.encoder_name, "task": run.task, **asdict(spec)}
    example = torch.zeros(2, spec.channels, spec.size, spec.size)
    if format == "safetensors":
        save_tensors(path, encoder.state_dict(), about)
        return Exported(path, "load: selfsup.load(run), or safetensors.torch.load_file(path) into the same encoder")
    if format == "timm":
        if not isinstance(encoder, TimmModel):
            raise UserError(f"{run.encoder_name} is no timm model; export it as safetensors, torch or onnx")
        save_tensors(path, encoder.model.state_dict(), about)
        note = "" if encoder.stem == "standard" else "; its stem is the small one, see docs/encoders.md"
        return Exported(
            path, f"load: timm.create_model({run.encoder_name!r}, num_classes=0, in_chans={spec.channels}){note}"
        )
    batch = {0: torch.export.Dim("batch", min=1)}
    if format == "torch":
        program = torch.export.export(encoder, (example,), dynamic_shapes=(batch,))
        program_bytes = _program_bytes(program, about)
        write_atomically(path, program_bytes)
        return Exported(path, f"load: torch.export.load({str(path)!r}).module()")
    need("onnx", "onnx")
    need("onnxscript", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(encoder, (example,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    proto = made.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "selfsup", json.dumps(about)
    write_atomically(path, proto.SerializeToString())
    return Exported(path, f"load: onnxruntime.InferenceSession({str(path)!r}).run(None, {{'x': pictures}})")


def _program_bytes(program: Any, about: dict[str, Any]) -> bytes:
    import io

    import torch

    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"selfsup.json": json.dumps(about)})
    return buffer.getvalue()
