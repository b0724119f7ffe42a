"""Records about one picture that are no conversations yet: captions, and names with boxes.

A question is put before what the record says.  Captions draw theirs from a list, by the
picture's path, so that the same file always gives the same samples.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from ovis_model import tokens
from ovis_model.data.annotations.coordinates import Size, to_fractions, write_mark, write_ref
from ovis_model.data.annotations.foreign_chat import Context, Converted
from ovis_model.data.annotations.foreign_objects import read_numbers
from ovis_model.errors import DataError

#: What is asked for a caption, unless the record brings its `caption_template`.
CAPTION_QUESTIONS = (
    "Describe this image.",
    "What is in this picture?",
    "Write a caption for this image.",
    "What does the image show?",
    "Give a short description of the picture.",
)
#: Where RefCOCO's many editions put the path of the picture, the words, and the picture's size.
IMAGE_KEYS = ("image", "img", "file_name", "image_path")
WORDS_KEYS = ("sentences", "sent", "sentence", "expression", "phrase", "caption", "question")
SIZE_KEYS = (("width", "height"), ("image_width", "image_height"))
#: RefCOCO's own boxes are a corner with width and height, in pixels.
REFCOCO_CONVENTION = "absolute_xywh"

_IMAGE = tokens.IMAGE_PLACEHOLDER
#: Keys of COCO's tables that are of no use in a conversation.
_COCO_KEYS = frozenset({"caption", "file_name", "image_id", "width", "height"})


def from_caption(value: Mapping[str, Any], _: Context) -> list[Converted]:
    """Read the official caption data.

    {"image": "a.jpg", "caption": "A cat.", "caption_template": "<image> What is it?"}
    """
    caption, image = value.get("caption"), _first_of(value, IMAGE_KEYS)
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not isinstance(caption, str) or not isinstance(image, str):
        raise DataError("a caption needs 'image' and 'caption', both texts")
    question, note = _question_for(image), "question made from a template"
    template = value.get("caption_template")
    if template is not None:
        if not isinstance(template, str) or template.count(_IMAGE) != 1:
            raise DataError(f"'caption_template' is not a text with one {_IMAGE}")
        question, note = template, "question taken from caption_template"
    rest = _without(value, {"caption", "caption_template", *IMAGE_KEYS})
    return [_sample(rest, image, question, caption, note)]


def from_coco_caption(value: Mapping[str, Any], _: Context) -> list[Converted]:
    """Read one annotation of COCO's captions, joined with its image.

    {"id": 48, "image_id": 318556, "caption": "A cat.", "file_name": "a.jpg", "width": 640, ...}
    """
    caption, image = value.get("caption"), value.get("file_name")
    if not isinstance(caption, str):
        raise DataError("there is no 'caption'; of COCO's files those with captions are read")
    if not isinstance(image, str):
        raise DataError(f"no entry of 'images' has the id {value.get('image_id')!r}")
    rest = _without(value, _COCO_KEYS)
    note = "question made from a template"
    return [_sample(rest, image, _question_for(image), caption.strip(), note)]


def _question_for(image: str) -> str:
    digest = hashlib.sha256(image.encode("utf-8", "surrogatepass")).digest()
    question = CAPTION_QUESTIONS[int.from_bytes(digest[:4]) % len(CAPTION_QUESTIONS)]
    return f"{_IMAGE}\n{question}"


def from_refcoco(value: Mapping[str, Any], context: Context) -> list[Converted]:
    """Read words for a thing in a picture, with its box; several words are several samples.

    {"image": "a.jpg", "sentences": ["left cat", {"sent": "the grey one"}],
     "bbox": [10, 20, 200, 100], "width": 640, "height": 480}

    The picture is under `image`, `img`, `file_name` or `image_path`; the words are under
    `sentences`, `sent`, `sentence`, `expression`, `phrase`, `caption` or, as a whole question,
    `question`; without `width` and `height` (or `image_width` and `image_height`) the picture is
    asked.  Boxes are [x, y, width, height] in pixels unless `coordinates` says otherwise.
    """
    image = _first_of(value, IMAGE_KEYS)
    if not isinstance(image, str):
        raise DataError(f"there is no path of a picture under {', '.join(IMAGE_KEYS)}")
    convention = context.coordinates if context.coordinates != "ovis" else REFCOCO_CONVENTION
    numbers = read_numbers(value.get("bbox"), "bbox")
    if len(numbers) != 4:
        raise DataError(f"bbox has {len(numbers)} numbers, not 4")
    mark = write_mark(to_fractions(numbers, convention, _size(value, image, context)))
    key = next((key for key in WORDS_KEYS if value.get(key)), None)
    if key is None:
        raise DataError(f"there are no words for the box under {', '.join(WORDS_KEYS)}")
    given = value[key]
    words = [_text_of(each) for each in (given if isinstance(given, list) else [given])]
    used = {*IMAGE_KEYS, *SIZE_KEYS[0], *SIZE_KEYS[1], "bbox", key}
    rest = _without(value, used)
    samples = []
    for number, text in enumerate(words, start=1):
        own = dict(rest)
        part = None
        if len(words) > 1:
            part = f"text {number}"
            if own.get("id") is not None:
                own["id"] = f"{own['id']}_{number}"
        question = text if key == "question" else f"Find the {write_ref(text)} in the image."
        answer = mark if key == "question" else write_ref(text) + mark
        made = _sample(own, image, f"{_IMAGE}\n{question}", answer, "question made around a box")
        made.part = part
        samples.append(made)
    return samples


def _text_of(words: Any) -> str:
    if isinstance(words, Mapping):
        words = words.get("sent", words.get("raw"))
    if not isinstance(words, str) or not words.strip():
        raise DataError("the words for the box are no text")
    return words.strip()


def _size(value: Mapping[str, Any], image: str, context: Context) -> Size | None:
    for names in SIZE_KEYS:
        width, height = (value.get(name) for name in names)
        if type(width) is int and type(height) is int:
            return width, height
    return context.size(image)


def _first_of(value: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _without(value: Mapping[str, Any], keys: frozenset[str] | set[str]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key not in keys}


def _sample(
    rest: Mapping[str, Any], image: str, question: str, answer: str, note: str
) -> Converted:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return Converted({**rest, "image": image, "conversations": turns}, (note,))
