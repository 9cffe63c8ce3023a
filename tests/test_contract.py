"""What every task in the registry keeps to."""

import math
import pickle
from itertools import islice
from pathlib import Path

import pytest
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.exporters import exporter
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.image import rotation
from selfsup.tasks.resolve import resolve_task
from selfsup.train.device import make_fabric
from selfsup.train.fit import fit
from selfsup.train.micro import forward_backward
from selfsup.train.optim import build_optimizer
from selfsup.train.plan import Plan
from selfsup.views.image import PRESETS
from selfsup.views.loader import batches
from support.sources import images as toy_images
from support.sources import toy
from support.tasks import OPTIONS, SPEC, first_batch, spec_of

GAMES = {"bigan"}  # the sum of two players' losses has no reason to fall
START = {"mae": {"normalize": True}}  # the only way in which it states one
NO_CHANCE = {  # no closed form, and why
    **dict.fromkeys(
        ("byol", "byola", "simsiam", "ijepa", "vjepa"), "the best guess that ignores the input is perfect: a collapse"
    ),
    **dict.fromkeys(
        ("context_encoder", "data2vec", "data2vec_audio", "cc_rig", "denoising", "rig", "simmim", "vae"),
        "the variance of the targets",
    ),
    "bigan": "4 ln 2 is where both players are equal, and a good end",
    "combined": "that of denoising",
    **dict.fromkeys(("dbc", "deepmdp"), "the variance of the rewards, and latents that collapse have no other loss"),
    **dict.fromkeys(
        ("empssl", "lejepa", "visreg"), "it depends on where the embeddings collapse, and on the size of the batch"
    ),
}
FAR = {  # further than a tenth from chance at the start, and why
    "bert": "the bias of its output starts at the frequencies of the tokens, and chance knows none",
    "colorization": "a colour has the weight of its nearest bin, but their mean is 1 for the smoothed frequencies",
    **dict.fromkeys(("dino", "dinov2"), "low temperatures: untrained prototypes are chosen with confidence"),
    **dict.fromkeys(("hubert", "wav2vec2"), "the penalty of the latents is added, and chance is of the rest"),
    "curl": "W begins between 0 and 1, as in the paper, which makes large products of latents",
    "denseclr": "as moco, and a place of an untrained encoder is most alike to its positive by choice",
    "inverse": "the outputs of an untrained head vary, which a squared error adds to the variance of the actions",
    "moco": "both encoders are equal, and the queue holds random vectors, so the positive is the nearest key",
    "next_word": "the output is tied to the embeddings: an untrained encoder repeats the token that it sees",
    "stdim": "the scalar products of untrained features are far apart, and are not divided by their length",
    "video_colorization": "an untrained encoder copies from places that look alike, as the neighbouring ones do",
    "grasp2vec": "its products are not normalized, and the maps of an untrained encoder have a size",
    "tcn_single": "what is near in time looks alike, even to an untrained encoder",
    "tracking": "a thing and the patch that it is in look alike, even to an untrained encoder",
    "simcse": "dropout changes an untrained encoding little, so the same sentence is the nearest",
}


@pytest.fixture
def source(request: pytest.FixtureRequest, images: Arrays) -> Source:
    """Samples of the kind that the task of the test is for."""
    name = request.node.callspec.params["name"] if hasattr(request.node, "callspec") else "rotation"
    return images if find_task(name).kind in ("image", "any") else toy(find_task(name).kind)


@pytest.fixture(scope="module")
def images() -> Arrays:
    return toy_images()


HALVES = (torch.bfloat16, torch.float16)
PLAIN = ("rotation", "bert", "dino")  # of the tasks that keep the encoder as it is, or an EMA of it, these are exported
EMA = ("dino", "dinov2", "ibot", "ijepa")


def keeps_the_encoder(name: str) -> bool:
    return find_task(name).representation is Task.representation or name in EMA


def make(name: str, source: Source, seed: int = 0, **options: object) -> Task:
    torch.manual_seed(seed)
    _, kind, hyperparameters, _ = resolve_task(name, source, {**OPTIONS.get(name, {}), **options})
    return kind(build_encoder(kind.small_encoder, spec_of(source, kind)), **hyperparameters)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", TASKS)
def test_loss_at_the_start_is_near_its_chance_value(name: str, source: Source) -> None:
    task = make(name, source, **START.get(name, {}))
    loss = task.loss(first_batch(task, source, 32))
    assert loss.value.ndim == 0
    assert loss.value.requires_grad
    assert not any(metric.requires_grad for metric in loss.metrics.values())
    assert (loss.chance is None) == (name in NO_CHANCE)
    if loss.chance is not None:
        assert (abs(loss.value.item() - loss.chance) < 0.1 * loss.chance) == (name not in FAR)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", sorted(TASKS.keys() - GAMES))
