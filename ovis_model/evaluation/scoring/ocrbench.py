"""OCRBench: a true answer must stand somewhere in what the model wrote.

Source: VLMEvalKit @ e8e78f05, `OCRBench.evaluate`.
"""

from collections.abc import Sequence

from ovis_model.evaluation.scoring.mark import Mark

FORMULAS = "Handwritten Mathematical Expression Recognition"


def mark_ocrbench(answer: str, truths: Sequence[str], category: str) -> Mark:
    """Mark an answer; any of the true ones is enough.

    Formulas are compared without blanks and line breaks, their letters' case counts; all else is
    compared in lower case.  Full-width letters and accents are not folded.

    Args:
        answer: What the model wrote.
        truths: What may stand in it.
        category: One of OCRBench's ten; one of them holds formulas.
    """
    plain = _squeeze if category == FORMULAS else _lower
    written = plain(answer)
    correct = any(plain(truth) in written for truth in truths)
    return Mark(correct, float(correct), invalid=not answer.strip())


def _squeeze(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _lower(text: str) -> str:
    return text.lower().strip().replace("\n", " ")
