"""What is asked about digits, the thought that leads to the answer, and the answer.

An exercise is written once and told twice: as a conversation to train on, in the seed's
format, or as an item of a benchmark.  The same phrasings serve both; the digits do not.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from digit_media import CANVAS_CELLS, Digit, MediaFolder

READ_ONE = ("Which digit is this?", "Read the digit.", "What number is written here?")
READ_MANY = ("Read the digits in order.", "Which digits are these, from first to last?")
WATCH = ("Which digits appear in the video?", "Read the digits of the video in order.")
FIND = ("Find the <ref>{label}</ref>.", "Where is the <ref>{label}</ref>?")

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CELL_NAMES = (
    *("top left", "top", "top right"),
    *("left", "middle", "right"),
    *("bottom left", "bottom", "bottom right"),
)
#: Coordinates live in [0, 1) with three decimals, so the far edge is written as this.
LARGEST_COORDINATE = 0.999


@dataclass(frozen=True)
class Exercise:
    """One question with its media, thought and answer.

    Attributes:
        id: Unique within its dataset.
        question: The user's turn, with one placeholder per medium.
        thought: What leads to the answer, one short line.
        answer: The answer alone.
        images: Paths of images, below the dataset's folder.
        video: Path of a video file, or of its frames.
    """

    id: str
    question: str
    thought: str
    answer: str
    images: tuple[str, ...] = ()
    video: str | tuple[str, ...] | None = None

    def to_sample(
        self,
        *,
        think: bool,
        system: str | None = None,
        follow_up: "Exercise | None" = None,
    ) -> dict[str, Any]:
        """Tell it as a conversation in the seed's format.

        Args:
            think: Whether answers open with a `<think>` block.
            system: A system prompt to start with.
            follow_up: A second question about the same media.
        """
        sample: dict[str, Any] = {"id": self.id}
        if self.images:
            sample["image"] = self.images[0] if len(self.images) == 1 else list(self.images)
        if self.video is not None:
            sample["video"] = self.video if isinstance(self.video, str) else list(self.video)
        turns = [] if system is None else [{"from": "system", "value": system}]
        for exercise in (self, follow_up):
            if exercise is not None:
                turns.append({"from": "human", "value": exercise.question})
                turns.append({"from": "gpt", "value": exercise.tell_answer(think=think)})
        return {**sample, "conversations": turns}

    def tell_answer(self, *, think: bool) -> str:
        """Return the answer, with the thought in front if wanted."""
        return f"<think>\n{self.thought}\n</think>\n\n{self.answer}" if think else self.answer

    def to_item(self) -> dict[str, Any]:
        """Tell it as a benchmark item: what is asked and what is right."""
        item: dict[str, Any] = {"id": self.id}
        if self.images:
            item["image"] = list(self.images)
        if self.video is not None:
            item["video"] = self.video if isinstance(self.video, str) else list(self.video)
        return {**item, "question": self.question, "answer": self.answer}


def read_one(rng: random.Random, digit: Digit, media: MediaFolder, *, name: str) -> Exercise:
    """Ask which digit one image shows."""
    return Exercise(
        id=name,
        question=f"<image>\n{rng.choice(READ_ONE)}",
        thought=f"The strokes form the digit {digit.label}.",
        answer=str(digit.label),
        images=(media.add_digit(digit),),
    )


def read_many(
    rng: random.Random, digits: Sequence[Digit], media: MediaFolder, *, name: str
) -> Exercise:
    """Ask for the digits of two or three images, in order."""
    chosen = rng.sample(digits, rng.choice((2, 3)))
    return Exercise(
        id=name,
        question="<image>\n" * len(chosen) + rng.choice(READ_MANY),
        thought=_tell_order(chosen),
        answer=_list_labels(chosen),
        images=tuple(media.add_digit(digit) for digit in chosen),
    )


def watch(
    rng: random.Random, shown: Sequence[Digit], media: MediaFolder, *, name: str, as_file: bool
) -> Exercise:
    """Ask for the digits that a video shows, stored as an mp4 file or as a list of frames."""
    frames = None if as_file else tuple(media.add_digit(digit) for digit in shown)
    return Exercise(
        id=name,
        question=f"<video>\n{rng.choice(WATCH)}",
        thought=_tell_order(shown),
        answer=_list_labels(shown),
        video=frames or media.add_clip(name, shown),
    )


def _list_labels(digits: Sequence[Digit]) -> str:
    return " ".join(str(digit.label) for digit in digits)


def _tell_order(digits: Sequence[Digit]) -> str:
    first, *others = (str(digit.label) for digit in digits)
    return f"First {first}" + "".join(f", then {label}" for label in others) + "."


def find(
    rng: random.Random, digits: Sequence[Digit], media: MediaFolder, *, name: str
) -> Exercise:
    """Put a digit somewhere on a canvas and ask where it is."""
    digit = rng.choice(digits)
    cell = rng.randrange(CANVAS_CELLS**2)
    return Exercise(
        id=name,
        question="<image>\n" + rng.choice(FIND).format(label=digit.label),
        thought=f"The {digit.label} is {CELL_NAMES[cell]}.",
        answer=f"<ref>{digit.label}</ref><box>{format_cell(cell)}</box>",
        images=(media.add_canvas(name, {cell: digit}),),
    )


def format_cell(cell: int) -> str:
    """Write a cell's corners as fractions of the canvas: cell 1 is (0.333,0.000),(0.667,0.333)."""
    row, column = divmod(cell, CANVAS_CELLS)
    left, top = column / CANVAS_CELLS, row / CANVAS_CELLS
    right, bottom = (
        min((index + 1) / CANVAS_CELLS, LARGEST_COORDINATE) for index in (column, row)
    )
    return f"({left:.3f},{top:.3f}),({right:.3f},{bottom:.3f})"


def ask_parity(digit: Digit) -> Exercise:
    """Ask a second question about an image that was just read."""
    even = digit.label % 2 == 0
    return Exercise(
        id="",
        question="Is it even?",
        thought=f"{digit.label} is {'even' if even else 'odd'}.",
        answer="Yes" if even else "No",
    )


def all_text_exercises() -> Iterator[Exercise]:
    """Yield every question about digits that needs no picture; ids are left empty."""
    for digit, word in enumerate(WORDS):
        even = digit % 2 == 0
        yield _text(
            f"Is {digit} even?",
            f"{digit} is {'even' if even else 'odd'}.",
            "Yes" if even else "No",
        )
        yield _text(f"Write {digit} as a word.", f"{digit} is called {word}.", word)
        yield _text(f"Write {word} as a digit.", f"The word {word} means {digit}.", str(digit))
        if digit < 9:
            after = digit + 1
            yield _text(
                f"Which digit comes after {digit}?",
                f"After {digit} comes {after}.",
                str(after),
            )
            yield _text(
                f"Which digit comes before {after}?",
                f"Before {after} comes {digit}.",
                str(digit),
            )
        for other in range(10 - digit):
            total = digit + other
            yield _text(
                f"What is {digit} plus {other}?",
                f"{digit} plus {other} makes {total}.",
                str(total),
            )


def _text(question: str, thought: str, answer: str) -> Exercise:
    return Exercise(id="", question=question, thought=thought, answer=answer)