def test_loss_falls_on_toy_data(name: str, source: Source) -> None:
    """One batch, again and again; without `after_step`, so that what an EMA encoder or a queue asks stays the same."""
    task = make(name, source)
    batch = first_batch(task, source, 8)
    optimizer = build_optimizer(task, "adamw", 2e-3, 0.0)
    losses: list[float] = []
    while len(losses) < 100 and (not losses or losses[-1] >= 0.8 * losses[0]):
        optimizer.zero_grad()
        loss = task.loss(batch).value
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", TASKS)
def test_gradients_reach_every_trained_parameter(name: str, source: Source) -> None:
    task = make(name, source)
    task.loss(first_batch(task, source)).value.backward()
    for key, parameter in task.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == parameter.requires_grad, key


@pytest.mark.parametrize("name", TASKS)
def test_every_sample_has_panels(name: str, source: Source) -> None:
    task = make(name, source).eval()
    batch = first_batch(task, source)
    for guess in (False, True):
        rows = task.panels(batch, guess=guess)
        for panel in (panel for row in rows for panel in row):
            if isinstance(panel.content, str):
                assert panel.content
            elif find_task(name).kind not in ("audio", "trajectory"):
                assert panel.content.shape[-3] == SPEC.channels
            else:
                assert spec_of(source, type(task)).draw(panel.content)


# How the labels of a task differ between samples. All others: in the captions of a column of panels.
PAIRED = {  # the label is which view, or which place in a bank, belongs to the sample
    *(
        "barlow",
        "byol",
        "byola",
        "declutr",
        "deepcluster",
        "denseclr",
        "dino",
        "instance",
        "lejepa",
        "moco",
        "mocov3",
        "simclr",
        "simsiam",
    ),
    *("curl", "empssl", "grasp2vec", "nnclr", "stdim", "swav", "tracking", "vicreg", "visreg"),
}
MASKED = {
    "data2vec",
    "data2vec_audio",
    "hubert",
    "ijepa",
    "mae",
    "simmim",
    "videomae",
    "vjepa",
    "wav2vec2",
}  # the label is what a mask hides, and the mask is drawn
OWN = {  # the label is the sample itself, or a part of it
    *(
        "bigan",
        "cc_rig",
        "colorization",
        "context_encoder",
        "counting",
        "cpc",
        "cpc_audio",
        "denoising",
        "rig",
        "simcse",
        "split_brain",
        "vae",
        "video_colorization",
    ),
}
ROTATED = {"rotation", "combined"}  # each sample is shown in all rotations, so that its labels are all of them


def varies(column: list[object]) -> bool:
    first = column[0]
    return any(x != first if isinstance(x, str) else not torch.equal(x, first) for x in column)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", TASKS)
