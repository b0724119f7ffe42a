r"""What one conversation sample is, and its canonical form: one JSON object per line.

    {"id": "s1", "image": ["images/a.png"], "conversations": [
        {"from": "human", "value": "<image>\nWhich digit is this?"},
        {"from": "gpt", "value": "<think>\nA closed loop.\n</think>\n\n8"}]}

`image` is a list of paths and is left out when empty; `video` is one file, or a list of frame
files, and is left out when there is none.  Paths are relative to the folder the step's
documentation names: raw_data before extraction, data/extracted after it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ovis_model.errors import DataError, list_examples

#: Roles as the seed and the reference spell them; `ignored_gpt` is read but not learned.
Role = Literal["system", "human", "gpt", "ignored_gpt"]
ROLES: tuple[str, ...] = get_args(Role)

MediaPath = Annotated[str, Field(min_length=1)]


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)

    role: Role = Field(alias="from")
    value: str


class Fit(BaseModel):
    """What makes a sample fit that would be too long: limits of its own, below the model's.

    Validation writes it where `validate.over_length` asks for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pixels: Annotated[int, Field(gt=0, description="of each image or frame")] | None = None
    max_frames: Annotated[int, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0, description="what follows is cut")] | None = None


class Sample(BaseModel):
    """One conversation with the images it shows, or the one video, or neither."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, Field(min_length=1)]
    image: tuple[MediaPath, ...] = ()
    video: MediaPath | tuple[MediaPath, ...] | None = None
    video_start: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="seconds; the part of a video file that is shown begins here"
    )
    video_end: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="seconds; and ends before this"
    )
    conversations: tuple[Turn, ...]
    fit: Fit | None = None
    source: str | None = Field(default=None, description="where it came from; carried along")

    @field_validator("id", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        # Many datasets number their samples; True is an int to Python, but no number.
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("image", mode="before")
    @classmethod
    def _always_a_list(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @field_validator("video", mode="before")
    @classmethod
    def _no_empty_list(cls, value: Any) -> Any:
        return None if value in ([], ()) else value

    @field_validator("conversations")
    @classmethod
    def _somebody_speaks(cls, value: tuple[Turn, ...]) -> tuple[Turn, ...]:
        if not value:
            raise ValueError("a conversation needs at least one turn")
        return value

    @model_validator(mode="after")
    def _part_of_a_video_file(self) -> Self:
        start, end = self.video_start, self.video_end
        if (start is not None or end is not None) and not isinstance(self.video, str):
            raise ValueError(
                "video_start and video_end need a video in one file: frames have no times"
            )
        if end is not None and end <= (start or 0.0):
            raise ValueError(f"video_end ({end} s) must come after video_start ({start or 0} s)")
        return self

    @property
    def frames(self) -> tuple[str, ...]:
        """The video's frame files; empty without a video and for a video in one file."""
        # DIVERGES(video-as-frames): a list under `video` makes the reference fail.
        return self.video if isinstance(self.video, tuple) else ()

    @property
    def media(self) -> tuple[str, ...]:
        """Every path the sample names, images first."""
        video = (self.video,) if isinstance(self.video, str) else self.frames
        return self.image + video

    def to_json(self) -> str:
        """Return the canonical line, without its newline.

        Example:
            >>> Sample(id=1, image="a.png", conversations=[Turn(role="gpt", value="7")]).to_json()
            '{"id": "1", "image": ["a.png"], "conversations": [{"from": "gpt", "value": "7"}]}'
        """
        line: dict[str, Any] = {"id": self.id}
        if self.image:
            line["image"] = list(self.image)
        if self.video is not None:
            line["video"] = list(self.video) if isinstance(self.video, tuple) else self.video
        for key in ("video_start", "video_end"):
            if (seconds := getattr(self, key)) is not None:
                line[key] = seconds
        line["conversations"] = [{"from": t.role, "value": t.value} for t in self.conversations]
        if self.source is not None:
            line["source"] = self.source
        if self.fit is not None:
            line["fit"] = self.fit.model_dump(exclude_none=True)
        return json.dumps(line, ensure_ascii=False)


def parse_sample(value: Any) -> Sample:
    """Build a sample from decoded JSON.

    Raises:
        DataError: With every finding in one line, each with the place inside the sample.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"a sample is a JSON object, this is a {type(value).__name__}")
    try:
        return Sample.model_validate(value)
    except ValidationError as error:
        raise DataError(list_examples([_explain(e) for e in error.errors()])) from error


def parse_sample_json(line: bytes | str) -> Sample:
    """Build a sample from one canonical line that this project wrote, and so trusts.

    Raises:
        ValidationError: If somebody else wrote it.
    """
    return Sample.model_validate_json(line)


def _explain(finding: Any) -> str:
    place = ".".join(str(part) for part in finding["loc"])
    if finding["type"] == "missing":
        return f"{place}: missing"
    got = repr(finding["input"])
    got = got if len(got) <= 60 else got[:57] + "..."
    return f"{place}: {finding['msg'].removeprefix('Value error, ')} (got {got})"


def read_samples(path: Path) -> Iterator[Sample]:
    """Read canonical JSONL, one sample at a time.

    Raises:
        DataError: Naming file and line, if the file is missing or a line is not a sample.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield parse_sample(json.loads(line))
                except (json.JSONDecodeError, DataError) as error:
                    raise DataError(
                        f"{path}, line {number}: {error}. The pipeline writes this file: "
                        "run `dvc repro` to write it anew"
                    ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; `dvc repro` writes it") from error


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write canonical JSONL through a sibling `.partial` file and return the line count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            file.write(sample.to_json() + "\n")
            count += 1
    partial.replace(path)
    return count
