"""Text files as people have them: encodings, containers, columns, and scripts that the tokenizer must not damage."""

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from selfsup.data.encoding import encoding_of, file_encoding, to_utf8
from selfsup.data.open import open_data
from selfsup.data.text import Texts
from selfsup.data.text.sources import open_query
from selfsup.errors import UserError
from selfsup.spec import tokenizer as tokenizers

pytest.importorskip("tokenizers")
SENTENCE = "The quick brown fox jumps over the lazy dog, number {}, and it is a Käse day. "
DOCUMENTS = [SENTENCE.format(number).strip() for number in range(12)]
ROWS = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(DOCUMENTS)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def read(source: Any) -> list[str]:
    return [source.read(i) for i in range(len(source))]


# Encodings

ENCODINGS = {
    "utf-8": "", "utf-8-sig": "", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32",
    "utf-32-le": "UTF-32", "utf-32-be": "UTF-32", "cp1252": "Windows-1252",
}  # fmt: skip


def a_folder(encoding: str) -> Texts:
    Path("f").mkdir()
    for number, text in enumerate(DOCUMENTS):
        Path(f"f/{number:02d}.txt").write_bytes(text.encode(encoding))
    return open_data("f")


def lines(encoding: str) -> Texts:
    Path("l.txt").write_bytes("\r\n".join(DOCUMENTS).encode(encoding))
    return open_data("text:l.txt")


def objects(encoding: str) -> Texts:
    Path("l.jsonl").write_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(encoding))
    return open_data("l.jsonl")


def a_list(encoding: str) -> Texts:
    Path("l.json").write_bytes(json.dumps(ROWS, ensure_ascii=False, indent=1).encode(encoding))
    return open_data("l.json")


def a_table(encoding: str) -> Texts:
    Path("l.tsv").write_bytes(("label\ttext\n" + "".join(f"x\t{text}\n" for text in DOCUMENTS)).encode(encoding))
    return open_data("l.tsv")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("way", [a_folder, lines, objects, a_list, a_table])
def test_encodings_are_read_right_and_said(way: Any, encoding: str) -> None:
    source = way(encoding)
    assert read(source) == DOCUMENTS
    assert ENCODINGS[encoding] in "".join(source.notes)
    assert bool(source.notes) == bool(ENCODINGS[encoding])
    Path("query.txt").write_bytes(DOCUMENTS[0].encode(encoding))
    assert open_query("query.txt").read(0) == DOCUMENTS[0]


@pytest.mark.parametrize("encoding", ["cp1251", "shift-jis", "gb18030", "big5", "euc-kr", "koi8-r"])
def test_other_encodings_are_refused_with_the_remedy(encoding: str) -> None:
    text = {"cp1251": "Привет, мир", "koi8-r": "Привет, мир", "euc-kr": "안녕하세요 여러분"}.get(
        encoding, "日本語 中文"
    )
    Path("l.txt").write_bytes((text + "\n").encode(encoding, errors="ignore") * 40)
    with pytest.raises(UserError, match=r"not UTF-8; convert it \(iconv"):
        open_data("text:l.txt")


def test_a_damaged_file_stays_utf8_and_is_counted() -> None:
    text = "Käse und Öl, schöne Grüße. " * 40
    Path("f").mkdir()
    Path("f/0.txt").write_bytes(text.encode() + b"\xe9\xff and more")
    source = open_data("f")
    assert source.read(0).startswith("Käse und Öl")
    assert "2 bytes are not UTF-8" in "".join(source.notes)
    Path("g").mkdir()
    Path("g/0.txt").write_bytes(b"\xff\xfe" + text.encode("utf-16-le") + b"\x00\xd8 \x00")
    assert "1 bytes" in "".join(open_data("g").notes)


def test_the_rule_does_not_depend_on_blocks() -> None:
    raw = (DOCUMENTS[0] * 9).encode()
    assert encoding_of(raw[i : i + 1] for i in range(len(raw))) == "utf-8"
    assert encoding_of([b"caf\xe9 ", b"au lait, s'il vous pla\xeet"]) == "cp1252"
    assert encoding_of([]) == encoding_of([b""]) == encoding_of([b"\0" * 64]) == "utf-8"
    assert to_utf8(b"\xef\xbb\xbfa", "utf-8") == b"a"
    Path("x").write_bytes(b"")
    assert file_encoding("x") == "utf-8"


