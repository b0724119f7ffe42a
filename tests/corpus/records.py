"""Kinds 1 to 16: annotation files, and records that are no samples."""

import json
from typing import Any

from tests.corpus.dataset import Dataset, Expectation, Kind, speak

#: A hole of this size in a file stands for one line without an end; it takes no room on disk.
_HOLE_BYTES = 128 * 2**20
_TURNS = [("human", "What is 1 + 1?"), ("gpt", "2")]


def _record(sample_id: str, **more: Any) -> dict[str, Any]:
    return {"id": sample_id, **more, "conversations": speak(_TURNS)}


def _lines(data: Dataset, *lines: bytes) -> str:
    """Write JSON lines, the good one first, and return the file's name."""
    data.expected.insert(0, data.expected.pop())
    good = json.dumps(_record("good")).encode()
    data.path("annotations.jsonl").write_bytes(b"\n".join((good, *lines)) + b"\n")
    return "annotations.jsonl"


def _refused(data: Dataset, files: dict[str, tuple[bytes, str]]) -> dict[str, str]:
    for name, (content, _) in files.items():
        data.path(name).write_bytes(content)
    return {name: pattern for name, (_, pattern) in files.items()}


def empty_file(data: Dataset) -> Expectation:
    files = {
        "nothing.json": (b"", "is empty"),
        "nothing.jsonl": (b"", "no samples|is empty"),
        "blank.json": (b" \n\n", "not JSON|no samples|is empty"),
        "list.json": (b"[]", "no samples"),
        "object.json": (b'{"conversations": []}', "no samples"),
    }
    return data.write("D", "There is nothing to learn from.", refused=_refused(data, files))


def not_json(data: Dataset) -> Expectation:
    whole = json.dumps({"conversations": [_record("a"), _record("b")]}).encode()
    files = {
        "prose.json": (b"These are not the samples you look for.", "not JSON"),
        "page.json": (b"<!doctype html><title>404</title>", "not JSON"),
        "cut.json": (whole[:-40], r"not JSON.*\b\d+"),
        "comma.json": (whole.replace(b"]}]", b"]},]"), "not JSON"),
        "utf16.json": (whole.decode().encode("utf-16"), "not JSON"),
    }
    return data.write("D", "The message tells the place.", refused=_refused(data, files))


def no_list(data: Dataset) -> Expectation:
    files = {
        "object.json": (b'{"version": 1, "license": "none"}', "holds a dict"),
        "number.json": (b"42", "holds a int"),
        "text.json": (b'"good"', "holds a str"),
        "null.json": (b"null", "holds a NoneType"),
    }
    return data.write("D", "No list of samples anywhere.", refused=_refused(data, files))


def byte_order_mark(data: Dataset) -> Expectation:
    data.good()
    text = json.dumps({"conversations": [_record("good")]})
    data.path("marked.json").write_text(text, encoding="utf-8-sig")
    return data.write("S", "Some editors put a mark first.", annotations="marked.json")


def broken_text(data: Dataset) -> Expectation:
    latin = json.dumps(_record("latin")).replace("2", "\N{SUPERSCRIPT TWO}").encode("latin-1")
    half = json.dumps(_record("half")).replace("What", "\\ud83d").encode()
    pair = json.dumps(_record("pair")).replace("What", "\\ud83d\\ude00").encode()
    data.expect("line 2", "not_json")
    data.expect("half", "not_json")
    data.expect("pair")
    data.expect("good")
    name = _lines(data, latin, half, pair)
    return data.write("Q", "Bytes that are no UTF-8, halves of characters.", annotations=name)


def control_characters(data: Dataset) -> Expectation:
    data.good()
    for name, mark in (("nul", "\0"), ("bell", "\a"), ("escape", "\x1b[2J"), ("backspace", "\b")):
        data.ask(f"{name}-asked", f"What{mark} is it?", "2", "control_characters")
        data.ask(f"{name}-answered", "What is it?", f"2{mark}", "control_characters")
    turns = [("system", "Be\0brief."), *_TURNS]
    data.talk("nul-system", turns, "control_characters")
    data.ask("line-breaks", "One\ttwo\r\nthree?", "Four\n\tfive")
    return data.write("Q", "A terminal obeys them, a tokenizer learns them.")


def repeated_keys(data: Dataset) -> Expectation:
    plain = json.dumps(_record("plain"))
    top = plain.replace('"id": "plain"', '"id": "x", "id": "twice"')
    inner = plain.replace("plain", "inner").replace(
        '"from": "gpt"', '"from": "gpt", "from": "gpt"'
    )
    data.expect("twice", "not_json")
    data.expect("inner", "not_json")
    data.expect("good")
    name = _lines(data, top.encode(), inner.encode())
    return data.write("Q", "JSON would silently keep the last.", annotations=name)


