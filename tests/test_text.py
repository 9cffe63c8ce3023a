"""Text: sources, tokens, encoders, tasks, and every command on them."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.data.text import Texts, pieces, tokens
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.request import build, resolve
from selfsup.source import Labels
from selfsup.spec import tokenizer
from selfsup.tasks import find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.tasks.text.simcse import SimCSE
from selfsup.views.loader import batches
from selfsup.views.text.views import TextViews
from support.steady import quick_scratch, steady

pytest.importorskip("transformers")
DOCUMENTS = [topics[key] for key in sorted(topics)][:40]
QUICK = ["--steps", "2", "--batch-size", "8", "--size", "32", "--tokenizer", "wordpiece:600", "--precision", "float32"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, text in enumerate(DOCUMENTS[:16]):
        path = tmp_path / "texts" / ("even" if number % 2 == 0 else "odd") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text[:3000])
    return tmp_path / "texts"


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    assert main(["pretrain", str(folder), "--task", "bert", "--quiet", "--out", str(tmp_path / "run"), *QUICK]) == 0
    return tmp_path / "run"


def make(name: str, source: Texts, size: int = 32, **options: object):
    torch.manual_seed(0)
    kind, spec = find_task(name), source.spec(size, "wordpiece:600")
    return kind(build_encoder(kind.default_encoder, spec), **options)


def a_batch(task, source: Texts, size: int = 32, seed: int = 0):
    views = task.views(task.encoder.spec)
    stream = batches(task.samples(source), views, batch_size=size, seed=seed, start=0, steps=1, workers=0)
    return next(iter(stream)).batch


def test_a_folder_and_files_give_the_same_documents(folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    source = open_data(folder, "folders")
    texts = [source.read(i) for i in range(len(source))]
    assert source.path(0) == "even/0.txt"
    assert source.labels is not None
    assert source.labels.classes == ("even", "odd")
    table = pa.table({"body": texts, "topic": [source.labels.classes[i] for i in source.labels.ids]})
    pa.csv.write_csv(table, tmp_path / "a.csv")
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        other = open_data(f"text:{tmp_path / name}:body:topic")
        assert [other.read(i) for i in range(len(other))] == texts
        assert other.labels.classes == source.labels.classes
        with pytest.raises(UserError, match="unknown column"):
            open_data(f"text:{tmp_path / name}:bodi")
    (tmp_path / "lines.txt").write_text("one two three.\nfour five six.\n")
    lines = open_data(f"text:{tmp_path / 'lines.txt'}")
    assert (len(lines), lines.read(1)) == (2, "four five six.")


def test_tokens_are_those_of_the_library_and_are_found_again_by_content(folder: Path) -> None:
    source = open_data(folder)
    spec = source.spec(32, "wordpiece:600")
    ids, starts = source.tokens_of(spec.tokenizer)
    made = tokenizer.tokenizer(spec.tokenizer)
    assert ids[starts[3] : starts[4]].tolist() == made.encode(source.read(3), add_special_tokens=False).ids
    assert isinstance(ids, np.memmap)
    again = open_data(folder)
    assert again.fingerprint() == source.fingerprint()
    assert again.spec(32, "wordpiece:600") == spec
    (folder / "even" / "0.txt").write_text("Something else entirely.")
    changed = open_data(folder)
    assert changed.fingerprint() != source.fingerprint()
    at = changed.tokens_of(spec.tokenizer)
    assert made.decode(at.ids[at.starts[0] : at.starts[1]].tolist()).startswith("something else")


@pytest.mark.parametrize("kind", ["wordpiece:600", "bpe:600"])
def test_long_documents_are_tokenised_in_parts_as_in_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "word and other words " * 2000
    source = Texts.of([text, *DOCUMENTS])
    spec = source.spec(32, kind)
    whole = tokenizer.tokenizer(spec.tokenizer).encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(tokens, "PART", 1000)
    other = Texts.of([text])
    assert other.tokens_of(spec.tokenizer).ids.tolist() == whole


def test_pieces_cover_each_document_and_cross_none() -> None:
    source = Texts.of(DOCUMENTS)
    spec = source.spec(32, "wordpiece:600")
    ids, starts = source.tokens_of(spec.tokenizer)
    for spans in (pieces(source, spec), pieces(source, spec, sentences=True)):
        assert spans.lengths.max() <= spec.room
        for document in (0, 7):
            mine = np.flatnonzero(spans.owners == document)
            joined = np.concatenate([spans.read(int(i)) for i in mine])
            assert joined.tolist() == ids[starts[document] : starts[document + 1]].tolist()


def test_batches_hold_pieces_of_like_length_and_every_piece_once() -> None:
    source = Texts.of(DOCUMENTS)
    spec = source.spec(64, "wordpiece:600")
    spans = pieces(source, spec, sentences=True)
    steps = len(spans) // 16
    stream = list(batches(spans, TextViews(spec, "one"), batch_size=16, seed=0, start=0, steps=steps, workers=0))
    seen = torch.cat([fetched.batch["index"] for fetched in stream])
    assert len(seen.unique()) == len(seen) == steps * 16
    padding = sum(int((f.batch["x"] == spec.pad).sum()) for f in stream) / sum(f.batch["x"].numel() for f in stream)
    assert padding < 0.1


def test_pairs_go_on_in_the_document_or_come_from_another_one() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("bert", source, 64)
    pieces, spec = task.samples(source), task.encoder.spec
    batch = a_batch(task, source, 128)
    assert 0.3 < float((batch["next"] == 0).sum() / (batch["next"] >= 0).sum()) < 0.7
    for index, x, follows in zip(batch["index"].tolist(), batch["x"].tolist(), batch["next"].tolist(), strict=True):
        inside = [token for token in x if token not in (spec.pad, spec.cls)]
        cut = inside.index(spec.sep)
        first, second = inside[:cut], inside[cut + 1 : -1]
        own = pieces.read(index).tolist()
        assert own[: len(first)] == first
        if follows == 1:
            assert own[len(first) : len(first) + len(second)] == second
        assert (follows == -1) == (not second)


def test_masks_are_15_percent_80_10_10_and_differ_between_epochs() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("bert", source, 64)
    spec, pieces, views = task.encoder.spec, task.samples(source), task.views(task.encoder.spec)
    batch = views.fetch(pieces, np.arange(512), 0, 0).batch
    x, masked = task._mask(batch)
    words = (batch["x"] != spec.pad) & (batch["x"] != spec.cls) & (batch["x"] != spec.sep)
    assert not (masked & ~words).any()
    assert abs(float(masked.sum() / words.sum()) - 0.15) < 0.01
    assert abs(float((x[masked] == spec.mask).float().mean()) - 0.8) < 0.03
    assert abs(float((x[masked] == batch["x"][masked]).float().mean()) - 0.1) < 0.03
    assert torch.equal(x[~masked], batch["x"][~masked])
    other = views.fetch(pieces, np.arange(512), 0, 1).batch
    assert not torch.equal(task._mask({**batch, "noise": other["noise"]})[1], masked)
    short = int(pieces.lengths[:512].argmin())
    alone = views.fetch(pieces, np.array([short]), 0, 0).batch
    wide = alone["x"].shape[1]
    assert wide < x.shape[1]
    assert torch.equal(task._mask(alone)[0][0], x[short, :wide]), "masks do not depend on the batch"


def test_spans_are_near_each_other_within_one_document() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("declutr", source, 66)
    spec, indices = task.encoder.spec, np.arange(len(source))
    ids, starts = source.tokens_of(spec.tokenizer)
    lengths: dict[str, list[int]] = {"x": [], "positive": []}
    apart = []
    for epoch in range(30):
        batch = task.views(spec).fetch(source, indices, 0, epoch).batch
        for row, (start, stop) in enumerate(pairwise(starts)):
            places = []
            for key, long in lengths.items():
                inside = batch[key][row, 1 : int((batch[key][row] != spec.pad).sum()) - 1].numpy()
                fits = np.lib.stride_tricks.sliding_window_view(ids[start:stop], len(inside)) == inside
                found = np.flatnonzero(fits.all(1))
                assert len(found)
                places.append((int(found[0]), int(found[0]) + len(inside), len(found) == 1))
                if stop - start > spec.room:
                    long.append(len(inside))
            (begin, end, sure), (other, last, too) = places
            if sure and too:
                assert begin - (last - other) <= other <= end
                apart.append(last <= begin or other >= end)
    assert abs(np.mean(lengths["x"]) - (4 + 60 * 4 / 6)) < 1.5
    assert abs(np.mean(lengths["positive"]) - (4 + 60 * 2 / 6)) < 1.5
    assert 0 < np.mean(apart) < 0.2


def test_bert_starts_from_the_frequencies_of_the_tokens_and_keeps_what_it_learned() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("bert", source)
    task.samples(source)
    spec, frequency = task.encoder.spec, task.mlm_head.bias.exp()
    ids = np.concatenate([np.asarray(source.conform(spec).read(i)) for i in range(len(source))])
    counts = torch.from_numpy(np.bincount(ids, minlength=spec.vocabulary))
    torch.testing.assert_close(frequency, (counts + 1) / (len(ids) + spec.vocabulary), rtol=1e-4, atol=0)
    with torch.no_grad():
        task.mlm_head.bias.fill_(0.5)
    task.samples(source.take(np.arange(4)))
    assert (task.mlm_head.bias == 0.5).all()


def test_declutr_with_words_and_without_them() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("declutr", source, mask_ratio=0.0).eval()
    batch = a_batch(task, source, 8)
    with torch.no_grad():
        loss = task.loss(batch)
        first, second = (torch.nn.functional.normalize(task.encoder(batch[key]).double()) for key in ("x", "positive"))
        expected = torch.nn.functional.cross_entropy(first @ second.T / 0.05, torch.arange(8))
    torch.testing.assert_close(loss.value.double(), expected, rtol=1e-4, atol=1e-5)
    assert loss.chance == pytest.approx(np.log(8))
    with_words = make("declutr", source).loss(batch)
    assert with_words.chance == pytest.approx(np.log(8) + np.log(task.encoder.spec.vocabulary))
    with pytest.raises(UserError, match="--mask-ratio 0"):
        selfsup.pretrain(source, task="declutr", encoder="gpt-tiny", steps=1, size=32, quiet=True, out="no")


def test_whole_words_are_masked_together() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("bert", source, 64, whole_words=True)
    batch = a_batch(task, source, 64)
    masked = task._mask(batch)[1]
    later = task.continues[batch["x"]]
    spec = task.encoder.spec
    inside = later[:, 1:] & (batch["x"][:, :-1] != spec.cls) & (batch["x"][:, :-1] != spec.sep)
    assert inside.any()
    assert torch.equal(masked[:, 1:][inside], masked[:, :-1][inside])


def test_next_word_never_sees_what_comes() -> None:
    source = Texts.of(DOCUMENTS)
    task = make("next_word", source).eval()
    x = a_batch(task, source, 4)["x"]
    other = x.clone()
    other[:, 10:] = 7
    with torch.no_grad():
        torch.testing.assert_close(task._logits(x)[:, :9], task._logits(other)[:, :9])


def test_the_representation_does_not_depend_on_padding_and_long_texts_are_averaged() -> None:
    source = Texts.of(DOCUMENTS)
    spec = source.spec(32, "wordpiece:600")
    for name in ("bert-tiny", "gpt-tiny", "bert-tiny:cls"):
        encoder = build_encoder(name, spec).eval()
        with torch.no_grad():
            x = TextViews(spec).fetch(source, np.arange(4), 0, 0).batch["x"]
            short = x[:, :20].clone()
            wide = torch.cat([short, torch.full((4, 8), spec.pad)], 1)
            torch.testing.assert_close(encoder(short), encoder(wide), rtol=1e-4, atol=1e-5)
            windows = x[0].view(-1, 32)
            windows = windows[windows[:, 0] == spec.cls]
            there = (windows != spec.pad).unsqueeze(2)
            states = encoder.tokens(windows)
            mean = states[:, 0].mean(0) if name.endswith("cls") else (states * there).sum((0, 1)) / there.sum()
            torch.testing.assert_close(encoder(x)[0], mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["bert", "declutr", "next_word", "simcse"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(task: str, tmp_path: Path) -> None:
    source = Texts.of(DOCUMENTS)
    options = {"task": task, "steps": 6, "batch_size": 8, "size": 32, "tokenizer": "wordpiece:600", "quiet": True}
    whole = selfsup.pretrain(source, out=tmp_path / "whole", **options).load().state_dict()
    selfsup.pretrain(source, out=tmp_path / "parts", until=3, **options)
    more = 2 if task == "bert" else 0  # each process of it imports PyTorch
    parts = selfsup.pretrain(source, out=tmp_path / "parts", workers=more, **options).load().state_dict()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_simcse_needs_dropout_and_compares_first_tokens_with_cls(folder: Path) -> None:
    source = open_data(folder)
    spec = source.spec(32, "wordpiece:400")
    encoder = build_encoder("bert-tiny:cls", spec)
    task = SimCSE(encoder).eval()
    x = torch.cat([spec.example(1), spec.example(1).roll(3)])
    first = torch.nn.functional.normalize(task.head(encoder.tokens(x)[:, 0]), dim=1)
    assert task.loss({"x": x}).value.item() == pytest.approx(
        torch.nn.functional.cross_entropy(first @ first.T / 0.05, torch.arange(2)).item(), abs=1e-5
    )
    before = torch.get_rng_state()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with pytest.raises(UserError, match="simcse needs an encoder with dropout"):
        SimCSE(encoder)
    assert not encoder.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("repeated", "batch"), [(1000, 128), (40, None)])
def test_the_default_batch_counts_the_pieces_of_a_book(repeated: int, batch: int | None) -> None:
    book = Texts.of(["the cat sees the dog and the dog goes to the sea again . " * repeated])
    asked = resolve("next_word", book, {"size": 32, "tokenizer": "wordpiece:300"})
    built = build(asked)
    assert len(built.source) > 1 == len(book)
    assert built.batch_size == (batch or len(built.source)) <= 128


def test_init_starts_from_another_run(run: Path, folder: Path, tmp_path: Path) -> None:
    more = selfsup.pretrain(
        folder, task="simcse", init=run, steps=1, batch_size=8, lr=1e-9, warmup=0.0, weight_decay=0.0,
        out=tmp_path / "more", quiet=True,
    )  # fmt: skip
    before, after = selfsup.load(run).state_dict(), more.load().state_dict()
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    assert more.spec.tokenizer == selfsup.Run(run).spec.tokenizer
    with pytest.raises(UserError, match="brings its own size"):
        selfsup.pretrain(folder, task="simcse", init=run, size=64, out=tmp_path / "no", quiet=True)


def test_every_command_on_texts(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: object) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    rows = told("evaluate", run, "--data", folder, "--labels", "folders", "--shots", 2, "--draws", 2, "--quiet")
    assert "TF-IDF" in rows
    assert "from scratch" in rows
    assert "pixels" not in rows
    vectors = tmp_path / "v.parquet"
    assert "16 rows of 128 numbers" in told("embed", run, folder, "--out", vectors, "--quiet")
    text = (folder / "odd" / "3.txt").read_text()
    first = next(line for line in told("search", vectors, text, "--k", 3).splitlines() if "1.0000" in line)
    assert "odd/3.txt" in first
    told("search", vectors, text, "--k", 3, "--out", tmp_path / "sheet.png", "--data", folder)
    told("search", vectors, "0", "--k", 5, "--out", tmp_path / "more.png")
    assert all(Image.open(tmp_path / name).height > 100 for name in ("sheet.png", "more.png"))
    shown = told("show", "bert", folder, "--run", run, "--out", tmp_path / "a.png")
    assert "[MASK]" in shown
    assert "guess" in shown
    assert "TF-IDF" not in told("report", run, "--data", folder, "--labels", "folders", "--no-scratch")
    page = (run / "report.html").read_text()
    assert "of a vocabulary of" in page
    assert "masked:" in page


def test_texts_are_suggested_and_labelled(run: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    texts = [" ".join(text[:300].split()) for text in DOCUMENTS]
    lines.write_text("\n".join([*texts[:3], "", *texts[3:]]))
    few = tmp_path / "few.csv"
    selfsup.suggest(run, f"text:{lines}", n=6, out=few, sheet=tmp_path / "sheet.png", quiet=True)
    with few.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        whole = lines.read_text().splitlines()[int(row["path"])]
        assert whole.startswith(row["text"][:150])
        assert len(row["text"]) <= 200
        assert row["label"] == ""
    few.write_text("path,label\n" + "".join(f"{row['path']},{'ab'[i % 2]}\n" for i, row in enumerate(rows)))
    result = selfsup.label(run, f"text:{lines}", labels=str(few), out=tmp_path / "all.csv", quiet=True)
    assert result is not None
    assert result.given == 6
    assert len(result.labels) == len(open_data(f"text:{lines}"))
    assert all(sample.text for sample in result.next)
    again = selfsup.suggest(run, f"text:{lines}", n=2, labels=str(few), out=few, quiet=True)
    assert [sample.text for sample in again.samples] != []
    assert open_data(f"text:{lines}", str(few)).labels is not None


def test_compare_ranks_tasks_beside_tfidf(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steady(monkeypatch.setattr)
    quick_scratch(monkeypatch.setattr)
    result = selfsup.compare(
        folder, tasks="bert,simcse(pieces=True),next_word,rotation", labels="folders", minutes=0.02, shots=2,
        batch_size=8, size=32, out=tmp_path / "compared", quiet=True,
    )  # fmt: skip
    assert set(result.ranking) == {"bert", "simcse(pieces=True)", "TF-IDF", "untrained", "from scratch"}
    left_out = result.state.plan["left_out"]
    assert "needs a causal encoder" in left_out["next_word"]
    assert left_out["rotation"] == "it is for image, not text"
    assert "--encoder bert-tiny" in result.commands["bert"]
    bare = selfsup.compare(
        folder, tasks="simcse", minutes=0.01, batch_size=8, size=32, out=tmp_path / "bare", quiet=True
    )
    assert bare.ranking == ["simcse", "TF-IDF", "untrained"]


def test_export_loads_back(run: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    path = selfsup.export(run, format="transformers", out=tmp_path / "hf").path
    model, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    encoded = tokenizer(["the sun is up", "a word"], padding=True, return_tensors="pt")
    encoder = selfsup.load(run)
    with torch.no_grad():
        hidden = model(**encoded).last_hidden_state
        there = encoded["attention_mask"].unsqueeze(2)
        mean = (hidden * there).sum(1) / there.sum(1)
        torch.testing.assert_close(mean, encoder(encoded["input_ids"]), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="cannot be exported as timm"):
        selfsup.export(run, format="timm", out=tmp_path / "x.safetensors")


def test_a_bag_of_words_learns_and_knows_nothing_of_order_or_padding(folder: Path, tmp_path: Path) -> None:
    source = Texts.of(DOCUMENTS)
    spec = source.spec(32, "wordpiece:600")
    encoder = build_encoder("bag-of-words", spec)
    x = TextViews(spec).fetch(source, np.arange(4), 0, 0).batch["x"]  # several windows, padded between them too
    torch.nn.init.normal_(encoder.log_weight.weight)
    with torch.no_grad():
        z, weight = encoder(x), encoder.log_weight.weight[:, 0].exp()
        torch.testing.assert_close(encoder(x[:, torch.randperm(x.shape[1])]), z)
        torch.testing.assert_close(encoder(torch.cat([x, torch.full((4, 8), spec.pad)], 1)), z)
        words = x[0][x[0] != spec.pad]
        torch.testing.assert_close(z[0], (weight[words, None] * encoder.embedding[words]).mean(0))
    task = find_task("declutr")(encoder, mask_ratio=0.0, temperature=2.0)
    task.loss(a_batch(task, source)).value.backward()
    assert encoder.log_weight.weight.grad.abs().sum() > 0  # which words count is learned
    with pytest.raises(UserError, match="--mask-ratio 0"):
        find_task("declutr")(encoder)
    with pytest.raises(UserError, match="no pretrained weights"):
        build_encoder("bag-of-words", spec, True)
    options = {"encoder": "bag-of-words", "mask_ratio": 0.0, "steps": 2, "size": 32, "tokenizer": "wordpiece:600"}
    bag = selfsup.pretrain(folder, task="declutr", out=tmp_path / "bag", quiet=True, **options).folder
    with pytest.raises(UserError, match="cannot be exported as transformers"):
        selfsup.export(bag, format="transformers", out=tmp_path / "hf")
    _exported(bag, tmp_path)


def test_onnx(run: Path, tmp_path: Path) -> None:
    _exported(run, tmp_path)


def _exported(run: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    path = selfsup.export(run, format="onnx", out=tmp_path / "e.onnx").path
    session = ort.InferenceSession(str(path))
    x = torch.randint(5, 500, (3, 17))
    x[1, 9:] = 0
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, selfsup.load(run)(x).numpy(), rtol=1e-3, atol=1e-4)


def test_bad_input(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        return error

    out = ["--out", tmp_path / "no", "--quiet", "--steps", 1, "--batch-size", 4]
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.txt").write_text("")
    assert "holds no text" in told("pretrain", empty, "--task", "bert", *out)
    (empty / "b.txt").write_bytes(bytes(range(128, 256)) * 50)
    assert "not UTF-8" in told("pretrain", empty, "--task", "bert", *out)
    assert "takes at most 512 tokens" in told(
        "pretrain", folder, "--task", "bert", "--encoder", _small_model(tmp_path), "--size", 600, *out
    )
    assert "300 to 1,000,000" in told("pretrain", folder, "--task", "bert", "--tokenizer", "bpe:3", *out)
    assert "unknown tokenizer" in told("pretrain", folder, "--task", "bert", "--tokenizer", "words", *out)
    assert "unknown encoder" in told("pretrain", folder, "--task", "bert", "--encoder", "bert-tine", *out)
    assert "needs a causal encoder" in told("pretrain", folder, "--task", "next_word", "--encoder", "bert-tiny", *out)
    assert "bidirectional" in told("pretrain", folder, "--task", "bert", "--encoder", "gpt-tiny", *out)
    assert "of the kind text" in told("pretrain", folder, "--task", "rotation", *out)
    assert "of the kind image" in told("pretrain", "digits", "--task", "bert", *out)
    assert "unknown option of pretrain '--tokenizer'" in told("pretrain", "digits", "--tokenizer", "bpe", *out)
    assert "unknown option of pretrain '--channels'" in told(
        "pretrain", folder, "--task", "bert", "--channels", 3, *out
    )
    assert "one document" in told("pretrain", f"text:{_one_line(tmp_path)}", "--task", "bert", *out)
    labels = tmp_path / "l.csv"
    labels.write_text("path,label\neven/0.txt,a\nnothing.txt,b\n")
    assert "labels 1 paths" in told("pretrain", folder, "--task", "bert", "--labels", labels, *out)
    assert "no such file" in told("pretrain", "text:nowhere.jsonl", "--task", "bert", *out)


def _small_model(tmp_path: Path) -> Path:
    from transformers import BertConfig

    BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


def _one_line(tmp_path: Path) -> Path:
    (tmp_path / "one.txt").write_text("this is one sentence. " * 50)
    return tmp_path / "one.txt"


def test_strange_texts_are_counted_and_used(tmp_path: Path) -> None:
    root = tmp_path / "strange"
    root.mkdir()
    for number, text in enumerate(DOCUMENTS[:6]):
        (root / f"{number}.txt").write_text(text)
    (root / "bad.txt").write_bytes(b"caf\xe9 and \0 zero. " * 3)
    (root / "empty.txt").write_text(" \n")
    (root / "short.txt").write_text("only one sentence")
    source = open_data(root)
    assert [note.split(": ")[1].split(" ")[0] for note in source.notes] == ["3", "1", "1"]
    task = make("bert", source)
    batch = a_batch(task, source, 16)
    assert (batch["next"] == -1).any()
    alone = {**batch, "next": torch.full_like(batch["next"], -1)}
    assert task.loss(alone).value.isfinite()
    spec = task.encoder.spec
    fetched = TextViews(spec).fetch(source, np.arange(len(source)), 0, 0)
    assert [reason for _, reason in fetched.skipped] == ["empty"]
    assert source.spec(32, "wordpiece:100000").vocabulary < 100_000


def test_a_tokenizer_file_of_another_tool(tmp_path: Path) -> None:
    source = Texts.of(DOCUMENTS)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.tokenizer_json(source.spec(32, "bpe:700").tokenizer).replace("[CLS]", "<s>"))
    spec = source.spec(32, str(path))
    assert tokenizer.tokenizer(spec.tokenizer).id_to_token(spec.cls) == "<s>"
    path.write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer file"):
        source.spec(32, str(path))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    source = Texts.of(DOCUMENTS[:3])
    spec = source.spec(32, "wordpiece:600")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'selfsup\[text\]'"):
        build_encoder("bert-tiny", spec)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'selfsup\[text\]'"):
        Texts.of(DOCUMENTS[3:6]).spec(32)


def test_images_do_not_go_into_an_encoder_of_texts(run: Path) -> None:
    images = Arrays(np.zeros((8, 16, 16, 3), np.uint8), Labels.of(list("aabbaabb")))
    with pytest.raises(UserError, match="holds no texts"):
        selfsup.embed(run, images, out=run / "x.parquet")
    with pytest.raises(UserError, match="for data of the kind text"):
        resolve_task("bert", images, {})