def test_labels_differ_between_samples(name: str, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(name, source)
    batch = dict(first_batch(task, source))
    if name in PAIRED:  # wrong labels, which are those of the neighbour, have another loss
        right = task.loss(batch).value
        key = next(key for key in ("positive", "next_obs", "object", "x") if key in batch)
        key = "index" if key == "x" and batch["x"].ndim < 5 else key
        wrong = batch[key].roll(1, 0)
        if key == "x":  # the first of the two, or of each two, stays
            wrong[..., 0, :, :, :] = batch["x"][..., 0, :, :, :]
        changed = task.loss({**batch, key: wrong}).value
        assert abs(changed - right) > 1e-3 * abs(right)
    elif name in ROTATED:
        seen: list[torch.Tensor] = []
        classified = rotation.classified
        monkeypatch.setattr(rotation, "classified", lambda logits, y: seen.append(y) or classified(logits, y))
        task.loss(batch)
        count = sum(len(y) for y in seen)
        assert torch.cat(seen).bincount().tolist() == [count // 4] * 4
    else:
        if name in MASKED:  # the same image for all: only the draws differ
            key = "clip" if "clip" in batch else "x"
            batch[key] = batch[key][:1].expand_as(batch[key])
        columns = list(zip(*task.eval().panels(batch), strict=True))
        assert any(varies([p.content if name in MASKED | OWN else p.caption for p in column]) for column in columns)


@pytest.mark.parametrize("name", TASKS)
def test_views_pickle_and_do_not_depend_on_workers(name: str, source: Source) -> None:
    task = make(name, source)
    views = pickle.loads(pickle.dumps(task.views(spec_of(source, type(task)))))
    assert len(pickle.dumps(views)) < 10_000, "views must not carry weights"
    streams = [
        batches(task.samples(source), views, batch_size=24, seed=3, start=1, steps=5, workers=workers)
        for workers in (0, 1, 2)
    ]
    for fetched in zip(*(islice(stream, 4) for stream in streams), strict=True):
        for key, value in fetched[0].batch.items():
            assert all(torch.equal(value, other.batch[key]) for other in fetched[1:]), key


@pytest.mark.parametrize("name", TASKS)
def test_loss_changes_no_buffer_except_of_batch_norm(name: str, source: Source) -> None:
    task = make(name, source)
    batch = first_batch(task, source)
    before = {key: value.clone() for key, value in task.named_buffers()}
    task.loss(batch)
    for key, value in task.named_buffers():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(before[key], value), key


@pytest.mark.parametrize("name", TASKS)
def test_micro_order_of_samples_does_not_change_the_loss(name: str, source: Source) -> None:
    task = make(name, source)
    batch = first_batch(task, source)
    if any(isinstance(module, torch.nn.Dropout) for module in task.modules()):
        task.eval()  # dropout is drawn by place
    turned = {key: value.flip(0) for key, value in batch.items()}
    torch.testing.assert_close(task.loss(batch).value, task.loss(turned).value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_resumed_equals_uninterrupted_bit_for_bit(name: str, source: Source, tmp_path: Path) -> None:
    """Everything comes from the checkpoint: the object that resumes was built with other weights."""
    steps = 4 if find_task(name).keeps_samples else 2  # then the interruption is at the end of an epoch

    def train(seed: int, folder: str, until: int) -> dict[str, torch.Tensor]:
        task = make(name, source, seed)
        plan = Plan(steps, 32 if task.keeps_samples else 8, lr=1e-3)
        mine, views = task.samples(source), task.views(spec_of(source, type(task)))
        (tmp_path / folder).mkdir(exist_ok=True)
        fit(
            task, mine, views, plan, make_fabric("cpu", "float32"),
            folder=tmp_path / folder, workers=0, until=until, quiet=True,
        )  # fmt: skip
        return task.state_dict()

    whole = train(0, "whole", steps)
    half = train(0, "halves", steps // 2)
    halves = train(1, "halves", steps)
    assert all(torch.equal(whole[key], value) for key, value in halves.items()), [
        key for key, value in halves.items() if not torch.equal(whole[key], value)
    ]
    assert any(not torch.equal(half[key], value) for key, value in halves.items())


@pytest.mark.parametrize("name", [name for name in TASKS if name in PLAIN or not keeps_the_encoder(name)])
def test_exported_encoder_equals_the_eager_one(name: str, source: Source, tmp_path) -> None:
    run = selfsup.pretrain(
        source,
        task=name,
        encoder=find_task(name).small_encoder,
        steps=2,
        batch_size=8,
        out=tmp_path / "r",
        quiet=True,
        **OPTIONS.get(name, {}),
    )
    kept, loaded = dict(run.load_task()[0].representation().named_parameters()), run.load()
    assert all(torch.equal(kept[key], value) for key, value in loaded.named_parameters())
    assert all(parameter.requires_grad for parameter in loaded.parameters()), "it can be trained further"
    path = selfsup.export(run, format="torch", out=tmp_path / "encoder.pt2").path
    program = torch.export.load(path).module()
    eager, example = exporter(run.spec.kind).program(loaded, run.spec)
    for count in (1, 5):
        x = example[:1].expand(count, *example.shape[1:])
        x = 0.1 * torch.randn_like(x) if x.is_floating_point() else x.contiguous()
        torch.testing.assert_close(program(x), eager(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_the_docstring_names_the_batch_keys(name: str, source: Source) -> None:
    task = make(name, source)
    assert task.__doc__
    for key in first_batch(task, source):
        assert key == "index" or f"`{key}`" in task.__doc__


def test_chance_of_rotation_is_ln_4(source: Source) -> None:
    task = make("rotation", source)
    assert task.loss(first_batch(task, source)).chance == pytest.approx(math.log(4))


PROPOSERS = ("adapt.py", "demo.py", "pretrain.py", "sklearn.py", "start.py")


def test_no_task_is_named_outside_of_its_file(request: pytest.FixtureRequest) -> None:
    """The loop, the views and the evaluation know no method (what the command line proposes may)."""
    home = request.config.rootpath / "src" / "selfsup"
    for path in home.rglob("*.py"):
        if path.is_relative_to(home / "tasks") or path.name in PROPOSERS:
            continue
        if path.name == "wave_transformer.py":  # wav2vec2 and hubert are models of transformers too
            continue
        for name in TASKS.keys() - {"supervised", "s4l", *PRESETS}:  # rows of the evaluation; views by name
            assert f'"{name}"' not in path.read_text(), f"{path} names {name}"


@pytest.mark.parametrize("name", TASKS)
def test_bfloat16_is_near_float32(name: str, source: Source) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        task, fabric = make(name, source), make_fabric("cpu", precision)
        task.progress = 0.5
        torch.manual_seed(0)
        loss = forward_backward(fabric.setup_module(task), task, first_batch(task, source, 8), fabric, None)
        task.after_step()
        losses.append(float(loss.value))
        assert loss.value.dtype == torch.float32
        tensors = [*task.state_dict().values(), *(p.grad for p in task.parameters() if p.grad is not None)]
        assert all(tensor.isfinite().all() and tensor.dtype not in HALVES for tensor in tensors)
    jumps = name == "tcn_single"  # which negative is the nearest beyond a positive may change with the last digit
    assert losses[1] == pytest.approx(losses[0], rel=0.15 if jumps else 0.05)
