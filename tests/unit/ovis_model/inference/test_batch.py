"""Many requests are answered as each of them alone, in order, and bad ones say why."""

import json

import numpy as np
import pytest
from PIL import Image

from ovis_model.errors import DataError
from ovis_model.inference.batch import BATCHES_PER_WINDOW, BatchAnswer, Request, read_requests

GREEDY = {"do_sample": False, "max_new_tokens": 12}
THINKING = {
    "do_sample": False,
    "max_new_tokens": 40,
    "enable_thinking": True,
    "thinking_budget": 5,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    noise = np.random.default_rng(0)
    for name in ("2.png", "10.png"):
        pixels = noise.integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_text("no picture")
    return folder


@pytest.fixture
def mixed(folder):
    first, second = str(folder / "2.png"), str(folder / "10.png")
    return [
        {"prompt": "Which digit is this?", "image": first},
        "Why?",
        Request("Same?", [first, second], system="Be brief."),
        {"prompt": "Which colour is this?", "image": first},
        {"prompt": "What happens?", "video": [first, second]},
        {"prompt": "Is it a 7?", "image": first, "id": "last"},
    ]


def alone(ovis, request, **options):
    if isinstance(request, str):
        return ovis.text_only_inference(request, **options)
    if isinstance(request, Request):
        system = request.system
        return ovis.multi_image_inference(request.images, request.prompt, system=system, **options)
    if "video" in request:
        return ovis.video_inference(request["video"], request["prompt"], **options)
    return ovis.single_image_inference(request["image"], request["prompt"], **options)


@pytest.mark.parametrize("options", [GREEDY, THINKING], ids=["answering", "thinking"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_request_is_answered_in_order_as_it_would_be_alone(ovis, mixed, options, batch_size):
    answers = ovis.batch_inference(mixed, batch_size=batch_size, **options)
    assert [answer.id for answer in answers] == ["0", "1", "2", "3", "4", "last"]
    for request, answer in zip(mixed, answers, strict=True):
        single = alone(ovis, request, **options)
        assert answer.error is None
        assert answer.result == single
        assert answer.result.usage == single.usage


def test_questions_on_one_image_read_it_once(ovis, folder, count_forwards):
    path = str(folder / "2.png")
    questions = [f"Is it a {digit}?" for digit in range(8)]
    requests = [{"prompt": question, "image": path} for question in questions]
    answers = ovis.batch_inference(requests, batch_size=3, **GREEDY)
    assert count_forwards.vision == 1
    singles = [ovis.single_image_inference(path, question, **GREEDY) for question in questions]
    assert [answer.result for answer in answers] == singles


def test_one_image_is_read_once_in_whatever_form_and_order_it_comes(ovis, folder, count_forwards):
    path, content = folder / "2.png", (folder / "2.png").read_bytes()
    requests = [Request("Why?", [path]), Request("How?"), Request("Who?", [content])]
    ovis.batch_inference(requests, **GREEDY)
    assert count_forwards.vision == 1


def test_requests_on_one_image_meet_although_others_lie_between(ovis, folder, count_forwards):
    between = [Request("Why?")] * (BATCHES_PER_WINDOW * 2)
    path = folder / "2.png"
    requests = [Request("Why?", [path]), *between, Request("How?", [path])]
    answers = ovis.batch_inference(requests, batch_size=1, do_sample=False, max_new_tokens=1)
    assert count_forwards.vision == 1
    assert len(answers) == len(requests)


def test_more_images_than_fit_in_memory_are_read_window_by_window(ovis, count_forwards):
    colours = [(shade, 0, 0) for shade in range(BATCHES_PER_WINDOW + 3)]
    requests = [Request("Why?", [Image.new("RGB", (40, 50), colour)]) for colour in colours]
    options = {"do_sample": False, "max_new_tokens": 2}
    answers = ovis.batch_inference(requests, batch_size=1, **options)
    assert count_forwards.vision == len(requests)
    last = ovis.single_image_inference(requests[-1].images[0], "Why?", **options)
    assert answers[-1].result == last


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": "?", "image": "broken.png"}, "broken.png cannot be decoded"),
        ({"prompt": "?", "image": "gone.png"}, "gone.png"),
        ({"prompt": "", "image": "2.png"}, "the prompt is empty"),
        ({"image": "2.png"}, "the request has no prompt"),
        ({"prompt": "?", "imagee": "2.png"}, "unknown key 'imagee'.*did you mean 'image'"),
        ({"prompt": "?", "colour": "red"}, "unknown key 'colour'.*known: id, prompt"),
        ({"prompt": "?", "image": "2.png", "images": []}, "'image' and 'images'"),
        ({"prompt": "?", "image": "2.png", "video": ["2.png"]}, "images or one video"),
        ({"prompt": "?", "video": ["a.mp4", "b.mp4"]}, "ask about one video"),
        ({"prompt": "?", "video": []}, "no frames"),
        ({"prompt": "<image>\n?"}, r"1 <image> placeholder\(s\) for 0"),
        ({"prompt": "?", "image": 5}, "not int"),
        ("no JSON", "line 2: no JSON"),
        ([1], "line 2: no JSON object"),
    ],
)
def test_a_bad_request_says_why_and_the_others_are_answered(
    ovis, folder, tmp_path, request_, message
):
    lines = [{"prompt": "Why?"}, request_, {"prompt": "Which?", "image": "2.png"}]
    text = "\n".join("{" if line == "no JSON" else json.dumps(line) for line in lines)
    path = folder / "requests.jsonl"
    path.write_text(text, encoding="utf-8")
    output = tmp_path / "answers.jsonl"
    first, bad, last = ovis.batch_inference(path, output=output, do_sample=False, max_new_tokens=2)
    assert (first.error, last.error, bad.result) == (None, None, None)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(bad.error)
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert written == [first.to_dict(), bad.to_dict(), last.to_dict()]
    assert written[1] == {"id": "1", "error": bad.error}
    assert written[2]["answer"] == last.result.answer


def test_a_folder_of_images_is_asked_one_question(ovis, folder):
    answers = ovis.batch_inference(folder, "Which digit is this?", **GREEDY)
    assert [answer.id for answer in answers] == ["2.png", "10.png", "broken.png"]
    single = ovis.single_image_inference(folder / "10.png", "Which digit is this?", **GREEDY)
    assert answers[1].result == single
    assert "broken.png cannot be decoded" in answers[2].error


def test_a_folder_without_a_question_is_refused(ovis, folder):
    with pytest.raises(ValueError, match="say by `prompt` what to ask of its images"):
        ovis.batch_inference(folder)


def test_requests_without_a_prompt_take_the_common_one(ovis):
    parsed = read_requests([{"image": "a.png"}, {"prompt": "How?", "image": None}], "Why?")
    assert [list(request.images) for request in parsed] == [["a.png"], []]
    assert [request.prompt for request in parsed] == ["Why?", "How?"]


def test_a_system_message_goes_to_requests_without_their_own(ovis):
    requests = [Request("Why?"), Request("Why?", system="Be brief.")]
    plain, own = ovis.batch_inference(requests, system="Be very long, please.", **GREEDY)
    longer = ovis.text_only_inference("Why?", system="Be very long, please.", **GREEDY)
    brief = ovis.text_only_inference("Why?", system="Be brief.", **GREEDY)
    assert plain.result.usage.prompt_tokens == longer.usage.prompt_tokens
    assert own.result.usage.prompt_tokens == brief.usage.prompt_tokens


def test_nothing_asked_is_nothing_answered(ovis):
    assert ovis.batch_inference([]) == []


@pytest.mark.parametrize("content", [None, "", "\n\n", b"\xff"])
def test_a_file_without_requests_is_named(tmp_path, content):
    path = tmp_path / "requests.jsonl"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"requests\.jsonl (cannot be read|holds no requests)"):
        read_requests(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"enable_thinking": True, "thinking_budget": 9, "max_new_tokens": 9}, "no room"),
    ],
)
def test_settings_that_cannot_work_fail_before_any_request(ovis, options, message):
    with pytest.raises(ValueError, match=message):
        ovis.batch_inference(["Why?"], **options)


def test_line_separators_inside_a_prompt_do_not_end_its_line(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False), encoding="utf-8")
    assert [request.prompt for request in read_requests(path)] == ["a\u2028b"]


def test_an_answer_is_a_result_or_an_error():
    assert BatchAnswer("a", error="gone").to_dict() == {"id": "a", "error": "gone"}
