import json
import re
import shutil
from pathlib import Path

import digit_exercises
import digit_media
import make_digits
import numpy as np
import pytest
import yaml
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.annotations.formats import read_records
from ovis_model.data.media.frames import read_frames
from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks
from ovis_model.reports import sha256_of_file, sha256_of_folder
from ovis_model.tokens import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

SAMPLE = Path(make_digits.__file__).parent


def read_samples(folder):
    return [record.parse() for record in read_records(folder / "train" / "annotations.json")]


def kind_of(sample):
    return re.sub(r"_\d{4}.*", "", sample.id)


def test_the_same_parameters_give_the_same_bytes_in_another_process(
    digits, params_file, run_script, tmp_path
):
    run_script("make_digits.py", "--params", params_file, "--output", tmp_path / "again")
    assert sha256_of_folder(tmp_path / "again") == sha256_of_folder(digits)


def test_train_and_benchmarks_share_no_picture_and_no_clip(digits):
    train, benchmarks = (
        {sha256_of_file(path) for path in (digits / part).rglob("*.*") if path.is_file()}
        for part in ("train", "benchmarks")
    )
    assert len(train) > 20
    assert len(benchmarks) > 20
    assert not train & benchmarks


def test_the_split_covers_all_scans_once_and_keeps_their_content_apart():
    scans = digit_media.load_distinct_digits()
    train, held_out = digit_media.split_digits(scans, benchmark_fraction=0.2, seed=0)
    assert len(train) + len(held_out) == len(scans)
    assert not {d.ink.tobytes() for d in train} & {d.ink.tobytes() for d in held_out}


def test_both_parts_hold_every_class_in_the_same_proportion():
    scans = digit_media.load_distinct_digits()
    _, held_out = digit_media.split_digits(scans, benchmark_fraction=0.2, seed=0)
    for label in range(10):
        total = sum(digit.label == label for digit in scans)
        assert sum(digit.label == label for digit in held_out) == round(0.2 * total)


def test_another_seed_holds_out_other_digits():
    scans = digit_media.load_distinct_digits()
    parts = [
        {
            digit.index
            for digit in digit_media.split_digits(scans, benchmark_fraction=0.2, seed=s)[1]
        }
        for s in (0, 1)
    ]
    assert parts[0] != parts[1]


def test_every_kind_occurs_as_often_as_asked(digits):
    kinds = [kind_of(sample) for sample in read_samples(digits)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "single": 2 * 12,
        "multi_image": 4,
        "video_file": 2,
        "video_frames": 3,
        "grounding": 8,
        "text": 10,
        "system": 8,
        "multi_turn": 4,
    }


def test_the_file_has_the_seeds_shape(digits):
    document = json.loads((digits / "train" / "annotations.json").read_text(encoding="utf-8"))
    assert list(document) == ["conversations"]
    by_id = {sample["id"]: sample for sample in document["conversations"]}
    assert isinstance(by_id["multi_image_0000"]["image"], list)
    assert isinstance(by_id["grounding_0000"]["image"], str)
    assert by_id["video_file_0000"]["video"] == "videos/video_file_0000.mp4"
    assert len(by_id["video_frames_0000"]["video"]) == 4
    assert not {"image", "video"} & set(by_id["text_0000"])


def test_the_pipeline_reads_every_sample_and_finds_its_media(digits):
    for sample in read_samples(digits):
        text = "".join(turn.value for turn in sample.conversations)
        assert text.count(IMAGE_PLACEHOLDER) == len(sample.image)
        assert text.count(VIDEO_PLACEHOLDER) == (sample.video is not None)
        assert all((digits / "train" / path).is_file() for path in sample.media)


def test_no_file_is_written_that_no_sample_names(digits):
    named = {path for sample in read_samples(digits) for path in sample.media}
    root = digits / "train"
    written = {
        path.relative_to(root).as_posix()
        for folder in ("images", "videos")
        for path in (root / folder).iterdir()
    }
    assert written == named


def test_each_single_digit_is_told_with_and_without_a_thought(digits):
    answers = {
        sample.id: sample.conversations[-1].value
        for sample in read_samples(digits)
        if kind_of(sample) == "single"
    }
    for name, answer in answers.items():
        if name.endswith("_think"):
            plain = answers[name.replace("_think", "_plain")]
            assert re.fullmatch(rf"<think>\n.+\n</think>\n\n{plain}", answer)
        else:
            assert re.fullmatch(r"\d", answer)


@pytest.mark.parametrize(
    "kind", ["multi_image", "video_file", "video_frames", "grounding", "text", "system"]
)
def test_every_kind_has_answers_with_and_without_thought(digits, kind):
    answers = [s.conversations[-1].value for s in read_samples(digits) if kind_of(s) == kind]
    assert {answer.startswith("<think>\n") for answer in answers} == {True, False}


def test_a_system_prompt_decides_between_word_and_numeral(digits):
    for sample in read_samples(digits):
        if kind_of(sample) == "system":
            prompt, _, answer = sample.conversations
            final = answer.value.split("\n\n")[-1]
            wants_word = prompt.value == "Answer with an English word."
            assert (final in digit_exercises.WORDS) is wants_word


def test_a_second_turn_asks_about_the_same_picture(digits):
    for sample in read_samples(digits):
        if kind_of(sample) == "multi_turn":
            roles = [turn.role for turn in sample.conversations]
            assert roles == ["human", "gpt", "human", "gpt"]
            first, last = (sample.conversations[n].value.split("\n\n")[-1] for n in (1, 3))
            assert last == ("No" if int(first) % 2 else "Yes")


