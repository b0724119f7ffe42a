"""ANLS, the similarity of short texts: DocVQA, and texts of one's own.

Source: VLMEvalKit @ e8e78f05, `anls_compute` and `hit_calculate` in `dataset/utils/vqa_eval.py`.
"""

from collections.abc import Sequence

from ovis_model.evaluation.scoring.mark import Mark

#: Less similar texts count nothing.  Exactly so similar ones count, unlike in the original paper.
THRESHOLD = 0.5


def mark_anls(answer: str, truths: Sequence[str]) -> Mark:
    """Mark an answer by its similarity to the nearest true one, 0 or 0.5 to 1."""
    similarity = 1 - min(_relative_distance(truth, answer) for truth in truths)
    value = similarity if similarity >= THRESHOLD else 0.0
    return Mark(value >= THRESHOLD, value, invalid=not answer.strip(), extracted=answer.strip())


def levenshtein(one: str, other: str) -> int:
    """Count the letters to insert, delete or replace to turn one text into another.

    Example:
        >>> levenshtein("march 3", "marsh")
        3
    """
    short, long = sorted((one, other), key=len)
    before = list(range(len(short) + 1))
    for row, letter in enumerate(long, start=1):
        now = [row]
        for column, wanted in enumerate(short):
            replaced = before[column] + (letter != wanted)
            now.append(min(replaced, before[column + 1] + 1, now[column] + 1))
        before = now
    return before[-1]


def _relative_distance(truth: str, answer: str) -> float:
    # The original measures lengths before it removes blanks, and in upper case.
    length = max(len(truth.upper()), len(answer.upper()))
    return levenshtein(_plain(truth), _plain(answer)) / length if length else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
