"""What `Ovis25Inference` returns: text that also knows its parts."""

from dataclasses import dataclass
from typing import Self

from PIL import Image

from ovis_model.inference.grounding import Box, Grounding, Point, draw_overlay, parse_grounding
from ovis_model.inference.thinking import FinishReason, ParsedOutput, ThinkingClosed


@dataclass(frozen=True)
class Usage:
    """Tokens an answer took.

    Attributes:
        prompt_tokens: Positions of the prompt, visual ones included.
        visual_tokens: Positions that images or frames take, indicators included.
        thinking_tokens: Generated before the thought closed.
        answer_tokens: Generated after it.
        generated_tokens: Generated in all, end token and forced sentence included.
    """

    prompt_tokens: int
    visual_tokens: int
    thinking_tokens: int
    answer_tokens: int
    generated_tokens: int


class InferenceResult(str):
    """Everything the model wrote, as a `str`; its parts as attributes.

    Attributes:
        thinking: The thought, "" if there is none.
        answer: What follows the thought, "" if it never closed.
        finish_reason: "stop", or "length" if max_new_tokens cut the output.
        thinking_closed: "natural", "forced" by the budget, "never" or "none".
        usage: Token counts.
    """

    thinking: str
    answer: str
    finish_reason: FinishReason
    thinking_closed: ThinkingClosed
    usage: Usage

    def __new__(cls, output: ParsedOutput, usage: Usage) -> Self:
        """Wrap a parsed output."""
        result = super().__new__(cls, output.text)
        result.thinking = output.thinking
        result.answer = output.answer
        result.finish_reason = output.finish_reason
        result.thinking_closed = output.thinking_closed
        result.usage = usage
        return result

    @property
    def text(self) -> str:
        """The whole text as a plain `str`."""
        return str(self)

    @property
    def truncated_thinking(self) -> bool:
        """Whether the thought did not end by itself."""
        return self.thinking_closed in ("forced", "never")


class GroundingResult(InferenceResult):
    """An answer that locates things; boxes and points are those of the answer, not the thought."""

    image: Image.Image
    grounding: Grounding

    @classmethod
    def of(cls, output: ParsedOutput, usage: Usage, image: Image.Image) -> Self:
        """Wrap a parsed output about an image."""
        result = cls(output, usage)
        result.image = image
        result.grounding = parse_grounding(output.answer)
        return result

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes as fractions of the image."""
        return self.grounding.boxes

    @property
    def points(self) -> tuple[Point, ...]:
        """Points as fractions of the image."""
        return self.grounding.points

    @property
    def pixel_boxes(self) -> list[tuple[float, float, float, float]]:
        """Boxes (x1, y1, x2, y2) in pixels of the image."""
        return [box.to_pixels(*self.image.size) for box in self.boxes]

    @property
    def pixel_points(self) -> list[tuple[float, float]]:
        """Points (x, y) in pixels of the image."""
        return [point.to_pixels(*self.image.size) for point in self.points]

    def overlay(self, colour: str = "red") -> Image.Image:
        """Draw what was located on a copy of the image."""
        located: list[Box | Point] = [*self.boxes, *self.points]
        return draw_overlay(self.image, [(mark, colour) for mark in located])
