"""What validation and extraction report; apart from them, because reading a report is instant."""

from pydantic import Field

from ovis_model.reports import Report


class ExpectationReport(Report):
    """What one expectation found; `num_bad` counts samples, `passed` is null if nobody looked."""

    description: str
    severity: str
    passed: bool | None
    num_bad: int
    examples: list[str]


class QuarantinedSample(Report):
    """One sample set aside: why, by reason code, and where in the annotation file it stands."""

    id: str
    place: str
    reasons: dict[str, str]


class SourceReport(Report):
    """What became of one source.

    Attributes:
        num_samples: Samples that came in.
        num_ok: Those of them that are used, in either part.
        num_lines: Lines of the training part, copies counted.
        share: Of the lines of the training part, in [0, 1].
        planned_share: What caps and weights ask for of the samples that are good.
        licence: As `validate.sources` has it; empty if it does not say.
    """

    num_samples: int
    num_ok: int
    num_lines: int
    share: float
    planned_share: float
    licence: str = ""


class LengthReport(Report):
    """Lengths of the good samples in tokens, if a base model was there to count them."""

    num_tokens: int
    median: int
    p95: int
    longest: int
    num_fitted: int


class ValidationReport(Report):
    """What validation found; `passed` says whether the outputs were written.

    Attributes:
        identity: The account in a line: every input sample is in it once.
        num_dropped: By policy.
        stopped_by: Reason codes that stop a run by themselves, with the samples that broke them.
        mended: What was put right while reading, and in how many records.
        not_checked: What there was nothing to check with, and why.
        quarantined: The first of them; the ledger has all.
    """

    passed: bool
    identity: str
    num_samples: int
    num_ok: int
    num_quarantined: int
    num_dropped: dict[str, int]
    bad_fraction: float
    max_bad_fraction: float
    stopped_by: dict[str, int]
    num_train: int
    num_train_lines: int
    num_holdout: int
    num_media: int
    num_groups: int
    largest_group: int
    mended: dict[str, int]
    ignored_keys: dict[str, int]
    not_checked: list[str]
    kinds: dict[str, int]
    sources: dict[str, SourceReport]
    lengths: LengthReport | None
    expectations: dict[str, ExpectationReport]
    quarantined: list[QuarantinedSample]


class ExtractionReport(Report):
    """What extraction wrote, and which samples it set aside.

    Attributes:
        num_samples: Written, by part.
        num_quarantined: Set aside because a file of theirs could not be extracted.
        quarantined: The first of them; the ledger has all.
        num_decoded, num_reused: Files that were decoded by this run, and files whose pictures
            were there. Not part of the written report: a run that goes on after a kill must leave
            what an undisturbed one leaves.
    """

    num_samples: dict[str, int]
    num_quarantined: int
    bad_fraction: float
    max_bad_fraction: float
    num_images: int
    num_videos: int
    num_frames: int
    num_unique_media: int
    media_bytes: int
    num_shards: int
    frame_sampling: dict[str, str | int]
    quarantined: list[QuarantinedSample]
    num_decoded: int = Field(default=0, exclude=True)
    num_reused: int = Field(default=0, exclude=True)