# Containers and columns


def test_rows_are_read_from_every_container() -> None:
    table = pa.table({"text": DOCUMENTS, "label": ["ab"[i % 2] for i in range(12)]})
    pa.parquet.write_table(table, "t.parquet")
    Path("t.json").write_text(json.dumps(ROWS))
    objects = "\n".join(map(json.dumps, ROWS))
    for name in ("t.jsonl", "t.ndjson", "lines.json", "a:b.jsonl", "2024:01.ndjson"):
        Path(name).write_text(objects)
    for name, mark in {"t.csv": ",", "semicolons.csv": ";", "t.tsv": "\t", "t.tab": "\t"}.items():
        Path(name).write_text(mark.join(["text", "label"]) + "\n" + "".join(
            f'"{row["text"]}"{mark}{row["label"]}\n' for row in ROWS
        ))  # fmt: skip
    for name in sorted(path.name for path in Path().iterdir() if path.is_file()):
        for data in (name, f"text:{name}", f"{name}:text", f"text:{name}:text:label"):
            source = open_data(data)
            assert read(source) == DOCUMENTS, data
            assert (source.labels is not None) == data.endswith(":label")
            assert bool(source.notes) == (name == "semicolons.csv")
    Path("a:b.txt").write_text("\n".join(DOCUMENTS))
    assert read(open_data("text:a:b.txt")) == DOCUMENTS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "text,text\na,b\n", "2 columns called 'text'"),
        ("t.csv", "text,label\na,b,c\n", "Expected 2 columns, got 3"),
        ("t.csv", "body,label\na,b\n", "unknown column"),
        ("t.csv", "", "is empty"),
        ("t.tsv", "text\ttext\na\tb\n", "2 columns called 'text'"),
        ("t.jsonl", '{"text": "a", "text": "b"}\n', "two columns called 'text'"),
        ("t.jsonl", '[{"text": "a"}]\n', "a list of objects is read from a .json file"),
        ("t.jsonl", '{"text": ["a", "b"]}\n', "holds list, not text"),
        ("t.jsonl", '{"text": "a"}\nnonsense\n', "line 2 is not JSON"),
        ("t.json", '{\n"text":\n"a"}', "a list of objects with columns"),
        ("t.json", "[1, 2]", "entry 1 is not an object"),
        ("t.json", "[" * 100_000, "is not JSON"),
        ("t.jsonl.gz", "x", "unpack it first"),
        ("t.html", "<p>x</p>", "save its text as .txt"),
        ("t.xlsx", "x", "save it as .csv"),
    ],
)
def test_what_cannot_be_read_right_is_refused(name: str, content: str, message: str) -> None:
    Path(name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_data(f"text:{name}")


def test_lists_in_parquet_columns_are_refused_as_text() -> None:
    pa.parquet.write_table(pa.table({"text": [["a", "b"], ["c"]]}), "t.parquet")
    with pytest.raises(UserError, match="holds list, not text"):
        open_data("t.parquet")


def test_an_unknown_suffix_is_said() -> None:
    Path("corpus.en").write_text("\n".join(DOCUMENTS))
    source = open_data("text:corpus.en")
    assert read(source) == DOCUMENTS
    assert "the suffix .en is not known" in source.notes[0]


@pytest.mark.parametrize("way", [lines, objects, a_table])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_end_in_any_way(way: Any, end: str) -> None:
    path = Path(way("utf-8").name.removeprefix("text:"))
    path.write_bytes(end.join(path.read_text().split("\n")).encode())
    assert read(open_data(f"text:{path}")) == DOCUMENTS


def test_the_file_with_most_damage_is_named() -> None:
    a_folder("utf-8")
    Path("f/odd.txt").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(UserError, match=r"in 'odd.txt'"):
        open_data("f")
    Path("f/odd.txt").write_bytes("é".encode() * 30 + b"\xff")
    assert "(1 in 'odd.txt')" in "".join(open_data("f").notes)


def test_half_a_character_of_json_is_counted() -> None:
    Path("l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"text": "half \\ud800 of one"}\n')
    assert "bytes are not UTF-8" in "".join(open_data("l.jsonl").notes)


def test_rows_that_a_quotation_mark_joins_are_counted() -> None:
    Path("l.tsv").write_text("text\tlabel\n" + "".join(f'"{text}\tx\n' for text in DOCUMENTS))
    assert "6 rows have cells with tabs and line breaks" in "".join(open_data("l.tsv").notes)
    Path("l.tsv").write_text("text\tlabel\n" + "".join(f'He said "{text}"\tx\n' for text in DOCUMENTS))
    assert not open_data("l.tsv").notes


def test_a_folder_behind_text_is_refused_with_the_remedy() -> None:
    a_folder("utf-8")
    with pytest.raises(UserError, match=r"leave text: out"):
        open_data("text:f")


@pytest.mark.parametrize("query", ["\0\0", " ", "\ufeff".encode()])
def test_queries_without_a_word_are_refused(query: Any) -> None:
    if isinstance(query, bytes):
        Path("q.txt").write_bytes(query)
        query = "q.txt"
    with pytest.raises(UserError, match="the query is empty"):
        open_query(query)


# Scripts

CORPORA = {
    "Korean": ("한국어 문장은 이렇게 생겼습니다. 오늘은 날씨가 매우 좋습니다.", 0.9),
    "Chinese": ("今天天气很好，我们去公园散步吧。中文没有空格。", 1.05),
    "Japanese": ("かぎをかけて、パンダを見に行きました。今日は天気がいいです。", 1.05),
    "Thai": ("ภาษาไทยไม่มีช่องว่างระหว่างคำ กินข้าวกันไหม", 0.8),
    "Hindi": ("कुल मिलाकर यह एक अच्छा दिन था। कल हम फिर मिलेंगे।", 0.8),
    "Emoji": ("Good day 😀 sad day 😢 family 👨\u200d👩\u200d👧 flag 🇩🇪 thumbs 👍🏽", 0.8),
    "German": ("Das ist schon schön, sagte Frau Müller in Köln.", 0.5),
}
PAIRS = {
    "Hindi": ("कुल", "कल"), "Thai": ("กิน", "กัน"), "Japanese": ("かぎ", "かき"), "katakana": ("パンダ", "ハンタ"),
    "Vietnamese": ("má", "mà"), "Tamil": ("கண்", "கண"), "Korean": ("한국", "한글"), "German": ("schon", "schön"),
    "Chinese": ("中国", "中文"), "emoji": ("😀", "😢"), "Spanish": ("año", "ano"), "Arabic": ("كَتَبَ", "كتب"),
    "Hebrew": ("שָׁלוֹם", "שלום"), "Persian": ("می\u200cخواهم", "میخواهم"), "family": ("👨\u200d👩", "👨👩"),
}  # fmt: skip


@pytest.mark.parametrize("script", CORPORA)
@pytest.mark.parametrize("kind", ["wordpiece", "wordpiece-cased", "bpe"])
def test_tokens_per_character(script: str, kind: str) -> None:
    text, most = CORPORA[script]
    source = Texts.of([f"{text} {i}" for i in range(40)])
    made = tokenizers.tokenizer(source.spec(64, f"{kind}:2000").tokenizer)
    found = made.encode(text, add_special_tokens=False).tokens
    assert "[UNK]" not in found
    assert len(found) <= most * len(text.replace(" ", "")), found
    assert not any("\u1100" <= char <= "\u11ff" for token in found for char in token)  # no Hangul taken apart


@pytest.mark.parametrize("kind", ["wordpiece", "wordpiece-cased", "bpe"])
def test_words_that_differ_remain_different(kind: str) -> None:
    source = Texts.of([f"{a} {b} {a} word and {b} again. " * 6 for a, b in PAIRS.values()])
    made = tokenizers.tokenizer(source.spec(64, kind).tokenizer)
    ids = {name: [made.encode(word, add_special_tokens=False).ids for word in pair] for name, pair in PAIRS.items()}
    assert [name for name, (a, b) in ids.items() if a == b] == []


def test_case_is_a_choice_and_composition_is_not() -> None:
    source = Texts.of(["Schön ist es in Köln, schön und gut. " * 5] * 8)
    for kind, same in (("wordpiece", True), ("wordpiece-cased", False)):
        made = tokenizers.tokenizer(source.spec(64, kind).tokenizer)
        one, other = (made.encode(word, add_special_tokens=False).ids for word in ("Schön", "schön"))
        assert (one == other) == same
        assert made.encode(unicodedata.normalize("NFD", "schön"), add_special_tokens=False).ids == other


def test_long_words_are_cut_and_known() -> None:
    text = CORPORA["Thai"][0].replace(" ", "") * 10
    made = tokenizers.tokenizer(Texts.of([text] * 4).spec(64, "wordpiece").tokenizer)
    assert "[UNK]" not in made.encode(text, add_special_tokens=False).tokens


WORDS = {  # in sentences of which none was seen before
    "Thai": "ภาษา ไทย กิน ข้าว กัน ไหม วัน นี้ อากาศ ดี มาก ฉัน ไป ตลาด ซื้อ ผลไม้ เด็ก เล่น บ้าน รถ",
    "Japanese": "今日 は 天気 が いい です パンダ を 見 に 行き ました かぎ かける 東京 大阪 駅 で 友達 と",
    "Chinese": "今天 天气 很 好 我们 去 公园 散步 吧 中文 没有 空格 北京 上海 学校 老师 学生",
    "Korean": "한국어 문장은 이렇게 생겼습니다 오늘은 날씨가 매우 좋습니다 학교에 갔다 친구를 만났다",
    "Hindi": "कुल मिलाकर यह एक अच्छा दिन था कल हम फिर मिलेंगे पानी खाना घर स्कूल",
    "Khmer": "មនុស្ស ទាំងអស់ កើត មក មាន សេរីភាព ផ្ទះ ទឹក បាយ សាលា",
}


@pytest.mark.parametrize("script", WORDS)
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_tokens_per_character_of_new_sentences(script: str, kind: str) -> None:
    draw, space = random.Random(0), " " if script in ("Korean", "Hindi") else ""
    texts = [space.join(draw.choices(WORDS[script].split(), k=25)) for _ in range(120)]
    made = tokenizers.tokenizer(Texts.of(texts[:100]).spec(64, kind).tokenizer)
    found = [token for text in texts[100:] for token in made.encode(text, add_special_tokens=False).tokens]
    assert "[UNK]" not in found
    letters = sum(len(text.replace(" ", "")) for text in texts[100:])
    assert len(found) <= {"Chinese": 1.0, "Japanese": 0.8}.get(script, 0.5) * letters, (len(found), letters)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_sentences_end_in_other_scripts(kind: str) -> None:
    texts = ["कुल मिलाकर यह। कल हम फिर।", "今日は。明日も。", "One. Two!"]
    spec = Texts.of([text * 3 for text in texts]).spec(64, kind)
    ends, made = tokenizers.tables(spec.tokenizer)[0], tokenizers.tokenizer(spec.tokenizer)
    for text in texts:
        found = made.encode(text, add_special_tokens=False)
        cuts = [text[stop - 1] for (_, stop), token in zip(found.offsets, found.ids, strict=True) if ends[token]]
        assert len(cuts) == 2, (text, found.tokens)


def test_words_that_a_tokenizer_does_not_know_are_counted() -> None:
    english = Texts.of(["the quick brown fox jumps over the lazy dog. " * 3] * 12)
    spec = english.spec(32, "wordpiece")
    korean = Texts.of([CORPORA["Korean"][0]] * 4)
    assert english.conform(spec).notes == ()
    assert "% of the tokens are words that the tokenizer does not know" in "".join(korean.conform(spec).notes)
