"""`export`: the encoder in the formats of other tools. Imports torch only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from selfsup.base.paths import user_path
from selfsup.commands.given import RunName, Target
from selfsup.errors import unknown
from selfsup.run import Run

if TYPE_CHECKING:
    from selfsup.exporters import Exported

Format = Literal["safetensors", "timm", "transformers", "torch", "onnx"]
Output = Literal["representation", "maps"]


def export(
    run: RunName,
    /,
    *,
    format: Format = "safetensors",
    output: Output = "representation",
    out: Target | None = None,
) -> Exported:
    """Write the encoder of a run for use without selfsup.

    Args:
        run: A run folder.
        format: safetensors (a state dict), timm (a state dict, and the line that makes the same model with timm alone),
            transformers (a folder with the model and its tokenizer), torch (a torch.export program) or onnx. The
            programs take (B, C, H, W) normalized float32, or of texts ids (B, T), with any B and return (B, dim).
        output: What the programs return: representation, or of images maps, the patch features (B, D, h, w) of images
            of any size (B, C, H, W), in whole patches.
        out: The file (transformers: the folder) to write; by default encoder.SUFFIX (timm: encoder-timm.safetensors)
            in the current folder.

    Raises:
        UserError: For an encoder that the format cannot hold, or a missing package.
    """
    from selfsup.exporters import write_export

    if format not in get_args(Format):
        raise unknown("format", format, get_args(Format))
    if output not in get_args(Output):
        raise unknown("output", output, get_args(Output))
    run = run if isinstance(run, Run) else Run(run)
    return write_export(run, format, None if out is None else user_path(out), output)
