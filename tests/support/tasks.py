"""Every task of the registry on toy data: built small, its first batch, and how tensors of two ways compare."""

import atexit
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from selfsup.encoders import build_encoder
from selfsup.source import Source
from selfsup.spec import ClipSpec, ImageSpec, WaveSpec
from selfsup.task import Task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.checkpoint import save_tensors
from selfsup.views.loader import batches

SPEC, CLIPS = ImageSpec.of(32, 3), ClipSpec.of(16, 3, frames=4, fps=10.0)
SOUNDS = {
    "logmel": WaveSpec(16_000, 0.32, "logmel", 32, mean=-7.0, std=2.5),
    "wave": WaveSpec(16_000, 0.32, "wave", std=0.085),
}
FILES = Path(tempfile.mkdtemp())  # that tasks cannot do without
atexit.register(shutil.rmtree, FILES, ignore_errors=True)


def table() -> str:
    """Return a table of what is known of 64 samples by their numbers: a camera and a shade of each, an hour of most."""
    rows = [f"{i},{'abc'[i % 3]},{'dark' if i % 2 else 'light'},{'' if i % 8 == 5 else 0.5 * i}" for i in range(64)]
    path = FILES / "table.csv"
    path.write_text("\n".join(["path,camera,shade,hour", *rows]))
    return str(path)


def teacher(name: str = "teacher", seed: int = 1) -> str:
    """Return a file with the weights of an encoder, which are random: tests do not ask what a student learns."""
    path, spec = FILES / f"{name}.safetensors", ImageSpec.of(16, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_tensors(
            path, build_encoder("nature-cnn", spec).state_dict(), {"encoder": "nature-cnn", "spec": spec.to_json()}
        )
    return str(path)


REQUIRED: dict[str, dict[str, object]] = {
    "distill": {"teacher": teacher()},
    "metadata": {"table": table(), "keep": "shade,hour", "suppress": "camera"},
}
OPTIONS: dict[str, dict[str, object]] = {  # smaller than the default where few steps on 64 images are too few for it
    **REQUIRED,
    "cpc": {"prediction_steps": 2, "grid": 4, "out_dim": 64, "num_layers": 2},
    "diet": {"smoothing": 0.4},  # 0.8 leaves little to learn of 64 samples
    "dino": {"num_prototypes": 64, "hidden_dim": 64, "out_dim": 32},
    "dinov2": {"num_prototypes": 64, "hidden_dim": 64, "out_dim": 32},
    "ibot": {"num_prototypes": 64, "hidden_dim": 64, "out_dim": 32},
    "grasp2vec": {"object_camera": "back"},
    "mae": {"normalize": False},  # of patches of noise
    "moco": {"temperature": 0.4},  # its queue is no longer than the 64 samples
    "odd_one_out": {"num_pieces": 3, "length": 4},
    "tracking": {"gap": 8},
    "swav": {"num_prototypes": 60, "queue_size": 0},
}


def spec_of(source: Source, task: type[Task] = Task):
    specs = {
        "image": lambda: SPEC,
        "text": lambda: source.spec(32, "wordpiece:400"),
        "video": lambda: CLIPS,
        "audio": lambda: SOUNDS[task.data_defaults.get("form", "logmel")],
        "trajectory": lambda: source.spec(**task.data_defaults),
    }
    return specs[source.kind]()


def first_batch(task: Task, source: Source, size: int = 16):
    views = task.views(spec_of(source, type(task)))
    fetched = next(iter(batches(task.samples(source), views, batch_size=size, seed=0, start=0, steps=1, workers=0)))
    return views.finish(fetched.batch)


def without_batch_norm(encoder: nn.Module) -> nn.Module:
    """Replace BatchNorm, whose statistics a micro-batch does not have."""
    for name, module in list(encoder.named_modules()):
        parent = encoder.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.BatchNorm2d):
            setattr(parent, name.rpartition(".")[2], nn.GroupNorm(4, module.num_features))
    return encoder


def built(name: str, source):
    """Return the task without dropout, which is drawn by place, and without BatchNorm in the encoder."""
    torch.manual_seed(0)
    _, kind, options, _ = resolve_task(name, source, OPTIONS.get(name, {}))
    task = kind(without_batch_norm(build_encoder(kind.small_encoder, spec_of(source, kind))), **options)
    for module in task.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return task


def compare(found, wanted) -> str:
    if found.keys() != wanted.keys():
        return f"other tensors: {sorted(found.keys() ^ wanted.keys())}"
    for key, value in wanted.items():
        error = (found[key].double().cpu() - value.double()).abs().max() / value.double().abs().max().clamp_min(1e-6)
        if error > 1e-5:
            return f"{key}: off by {error:.1e} of the largest"
    return ""