def test_the_pipeline_reads_the_benchmarks(digits):
    found = {benchmark.name: benchmark for benchmark in load_benchmarks(digits / "benchmarks")}
    sizes = {name: len(benchmark.items) for name, benchmark in found.items()}
    assert sizes == {
        "digits_single": 10,
        "digits_multi_image": 4,
        "digits_video": 1,
        "digits_grounding": 8,
    }
    assert found["digits_grounding"].header.metric == "iou"
    assert all(
        benchmark.source_of(path).is_file()
        for benchmark in found.values()
        for item in benchmark.items
        for path in item.media
    )


def test_benchmarks_ask_in_words_that_training_knows(digits):
    known = {
        re.sub(r"\d", "#", turn.value)
        for sample in read_samples(digits)
        for turn in sample.conversations
        if turn.role == "human"
    }
    asked = {
        re.sub(r"\d", "#", item.question)
        for benchmark in load_benchmarks(digits / "benchmarks")
        if benchmark.name != "digits_multi_image"  # the small train set lacks a combination
        for item in benchmark.items
    }
    assert asked <= known


def test_four_frames_sampled_from_a_clip_show_its_four_digits(tmp_path):
    shown = digit_media.load_distinct_digits()[10:14]
    media = digit_media.MediaFolder(tmp_path, side=32, fps=6, frames_per_digit=3)
    clip = tmp_path / media.add_clip("clip", shown)
    frames = read_frames(clip, FrameSampling(min_frames=4, max_frames=4))
    for frame, digit in zip(frames, shown, strict=True):
        drawn = np.asarray(digit_media.draw_digit(digit, side=32), dtype=int)
        # H.264 rounds colours; another digit would differ by more than 100 levels somewhere.
        assert np.abs(np.asarray(frame, dtype=int) - drawn).max() < 20


def test_a_digit_is_dark_ink_on_white_paper_at_the_size_asked_for():
    digit = digit_media.load_distinct_digits()[0]
    drawn = np.asarray(digit_media.draw_digit(digit, side=64))
    assert drawn.shape == (64, 64, 3)
    assert drawn[0, 0].tolist() == [255, 255, 255]
    assert drawn.min() < 30


@pytest.mark.parametrize(
    ("cell", "corners"),
    [
        pytest.param(0, "(0.000,0.000),(0.333,0.333)", id="top left"),
        pytest.param(4, "(0.333,0.333),(0.667,0.667)", id="middle"),
        pytest.param(8, "(0.667,0.667),(0.999,0.999)", id="bottom right"),
    ],
)
def test_a_box_surrounds_its_digit_and_stays_below_one(cell, corners):
    digit = digit_media.load_distinct_digits()[7]
    canvas = digit_media.draw_canvas({cell: digit}, side=32)
    assert digit_exercises.format_cell(cell) == corners
    box = [round(float(number) * canvas.width) for number in re.findall(r"\d\.\d+", corners)]
    assert np.array_equal(canvas.crop(box), digit_media.draw_digit(digit, side=32))


def test_the_digit_asked_for_is_the_digit_answered(digits):
    for sample in read_samples(digits):
        if kind_of(sample) == "grounding":
            with Image.open(digits / "train" / sample.image[0]) as canvas:
                assert canvas.size == (96, 96)
                assert canvas.mode == "RGB"
            wanted = re.search(r"<ref>(\d)</ref>", sample.conversations[0].value)
            answered = re.search(r"<ref>(\d)</ref><box>", sample.conversations[1].value)
            assert wanted[1] == answered[1]


def test_a_run_that_fails_leaves_the_earlier_data_alone(digits, params_file, tmp_path):
    earlier = shutil.copytree(digits, tmp_path / "digits")
    config = make_digits.DigitsConfig.read(params_file)
    impossible = config.train.model_copy(update={"text_only": 100_000})
    with pytest.raises(ValueError, match="asks for 100000 different text-only samples, but"):
        make_digits.make_digits(config.model_copy(update={"train": impossible}), earlier)
    assert sha256_of_folder(earlier / "train") == sha256_of_folder(digits / "train")


def test_a_run_replaces_what_an_interrupted_one_left(digits, params_file, tmp_path):
    leftover = tmp_path / "digits" / "train.partial" / "images"
    leftover.mkdir(parents=True)
    (leftover / "half.png").write_bytes(b"half")
    make_digits.make_digits(make_digits.DigitsConfig.read(params_file), tmp_path / "digits")
    assert sha256_of_folder(tmp_path / "digits") == sha256_of_folder(digits)


def test_an_unknown_parameter_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"digits": {"sed": 1}}), encoding="utf-8")
    with pytest.raises(ValueError, match="sed"):
        make_digits.DigitsConfig.read(path)


def test_the_readme_quotes_real_lines(tmp_path):
    make_digits.make_digits(make_digits.DigitsConfig.read(SAMPLE / "params.yaml"), tmp_path)
    train = tmp_path / "train"
    document = json.loads((train / "annotations.json").read_text(encoding="utf-8"))
    real = list(document["conversations"])
    for items in (tmp_path / "benchmarks").glob("*.jsonl"):
        real += [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
    readme = (SAMPLE.parent / "README.md").read_text(encoding="utf-8")
    quoted = [json.loads(line) for line in readme.splitlines() if line.startswith('{"id"')]
    assert len(quoted) > 10
    originals = {sample["id"]: sample for sample in document["conversations"]}
    for line in quoted:
        if "verdict" in line:  # of a ledger
            assert line["id"] in originals
        elif "media/" in str(line):  # after extraction: images are named after their content
            names = [path.rpartition("/")[2] for path in line["image"]]
            sources = originals[line["id"]]["image"]
            assert names == [f"{sha256_of_file(train / path)}.png" for path in sources]
        else:
            assert line in real
