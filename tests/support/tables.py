"""Small tables in VLMEvalKit's layout, with real pictures in base64."""

import base64
import csv
import io

from PIL import Image


def png(colour="red", size=(4, 4)):
    """The bytes of a small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def as_cell(data):
    """A picture as a cell of a table."""
    return base64.b64encode(data).decode("ascii")


def write_table(path, rows):
    """Write rows as pandas does for VLMEvalKit: quoted only where it is needed."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
    return path
