"""Conversations as they are trained on, held out: the question is asked, the answer is the truth.

Only a conversation of one question and one answer is an item; how many are longer, or begin with
a system message, is counted.
"""

from collections import Counter
from pathlib import Path

from ovis_model.data.annotations.files import read_raw_records
from ovis_model.data.schema import Sample
from ovis_model.evaluation.benchmarks.contents import Contents
from ovis_model.evaluation.benchmarks.explain import naming
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader
from ovis_model.evaluation.benchmarks.media import FolderMedia, check_inside
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.prompts import check_placeholders
from ovis_model.inference.thinking import split_thinking

NOT_ONE_EXCHANGE = "not one question and one answer"
PART_OF_A_VIDEO = "about a part of a video file"


def read_conversations(path: Path, header: BenchmarkHeader, folder: Path) -> Contents:
    """Read conversations as items.

    Args:
        path: In any of the layouts that annotations have.
        header: Says how the question is put.
        folder: Of the files that conversations name.

    Raises:
        DataError: Naming file and record, if one cannot be used.
    """
    items: list[BenchmarkItem] = []
    dropped: Counter[str] = Counter()
    for record in read_raw_records(path):
        with naming(f"{path}, {record.place}"):
            sample = record.parse()
            reason = _unfit(sample)
            if reason:
                dropped[reason] += 1
                continue
            items.append(_build(sample))
            if header.prompt == "verbatim":
                check_placeholders(items[-1])
    return Contents(tuple(items), FolderMedia(folder), dict(dropped))


def _unfit(sample: Sample) -> str | None:
    if [turn.role for turn in sample.conversations] != ["human", "gpt"]:
        return NOT_ONE_EXCHANGE
    is_part = sample.video_start is not None or sample.video_end is not None
    return PART_OF_A_VIDEO if is_part else None


def _build(sample: Sample) -> BenchmarkItem:
    question, answer = sample.conversations
    for name in sample.media:
        check_inside(name)
    return BenchmarkItem(
        id=sample.id,
        image=sample.image,
        video=sample.video,
        question=question.value,
        answer=split_thinking(answer.value)[1],
        columns={} if sample.source is None else {"source": sample.source},
    )