def no_numbers(data: Dataset) -> Expectation:
    words = ("NaN", "Infinity", "-Infinity")
    lines = [json.dumps(_record(f"n{n}", score=0)) for n in range(3)]
    for number in range(3):
        data.expect(f"line {number + 2}", "not_json")
    data.expect("good")
    spoilt = [
        line.replace("0,", f"{word},").encode() for line, word in zip(lines, words, strict=True)
    ]
    name = _lines(data, *spoilt)
    return data.write("Q", "Python's reader takes them, JSON has none.", annotations=name)


def endless(data: Dataset) -> Expectation:
    nested = b'{"id": "deep", "conversations": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    data.expect("line 2", "not_json")
    data.expect("line 3", "not_json")
    data.expect("good")
    name = _lines(data, nested)
    with data.path(name).open("r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() + _HOLE_BYTES)
    files = {
        "deep.json": (b"[" * 1_000_000 + b"]" * 1_000_000, "not JSON|nested"),
        "deeper.json": (b'{"conversations": ' + b'{"a":' * 1_000_000, "not JSON|nested"),
    }
    return data.write(
        "D",
        "A file is refused, a line set aside.",
        refused=_refused(data, files),
        annotations=name,
    )


def no_id(data: Dataset) -> Expectation:
    data.good()
    turns = speak([("human", "Who are you?"), ("gpt", "Nobody.")])
    data.add({"conversations": turns}, warn=["generated_id"])
    data.add(
        {"id": None, "conversations": speak(_TURNS)}, warn=["generated_id", "duplicate_content"]
    )
    return data.write("W", "An id is made from the content.")


def repeated(data: Dataset) -> Expectation:
    data.good()
    data.ask("again", "Again?", "Yes.")
    data.ask("again", "Again?", "Yes.", policy="repeated")
    data.ask("again", "Again?", "Yes.", policy="repeated")
    return data.write("policy", "The same sample thrice is kept once, and the others counted.")


def two_of_one_name(data: Dataset) -> Expectation:
    data.good()
    data.ask("double", "Is it day?", "Yes.", "duplicate_id")
    data.ask("double", "Is it night?", "No.", "duplicate_id")
    return data.write("D", "Predictions are filed by id.", stops=("duplicate_id",))


def odd_ids(data: Dataset) -> Expectation:
    data.good()
    for value in (["a"], {"a": 1}, True, 1.5, ""):
        data.talk(value, [("human", f"Is {value!r} a name?"), ("gpt", "No.")], "schema")
    for value in ("../../x", "/etc/passwd", "a/../../b", ".."):
        data.ask(value, f"Where is {value}?", "Elsewhere.", "unsafe_id")
    data.talk(7, [("human", "Is 7 a name?"), ("gpt", "It is read as one.")])
    data.ask("train/0001", "May a name have a slash?", "Yes.")
    data.ask("v1..2", "Two dots?", "No way out of a folder.")
    return data.write("Q", "An id may name a file one day.")


def no_conversation(data: Dataset) -> Expectation:
    data.good()
    data.add({"id": "nothing-else"}, "schema")
    data.add({"id": "misspelt", "conversation": speak(_TURNS)}, "schema")
    data.add("text", "schema")
    data.add(3, "schema")
    data.add(None, "schema")
    data.add([], "schema")
    return data.write("Q", "Entries that are no samples.")


def no_turns(data: Dataset) -> Expectation:
    data.good()
    data.talk("no-turns", [], "schema")
    data.add({"id": "null-turns", "conversations": None}, "schema")
    data.add({"id": "text-turns", "conversations": "Hello"}, "schema")
    data.add({"id": "object-turns", "conversations": {"from": "human"}}, "schema")
    return data.write("Q", "Nobody speaks.")


def no_text(data: Dataset) -> Expectation:
    data.good()
    for name, value in (("null", None), ("number", 2), ("list", ["2"]), ("object", {"a": "2"})):
        data.talk(f"{name}-answer", [("human", "What is 1 + 1?"), ("gpt", value)], "schema")
    data.talk("null-question", [("human", None), ("gpt", "2")], "schema")
    data.add({"id": "no-value", "conversations": [{"from": "human"}, {"from": "gpt"}]}, "schema")
    return data.write("Q", "What is said must be text.")


RECORDS = (
    Kind(1, "empty_file", empty_file),
    Kind(2, "not_json", not_json),
    Kind(3, "no_list", no_list),
    Kind(4, "byte_order_mark", byte_order_mark),
    Kind(5, "broken_text", broken_text),
    Kind(6, "control_characters", control_characters),
    Kind(7, "repeated_keys", repeated_keys),
    Kind(8, "no_numbers", no_numbers),
    Kind(9, "endless", endless),
    Kind(10, "no_id", no_id),
    Kind(11, "repeated", repeated),
    Kind(12, "two_of_one_name", two_of_one_name),
    Kind(13, "odd_ids", odd_ids),
    Kind(14, "no_conversation", no_conversation),
    Kind(15, "no_turns", no_turns),
    Kind(16, "no_text", no_text),
)
