"""From what a model wrote to what is marked.

The whole output is never marked: a thought that happens to mention the right digit is not an
answer, and neither is one that was cut off before it closed.
"""

from ovis_model.inference.thinking import ParsedOutput


def extract_answer(output: ParsedOutput) -> str:
    """Return what counts as the answer of an output, "" if there is none.

    Source: the rule of VLMEvalKit's Ovis2.5 class is to split at the first `</think>`.
    DIVERGES(unclosed-thought): there an output that never closes its thought is marked as a
    whole; here it has no answer and is counted as invalid.
    """
    return output.answer
