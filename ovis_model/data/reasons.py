"""Every reason a sample can be found wanting, its weight, and what to do about it.

The codes are what reports, the ledger and `validate.severity` in params.yaml spell.  One list
serves the expectations, the ledger, the documentation and the tests.
"""

from dataclasses import dataclass
from typing import Literal, get_args

#: stop: nobody trains while there is one; quarantine: the sample is set aside and counted against
#: `validate.max_bad_fraction`; warn: counted, and the sample is used.
Severity = Literal["stop", "quarantine", "warn"]
SEVERITIES: tuple[str, ...] = get_args(Severity)


@dataclass(frozen=True)
class Reason:
    """Why a sample is found wanting.

    Attributes:
        code: As reports spell it.
        severity: Unless params.yaml says otherwise.
        expected: What should hold, in a sentence.
        remedy: What now, as an imperative.
    """

    code: str
    severity: Severity
    expected: str
    remedy: str


_FORM = (
    Reason(
        "not_json",
        "quarantine",
        "Every record is JSON in UTF-8, gives no key twice and holds no NaN.",
        "write the record again with a JSON library",
    ),
    Reason(
        "schema",
        "quarantine",
        "Every record has the form of a sample.",
        "give it the fields data/README.md shows, or name its format in validate.format",
    ),
    Reason(
        "unsafe_id",
        "quarantine",
        "No id looks like a path out of a folder.",
        "rename the sample",
    ),
    Reason(
        "duplicate_id",
        "stop",
        "No two different samples have the same id.",
        "rename one of them; predictions and reports are filed by id",
    ),
    Reason(
        "role_order",
        "quarantine",
        "Perhaps a system turn, then human and gpt turns, alternating.",
        "reorder, join or remove turns",
    ),
    Reason(
        "no_answer",
        "quarantine",
        "There is a gpt turn to learn from.",
        "add an answer, or remove the sample",
    ),
    Reason(
        "mixed_media",
        "quarantine",
        "A sample has images or a video, not both.",
        "split it into two samples",
    ),
    Reason(
        "image_placeholders",
        "quarantine",
        "The questions hold one <image> for every image of the sample.",
        "add or remove <image> in the human turns, or fix the image field",
    ),
    Reason(
        "video_placeholders",
        "quarantine",
        "The questions hold one <video> for every video of the sample.",
        "add or remove <video> in the human turns, or fix the video field",
    ),
    Reason(
        "frame_sizes",
        "quarantine",
        "All frames of a video have one size.",
        "resize the frames to one size",
    ),
    Reason(
        "generated_id",
        "warn",
        "Every record brings an id.",
        "give it one; a generated id changes with the content",
    ),
    Reason(
        "duplicate_content",
        "warn",
        "No two samples have the same text and media under different ids.",
        "remove one of them, or leave it to count double",
    ),
)

_TEXT = (
    Reason(
        "empty_text",
        "quarantine",
        "No turn is empty; a thought is no answer.",
        "write the missing text, or remove the sample",
    ),
    Reason(
        "stray_placeholder",
        "quarantine",
        "Only human turns hold <image> and <video>.",
        "take the placeholder out of the answer or the system prompt",
    ),
    Reason(
        "think_tags",
        "quarantine",
        "A gpt turn thinks once, at its beginning, and closes its thought; nobody else does.",
        "write one <think>...</think> before the answer",
    ),
    Reason(
        "control_token",
        "quarantine",
        "No text holds a token that steers the model.",
        "remove the token, or write it in another way",
    ),
    Reason(
        "control_characters",
        "quarantine",
        "No text holds control characters, NULs or halves of characters.",
        "remove them; tabs and line breaks are fine",
    ),
    Reason(
        "invisible_characters",
        "warn",
        "No text holds invisible characters or ones that change its direction.",
        "look at the text: what is learned is not what is seen",
    ),
    Reason(
        "huge_word",
        "warn",
        "No word is longer than 1,000 letters.",
        "check that the text is no encoded file",
    ),
    Reason(
        "grounding",
        "quarantine",
        "Boxes and points are fractions in [0, 1): <box>(x1,y1),(x2,y2)</box>.",
        "convert them: `ovis data convert --coordinates`",
    ),
)

_LENGTH = (
    Reason(
        "over_length",
        "quarantine",
        "Every sample fits train.multimodal_max_length or train.text_max_length.",
        "shorten it, raise the limit, or choose a policy in validate.over_length",
    ),
    Reason(
        "no_supervised_tokens",
        "quarantine",
        "Every sample has a token to learn.",
        "give it a gpt turn with text, or remove it",
    ),
    Reason(
        "long_thought",
        "warn",
        "No thought is longer than evaluate.thinking_budget.",
        "raise the budget, or shorten the thought: the model learns to think this long",
    ),
)

