"""Cut the excerpt of the reference's numbers that travels with the repository.

    python tests/parity/cut_excerpt.py ../shared/golden tests/parity/excerpt

It is copied field by field, nothing is computed anew; a test cuts it again and compares bytes.
Cases are chosen so that every kind of comparison is there once, and all of it stays below 2 MB.
"""

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file

#: Preprocessing cases, one per mode of an image and a video.
MEDIA = ("rgb_53x37", "gray_61x45", "rgba_40x66", "pal_70x50", "la_48x33", "video_3x50x70")
#: Generation cases that show nothing, so that the vision tower's weights can stay away.
TEXT_PROMPTS = ("text_think", "text_nothink", "text_system_nothink")
#: Of the table of sizes, the rows that a tag says something about and some of the others.
EVERY_NTH_SIZE = 12
EVERY_NTH_FRAME_ROW = 4
EVERY_NTH_LOGIT = 8
#: Configuration of the data set's samples; the same that the truncation tables are about.
CONFIG = 0


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def cut_tied(golden: Path, folder: Path) -> dict[str, Any]:
    """Copy the tied checkpoint whole, its inputs as bytes and some rows of its logits."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(golden / "ckpt-tied" / name, folder / name)
    stored, numbers = (
        load_file(golden / "tied/tied.safetensors"),
        read(golden / "tied/manifest.json"),
    )
    pixel_values = ((stored["pixel_values"] * 0.5 + 0.5) * 255).round().to(torch.uint8)
    kept = {name: stored[name] for name in ("input_ids", "labels", "grid_thws")}
    logits = stored["logits"][:, ::EVERY_NTH_LOGIT].contiguous()
    save_file(
        {**kept, "pixel_values": pixel_values, "logits": logits}, folder / "case.safetensors"
    )
    return {name: numbers[name] for name in ("loss", "grad_l2", "greedy_output_ids_8")}


def cut_generation(golden: Path, folder: Path) -> dict[str, Any]:
    """Keep the language model, and of its input embedding the rows that are looked up."""
    folder.mkdir()
    shutil.copyfile(golden / "ckpt-tiny/config.json", folder / "config.json")
    manifest = read(golden / "generate/manifest.json")
    prompts = {p["name"]: p["input_ids"] for p in manifest["prompts"] if p["name"] in TEXT_PROMPTS}
    names = ("name", "prompt", "generate_kwargs", "output_ids")
    cases = [
        {name: case[name] for name in names}
        for case in manifest["cases"]
        if case["prompt"] in TEXT_PROMPTS
        and "reference_error" not in case
        and "repetition_penalty" not in case["generate_kwargs"]
    ]
    weights: dict[str, torch.Tensor] = {}
    for shard in sorted((golden / "ckpt-tiny").glob("*.safetensors")):
        weights |= {k: v for k, v in load_file(shard).items() if k.startswith("llm.")}
    table = weights.pop("llm.model.embed_tokens.weight")
    used = {token for ids in prompts.values() for token in ids}
    used |= {token for case in cases for token in case["output_ids"]}
    rows = torch.tensor(sorted(used))
    cut_weights = save({**weights, "embed_rows": rows, "embed_values": table[rows]})
    (folder / "llm.safetensors.gz").write_bytes(gzip.compress(cut_weights, mtime=0))
    return {
        "special_ids": manifest["special_ids"],
        "closing_sentence": manifest["early_stop_ids"],
        "prompts": prompts,
        "cases": cases,
    }


def cut_media(golden: Path, folder: Path) -> list[dict[str, Any]]:
    """Copy a few pictures, and the digests of the patches they become."""
    folder.mkdir()
    names = ("name", "files", "min_pixels", "max_pixels", "grid_thw", "pixel_values_sha256")
    manifest = read(golden / "preprocess/manifest.json")
    cases = [{n: c[n] for n in names} for c in manifest["cases"] if c["name"] in MEDIA]
    for case in cases:
        case["files"] = [Path(name).name for name in case["files"]]
        for name in case["files"]:
            shutil.copyfile(golden / "preprocess/images" / name, folder / name)
    return cases


def cut_samples(golden: Path) -> list[dict[str, Any]]:
    """Copy ids and labels of the data set's samples, each with its table of truncations."""
    dataset = read(golden / "dataset/dataset.json")
    tables = {table["sample"]: table["rows"] for table in dataset["truncation"]}
    names = ("input_ids", "labels", "grid_thws")
    return [
        # max_length, out_length, images kept, patches kept
        {**{n: item[n] for n in names}, "cuts": [row[:4] for row in tables[item["sample"]]]}
        for item in dataset["items"]
        if item["config"] == CONFIG
    ]


def cut(golden: Path, folder: Path) -> None:
    """Write the excerpt into an empty or new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = read(golden / "smart_resize.json")["rows"]
    numbers = {
        "tied": cut_tied(golden, folder / "tied"),
        "generation": cut_generation(golden, folder / "generation"),
        "media": cut_media(golden, folder / "media"),
        "samples": cut_samples(golden),
        "placeholders": read(golden / "conversation/placeholder_expansion.json")["cases"],
        "sizes": [row for i, row in enumerate(sizes) if "|" in row[-1] or not i % EVERY_NTH_SIZE],
        "frames": read(golden / "dataset/frame_sampling.json")["rows"][::EVERY_NTH_FRAME_ROW],
    }
    text = json.dumps(numbers, separators=(",", ":"))
    (folder / "numbers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(sys.argv[2]))
