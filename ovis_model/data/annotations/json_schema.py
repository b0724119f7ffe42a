"""The published JSON Schema of what people write: one sample, a list of them, the seed's file.

It is made from `ovis_model.data.schema.Sample`, loosened where a file may say less than the
canonical form does: one image need not be a list, a number will do as an id, and a missing id is
made from the content.  `data/conversation.schema.json` holds it, for editors and for other tools.
"""

import json
from pathlib import Path
from typing import Any

from ovis_model.data.schema import Sample
from ovis_model.reports import write_text

#: Draft that pydantic writes.
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build_schema() -> dict[str, Any]:
    """Return the schema of an annotation file in JSON; one line of JSON lines fits it too."""
    sample = Sample.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    definitions = sample.pop("$defs")
    properties = sample["properties"]
    path = properties["image"]["items"]
    properties["id"] = {**properties["id"], "type": ["string", "integer", "null"]}
    properties["image"] = {
        "anyOf": [path, {"type": "array", "items": path}, {"type": "null"}],
        "title": "Image",
        "description": "paths relative to the raw data, one for each <image> in the human turns",
    }
    properties["conversations"] = {**properties["conversations"], "minItems": 1}
    sample["required"] = ["conversations"]
    reference = {"$ref": "#/$defs/Sample"}
    samples = {"type": "array", "items": reference}
    return {
        "$schema": DIALECT,
        "title": "Annotations of Ovis2.5 Ops",
        "description": "A list of samples, the seed's object with such a list, or one sample.",
        "anyOf": [
            samples,
            {
                "type": "object",
                "required": ["conversations"],
                "properties": {"conversations": samples},
            },
            reference,
        ],
        "$defs": {**definitions, "Sample": sample},
    }


def write_schema(path: Path) -> None:
    """Write the schema as data/conversation.schema.json holds it."""
    write_text(path, json.dumps(build_schema(), indent=2) + "\n")