_FILES = (
    Reason(
        "unsafe_path",
        "quarantine",
        "Every path stays below the data folder.",
        "copy the file below validate.raw_data and name it by a relative path",
    ),
    Reason(
        "missing_media",
        "quarantine",
        "Every image and video is there.",
        "add the file, or remove the sample",
    ),
    Reason(
        "not_a_file",
        "quarantine",
        "Every path names a regular file.",
        "put a plain file there; folders of frames belong under 'video'",
    ),
    Reason(
        "empty_file",
        "quarantine",
        "No file is empty.",
        "copy the file again",
    ),
    Reason(
        "too_many_bytes",
        "quarantine",
        "No file is larger than validate.limits.max_image_bytes or max_video_bytes.",
        "compress it, or raise the limit",
    ),
    Reason(
        "wrong_format",
        "quarantine",
        "Every file is an image or a video of a format that is read here.",
        "convert it to JPEG, PNG, WebP or BMP, a video to MP4, MKV, WebM, MOV or AVI",
    ),
    Reason(
        "unreadable_media",
        "quarantine",
        "Every image and video can be decoded.",
        "copy or convert the file again",
    ),
    Reason(
        "decoder_timeout",
        "quarantine",
        "Every file decodes within validate.limits.decode_seconds.",
        "convert the file, or raise the limit",
    ),
    Reason(
        "decoder_memory",
        "quarantine",
        "Every file decodes within validate.limits.decode_memory_gb.",
        "scale the file down, or raise the limit",
    ),
    Reason(
        "decoder_crash",
        "quarantine",
        "No file ends its decoder.",
        "convert the file with another program",
    ),
    Reason(
        "wrong_extension",
        "warn",
        "Every file is what its name says.",
        "rename it; it was read as what it is",
    ),
)

_IMAGES = (
    Reason(
        "too_many_pixels",
        "quarantine",
        "No picture has more pixels than validate.limits.max_pixels.",
        "scale it down",
    ),
    Reason(
        "too_small",
        "quarantine",
        "No side of a picture is shorter than validate.limits.min_side.",
        "remove it: enlarged, it would be a blur",
    ),
    Reason(
        "extreme_shape",
        "quarantine",
        "No picture is more than 200 times as long as wide.",
        "crop it: resizing would distort it",
    ),
    Reason(
        "animated",
        "quarantine",
        "No image is animated or has several pages.",
        "save one frame, or list its frames under 'video'",
    ),
    Reason(
        "undefined_range",
        "quarantine",
        "The range of every picture's pixels is known.",
        "convert 32-bit pixels to 8 or 16 bits",
    ),
    Reason(
        "damaged_metadata",
        "quarantine",
        "Every picture's metadata can be read, and is not larger than its pixels deserve.",
        "save it again without metadata",
    ),
    Reason(
        "trailing_data",
        "quarantine",
        "Nothing else hides in an image file: checksums hold, and nothing follows its end.",
        "save it again as a plain image",
    ),
    Reason(
        "blank",
        "warn",
        "No picture is of one colour.",
        "check that the file is what it should be",
    ),
    Reason(
        "near_duplicate",
        "warn",
        "No two pictures look the same.",
        "keep one of them; they stay on one side of the split",
    ),
)

_VIDEOS = (
    Reason(
        "no_frames",
        "quarantine",
        "Every video has a picture stream with frames.",
        "replace the file: it holds sound or nothing",
    ),
    Reason(
        "implausible_rate",
        "quarantine",
        "Every video's frame rate and duration are plausible.",
        "convert it again with a frame rate between 0.1 and 1,000 per second",
    ),
    Reason(
        "too_long",
        "quarantine",
        "No video is longer than validate.limits.max_video_seconds.",
        "cut it, or raise the limit",
    ),
    Reason(
        "cut_off",
        "quarantine",
        "Every video holds the frames it promises.",
        "copy or convert the file again",
    ),
    Reason(
        "changing_size",
        "quarantine",
        "The size of a video's frames does not change.",
        "convert the video to one size",
    ),
    Reason(
        "unknown_codec",
        "quarantine",
        "Every video's codec can be decoded here, and it is not encrypted.",
        "convert it to H.264",
    ),
    Reason(
        "too_many_streams",
        "quarantine",
        "No video has more than 64 streams.",
        "keep the picture stream alone",
    ),
    Reason(
        "too_many_frames",
        "quarantine",
        "No video is a list of more than 10,000 frame files.",
        "thin the list, or make a video file of it",
    ),
    Reason(
        "empty_range",
        "quarantine",
        "The part of a video between video_start and video_end has frames.",
        "fix the two times; they are seconds from the beginning",
    ),
    Reason(
        "few_frames",
        "warn",
        "Every video has at least extract.min_frames frames.",
        "know that frames are repeated to fill up",
    ),
    Reason(
        "variable_rate",
        "warn",
        "Every video has one frame rate.",
        "nothing: frames are taken by time",
    ),
)

_LEAKS = (
    Reason(
        "leaked_image",
        "stop",
        "No benchmark shows a picture or video of the training data.",
        "remove the sample; a score on what was learned by heart says nothing",
    ),
    Reason(
        "leaked_near_duplicate",
        "warn",
        "No benchmark shows a picture that looks like one of the training data.",
        "compare the two pictures",
    ),
    Reason(
        "leaked_question",
        "stop",
        "No benchmark asks a question of the training data.",
        "remove the sample; a score on what was learned by heart says nothing",
    ),
)

REASONS: dict[str, Reason] = {
    reason.code: reason
    for reason in (*_FORM, *_TEXT, *_LENGTH, *_FILES, *_IMAGES, *_VIDEOS, *_LEAKS)
}

#: Problems that are found by opening a file: what an inspection may report as `problem`.
MEDIA_PROBLEMS: tuple[str, ...] = tuple(
    reason.code
    for reason in (*_FILES, *_IMAGES, *_VIDEOS)
    if reason.severity == "quarantine"
    and reason.code not in {"too_many_frames", "empty_range"}  # told by the sample, not the file
)
#: What an inspection may report as `notes`: worth counting, no reason to set a sample aside.
MEDIA_NOTES: tuple[str, ...] = ("wrong_extension", "blank", "variable_rate")
