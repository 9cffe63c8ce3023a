"""`export`: the encoder in the formats of other tools. Imports torch only when it is called."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from selfsup.base.checks import check_new_file, check_new_folder
from selfsup.base.printing import Printable
from selfsup.errors import UserError, need, unknown
from selfsup.run import Run

if TYPE_CHECKING:
    RunName = str | os.PathLike[str] | Run
    Target = str | os.PathLike[str]
else:
    RunName = Target = str  # what the command line can give

Format = Literal["safetensors", "timm", "transformers", "torch", "onnx"]


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
        format: safetensors (a state dict), timm (a state dict with timm's names), transformers (a folder with the model
            and its tokenizer), torch (a torch.export program) or onnx. The programs take (B, C, H, W) normalized
            float32, or of texts ids (B, T), with any B and return (B, dim).
        out: The file (transformers: the folder) to write; by default encoder.SUFFIX (timm: encoder-timm.safetensors)
            in the current folder.

    Raises:
        UserError: For an encoder that the format cannot hold, or a missing package.
    """
    import torch

    from selfsup.base.writing import write_atomically
    from selfsup.exporters import COMMON, exporter
    from selfsup.train.checkpoint import save_tensors

    if format not in get_args(Format):
        raise unknown("format", format, get_args(Format))
    run = run if isinstance(run, Run) else Run(run)
    spec = run.spec
    out_of = exporter(spec.kind)
    formats = {**COMMON, **out_of.FORMATS}
    if format not in formats:
        raise UserError(f"{run.encoder_name} cannot be exported as {format}; give --format {', '.join(formats)}")
    suffix, own = formats[format], format in out_of.FORMATS
    path = Path(out) if out is not None else Path((f"encoder-{format}" if own else "encoder") + suffix)
    (check_new_file if suffix else check_new_folder)(path)
    encoder: Any = run.load()
    about = {"encoder": run.encoder_name, "task": run.task, **spec.to_json()}
    if own:
        return Exported(path, out_of.write(encoder, spec, run.encoder_name, format, path, about))
    example, open_dims = spec.example(2), out_of.open_dims(spec)
    if format == "safetensors":
        save_tensors(path, encoder.state_dict(), about)
        return Exported(path, "load: selfsup.load(run), or safetensors.torch.load_file(path) into the same encoder")
    if format == "torch":
        program = torch.export.export(encoder, (example,), dynamic_shapes=(open_dims,))
        program_bytes = _program_bytes(program, about)
        write_atomically(path, program_bytes)
        return Exported(path, f"load: torch.export.load({str(path)!r}).module()")
    need("onnx", "onnx")
    need("onnxscript", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(encoder, (example,), dynamo=True, dynamic_shapes=(open_dims,), verbose=False)
    proto = made.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "selfsup", json.dumps(about)
    write_atomically(path, proto.SerializeToString())
    return Exported(path, f"load: onnxruntime.InferenceSession({str(path)!r}).run(None, {{'x': x}})")


def _program_bytes(program: Any, about: dict[str, Any]) -> bytes:
    import io

    import torch

    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"selfsup.json": json.dumps(about)})
    return buffer.getvalue()
