"""`ovis infer`: answers on standard output, sentences and exit codes."""

import json

import pytest
from PIL import Image

from ovis_model.inference.ovis25_inference import Ovis25Inference
from tasks.cli import main
from tests.support.tiny_model import build_tiny_checkpoint

GREEDY = ("--greedy", "--max-new-tokens", "8")
SETTINGS = {"do_sample": False, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def ovis(model):
    return Ovis25Inference(model, device="auto")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 50), "red").save(path)
    return path


def test_one_answer_is_written_as_text(model, ovis, picture, capsys):
    assert main(["infer", str(model), "Which?", "--image", str(picture), *GREEDY]) == 0
    expected = ovis.single_image_inference(picture, "Which?", **SETTINGS)
    assert capsys.readouterr().out == f"{expected}\n"


def test_one_answer_is_written_as_json(model, ovis, picture, capsys):
    options = ["--thinking-budget", "3", "--system", "Be brief.", "--json"]
    command = ["infer", str(model), "Why?", "--greedy", "--max-new-tokens", "40", *options]
    assert main([*command, "--video", str(picture.parent)]) == 0
    expected = ovis.video_inference(
        picture.parent,
        "Why?",
        max_new_tokens=40,
        do_sample=False,
        enable_thinking=True,
        thinking_budget=3,
        system="Be brief.",
    )
    assert json.loads(capsys.readouterr().out) == expected.to_dict()


def test_a_seed_repeats_a_sampled_answer(model, capsys):
    command = ["infer", str(model), "Why?", "--max-new-tokens", "8", "--seed", "3"]
    said = [(main(command), capsys.readouterr().out) for _ in range(2)]
    assert said[0] == said[1]


def test_a_batch_is_written_to_a_file_and_its_errors_are_said(model, picture, capsys):
    (picture.parent / "broken.png").write_text("no picture")
    output = picture.parent / "answers.jsonl"
    batch = ["--batch", str(picture.parent), "--output", str(output), "--system", "Be brief."]
    assert main(["infer", str(model), "Which?", *batch, *GREEDY]) == 0
    said = capsys.readouterr()
    assert said.out == f"1 answers in {output}\n"
    assert "request broken.png: " in said.err
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["broken.png", "red.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what to ask, or give --batch"),
        (["?", "--output", "a"], "--output belongs to --batch"),
        (["--batch", "a"], "--batch needs --output"),
        (["--batch", "a", "--output", "b", "--image", "c"], "--batch names its own media"),
        (["", *GREEDY], "the prompt is empty"),
        (["?", "--max-new-tokens", "0"], "max_new_tokens must be at least 1"),
    ],
)
def test_arguments_that_cannot_work_are_exit_code_2(model, capsys, options, message):
    assert main(["infer", str(model), *options]) == 2
    assert f"ovis infer: {message}" in capsys.readouterr().err


def test_a_missing_picture_is_exit_code_1(model, capsys):
    assert main(["infer", str(model), "?", "--image", "gone.png"]) == 1
    assert "gone.png" in capsys.readouterr().err
