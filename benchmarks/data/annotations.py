"""Generated annotations, as somebody would hand them in, and the pictures they name.

A row is a question about one picture and an answer, one in four with a thought, of about 0.9 kB.
The words are those of the suite's tokenizer: most are one token, as in any language whose
tokenizer was trained on it.  A thousand pictures are shared by all rows.
"""

import json
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from benchmarks.data.cache import cached
from benchmarks.model.preprocessing import generated_image
from benchmarks.model.tokenization import build_tokenizer

NUM_PICTURES = 1000
PICTURE_SIZE = (320, 240)
#: Rows are put together from so many sentences of so many words.
_NUM_SENTENCES, _NUM_WORDS = 4000, 10
#: How many sentences a question, an answer and a thought have.
_QUESTION, _ANSWER, _THOUGHT = 3, 9, 5
#: A word with a space before it, as byte-level BPE writes it.
_WORD = re.compile("\u0120([a-z]{3,})")
_BLOCK_ROWS = 10_000


def annotation_lines(seed: int, rows: int) -> Path:
    """Return a file of JSON lines; its pictures lie beside it, in `images`."""
    pictures()
    return cached(f"annotations/{rows}-{seed}.jsonl", partial(_write_lines, seed, rows))


def annotation_list(seed: int, rows: int) -> Path:
    """Return a file with the same samples as one JSON list."""
    lines = annotation_lines(seed, rows)
    return cached(f"annotations/{rows}-{seed}.json", partial(_write_list, lines))


def pictures() -> Path:
    """Return the folder of the pictures, small JPEGs that all look different."""
    return cached("annotations/images", _write_pictures)


def sentences(random: np.random.Generator, count: int, num_words: int = _NUM_WORDS) -> list[str]:
    """Draw sentences; the words of one are all different as often as not."""
    words = np.array(_words())
    drawn = words[random.integers(0, len(words), (count, num_words))]
    return [" ".join(row) + "." for row in drawn.tolist()]


@cache
def _words() -> list[str]:
    found = (_WORD.fullmatch(token) for token in sorted(build_tokenizer().get_vocab()))
    return [match[1] for match in found if match]


def _write_lines(seed: int, rows: int, path: Path) -> None:
    random = np.random.default_rng(seed)
    pool = sentences(random, _NUM_SENTENCES)
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, rows, _BLOCK_ROWS):
            count = min(_BLOCK_ROWS, rows - first)
            picks = random.integers(0, len(pool), (count, _QUESTION + _ANSWER)).tolist()
            file.writelines(
                _line(number, [pool[pick] for pick in picked])
                for number, picked in enumerate(picks, start=first)
            )


def _line(number: int, texts: list[str]) -> str:
    question = f"<image>\nQuestion {number}: {' '.join(texts[:_QUESTION])}"
    answer = texts[_QUESTION:]
    if number % 4:
        spoken = " ".join(answer)
    else:
        thought, said = " ".join(answer[:_THOUGHT]), " ".join(answer[_THOUGHT:])
        spoken = f"<think>\n{thought}\n</think>\n\n{said}"
    sample = {
        "id": f"s{number}",
        "image": f"images/{number % NUM_PICTURES}.jpg",
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": spoken},
        ],
    }
    return json.dumps(sample) + "\n"


def _write_list(lines: Path, path: Path) -> None:
    with lines.open(encoding="utf-8") as source, path.open("w", encoding="utf-8") as target:
        target.writelines(_with_commas(source))


def _with_commas(lines: Iterator[str]) -> Iterator[str]:
    before = "["
    for line in lines:
        yield before + line.rstrip("\n")
        before = ",\n"
    yield "]\n"


def _write_pictures(folder: Path) -> None:
    folder.mkdir()
    for number in range(NUM_PICTURES):
        image = generated_image(number, *PICTURE_SIZE)
        save_jpeg(image, folder / f"{number}.jpg")


def save_jpeg(image: Image.Image, path: Path | IO[bytes], quality: int = 85) -> None:
    """Write a JPEG as cameras and web sites do: colour at half the resolution."""
    image.save(path, format="JPEG", quality=quality, subsampling="4:2:0")
