"""What was located in images, as a COCO data set: the format annotation tools read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ovis_model.inference.grounding import Box, Grounding, Point

#: The name of the category of things nobody named.
UNNAMED = "object"


@dataclass(frozen=True)
class GroundedImage:
    """An image and what was located in it.

    Attributes:
        file_name: The image's name, as the data set is to give it.
        width: In pixels.
        height: In pixels.
        grounding: Boxes and points, as fractions of the image.
    """

    file_name: str
    width: int
    height: int
    grounding: Grounding


def to_coco(images: Sequence[GroundedImage]) -> dict[str, Any]:
    """Write boxes and points as COCO annotations.

    A box becomes a `bbox` [x, y, width, height] in pixels; a point becomes a visible keypoint
    with an empty box around it.  Corners in the wrong order are put in order, and what lies
    outside the image is clamped to it.  Labels become categories, in order of appearance.

    Returns:
        A JSON-able object with images, annotations and categories; ids begin at 1.
    """
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for image_id, image in enumerate(images, 1):
        marks: list[Box | Point] = [*image.grounding.boxes, *image.grounding.points]
        for mark in marks:
            label = mark.label or UNNAMED
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": categories.setdefault(label, len(categories) + 1),
                    "iscrowd": 0,
                    **_geometry(mark, image.width, image.height),
                }
            )
    return {
        "images": [
            {
                "id": image_id,
                "file_name": image.file_name,
                "width": image.width,
                "height": image.height,
            }
            for image_id, image in enumerate(images, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def _geometry(mark: Box | Point, width: int, height: int) -> dict[str, Any]:
    if isinstance(mark, Point):
        x, y = mark.to_pixels(width, height)
        visible = 2
        return {
            "bbox": [x, y, 0.0, 0.0],
            "area": 0.0,
            "keypoints": [x, y, visible],
            "num_keypoints": 1,
        }
    x1, y1, x2, y2 = mark.ordered().to_pixels(width, height)
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
