"""`ovis data`: what it says, what it writes, and its exit codes."""

import json
from pathlib import Path

import pytest
import yaml

from ovis_model.config import FrameSampling
from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.schema import Fit, parse_sample, read_samples, write_samples
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.reports import sha256_of_file
from tasks.cli import main
from tests.support.raw_data import sample, write_annotations, write_every_kind, write_picture
from tests.support.tiny_model import TINY_PIXELS, build_tiny_checkpoint

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tree(tmp_path, monkeypatch, base_model):
    """Stand in a working tree with raw data of every kind, validated."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["validate"]["raw_data"] = "raw"
    params["train"].update(TINY_PIXELS.model_dump(), ovis_pretrained_path=str(base_model))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    values = write_every_kind(tmp_path / "raw")
    samples = [parse_sample(value) for value in values]
    validated = tmp_path / "data/validated"
    write_samples(validated / "train.jsonl", samples[:-1])
    write_samples(validated / "holdout.jsonl", samples[-1:])
    (validated / "media.jsonl").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return main(["data", *map(str, arguments)])


def run_json(capsys, *arguments):
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def as_training_sees(tree, base_model, sample_id):
    """Encode a sample as training does, with four frames of a video."""
    processor = Ovis2_5Processor.from_pretrained(base_model).with_settings(
        pixel_limits=TINY_PIXELS, frame_sampling=FrameSampling(min_frames=4, max_frames=4)
    )
    found = [
        one
        for part in ("train", "holdout")
        for one in read_samples(tree / f"data/validated/{part}.jsonl")
        if one.id == sample_id
    ]
    return ConversationDataset(found, media_root=tree / "raw", processor=processor)[0].encoded


# ---- show -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_id", ["single", "thinking", "several", "clip", "text", "system"])
def test_the_tokens_shown_are_those_of_training(tree, base_model, capsys, sample_id):
    found = run_json(capsys, "show", sample_id)
    encoded = as_training_sees(tree, base_model, sample_id)
    assert found["num_tokens"] == len(encoded.input_ids)
    assert found["num_supervised_tokens"] == int((encoded.labels != -100).sum())
    assert sum(piece["num_tokens"] for piece in found["mask"]) == len(encoded.input_ids)


def test_a_sample_is_described_with_its_media_and_mask(tree, capsys):
    assert run("show", "thinking") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[:3] == [
        "sample      thinking",
        "is          train, single image, with think",
        "in          data/validated/train.jsonl",
    ]
    size = (tree / "raw/images/b.png").stat().st_size
    assert f"media       images/b.png  32 x 32 px, {size} bytes" in lines
    assert "media   | image 1 (3 tokens)" in lines
    assert lines[lines.index("learned | <think>") + 1 :] == [
        "        | Rather dark.",
        "        | </think>",
        "        |",
        "        | 60<|im_end|>",
    ]
    assert "\x1b" not in said.out
    assert said.err == ""


def test_colours_can_be_asked_for(tree, capsys):
    assert run("show", "text", "--color") == 0
    assert "learned | \x1b[32m2<|im_end|>\x1b[0m" in capsys.readouterr().out


def test_a_video_says_how_long_it_is(tree, capsys):
    assert run("show", "clip") == 0
    assert "px, " in (said := capsys.readouterr().out)
    assert "6 frames, 1.50 s" in said


def test_the_page_holds_the_pictures_and_the_mask(tree, capsys):
    page = tree / "pages/clip.html"
    assert run("show", "clip", "--html", page) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg;base64,') == 6
    assert '<span class="supervised"' in text


def test_extracted_data_is_preferred_and_a_folder_can_be_named(tree, capsys):
    write_picture(tree / "data/extracted/media/x.png", 3, side=64)
    extracted = parse_sample(sample("single", "<image>?", "new", image="media/x.png"))
    write_samples(tree / "data/extracted/train.jsonl", [extracted])
    found = run_json(capsys, "show", "single")
    assert found["where"] == "data/extracted/train.jsonl"
    assert found["media"][0]["size"] == [64, 64]
    assert run_json(capsys, "show", "twice")["where"] == "data/validated/train.jsonl"
    found = run_json(capsys, "show", "single", "--data", "data/validated")
    assert found["where"] == "data/validated/train.jsonl"


def test_data_extracted_from_another_validation_are_told_to_be_old(tree, capsys):
    sample_of_old = parse_sample(sample("old", "?", "1"))
    write_samples(tree / "data/extracted/train.jsonl", [sample_of_old])
    write_samples(tree / "data/extracted/holdout.jsonl", [])
    manifest = tree / "data/extracted/manifest.json"
    (tree / "data/validated/manifest.json").write_text("{}")
    digest = sha256_of_file(tree / "data/validated/manifest.json")
    manifest.write_text(json.dumps({"validated": digest}))
    assert run("stats") == 0
    assert "older than" not in capsys.readouterr().err
    manifest.write_text(json.dumps({"validated": "0" * 64}))
    assert run("stats") == 0
    assert "data/extracted is older than the last validation" in capsys.readouterr().err


def test_limits_that_make_a_sample_fit_are_applied(tree, base_model, capsys):
    path = tree / "data/validated/train.jsonl"
    samples = {found.id: found for found in read_samples(path)}
    cut = samples["text"].model_copy(update={"fit": Fit(max_tokens=20)})
    small = samples["single"].model_copy(update={"fit": Fit(max_pixels=1024)})
    short = samples["clip"].model_copy(update={"fit": Fit(max_frames=2)})
    write_samples(path, [cut, small, short])
    for sample_id in ("text", "single", "clip"):
        found = run_json(capsys, "show", sample_id)
        encoded = as_training_sees(tree, base_model, sample_id)
        assert found["num_tokens"] == len(encoded.input_ids)
    assert run("show", "text") == 0
    said = capsys.readouterr().out
    assert "made to fit max_tokens 20" in said
    assert "cut off |\n" in said


def test_a_missing_picture_is_said_and_the_rest_is_shown(tree, capsys):
    (tree / "raw/images/a.png").unlink()
    assert run("show", "single") == 0
    said = capsys.readouterr().out
    assert "media       images/a.png: " in said
    assert "tokens      not counted: " in said
    assert "learned | 10<|im_end|>" in said


def test_without_a_base_model_the_turns_tell_what_is_learned(tree, capsys):
    params = (tree / "params.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(params)
    values["train"]["ovis_pretrained_path"] = "nowhere"
    (tree / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert run("show", "text") == 0
    said = capsys.readouterr()
    assert said.err.startswith("tokens are not counted: nowhere has no tokenizer_config.json")
    assert "learned | 2<|im_end|>" in said.out


def test_what_steers_a_terminal_is_shown_and_not_obeyed(tree, capsys):
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e"
    found = parse_sample({**sample("s", f"{hostile}?", f"{hostile}!"), "source": hostile})
    write_samples(tree / "data/validated/train.jsonl", [found])
    assert run("show", "s", "--color") == 0
    said = capsys.readouterr().out
    for character in ("\x07", "\u202e", "\x1b]", "\x1b[2J"):
        assert character not in said
    assert "⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[2J⟨U+202E⟩!" in said


def test_an_unknown_id_is_an_error_that_says_where_was_looked(tree, capsys):
    assert run("show", "nobody") == 1
    said = capsys.readouterr().err
    assert said.startswith("ovis data: no sample 'nobody' in data/validated.")


def test_before_the_first_run_there_is_nothing_to_show(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("show", "s") == 1
    assert "there is no data/extracted/train.jsonl or data/validated" in capsys.readouterr().err


# ---- stats ----------------------------------------------------------------------------------


def test_kinds_and_sizes_are_tabulated(tree, capsys):
    assert run("stats") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "9 samples in data/validated: train 8, holdout 1"
    rows = {line.rsplit("  ", 2)[0].strip(): line.split() for line in said}
    assert rows["single image"][-3:] == ["3", "33.3", "%"]
    assert rows["text only"][-3:] == ["3", "33.3", "%"]
    head = next(line for line in said if line.startswith("size"))
    assert head.split() == [
        "size",
        *["min", "p5", "p25", "p50", "p75", "p95", "p99", "max", "mean", "values"],
    ]
    pixels = next(line for line in said if line.startswith("picture area (pixels)"))
    assert pixels.split()[3:] == ["1,024"] * 8 + ["1,024.0", "5"]


def test_statistics_are_those_of_training(tree, base_model, capsys):
    found = run_json(capsys, "stats")
    ids = [s.id for s in read_samples(tree / "data/validated/train.jsonl")] + ["system"]
    lengths = sorted(len(as_training_sees(tree, base_model, name).input_ids) for name in ids)
    tokens = {h["name"]: h for h in found["histograms"]}["tokens"]
    assert (tokens["count"], tokens["quantiles"]["min"]) == (9, lengths[0])
    assert tokens["quantiles"]["max"] == lengths[-1]
    assert tokens["quantiles"]["p50"] == lengths[4]
    assert found["parts"] == {"train": 8, "holdout": 1}
    assert found["not_measured"] == []


def test_a_sample_that_cannot_be_measured_is_counted(tree, capsys):
    (tree / "raw/images/a.png").unlink()
    assert run("stats") == 0
    assert "2 samples could not be measured, the first: " in capsys.readouterr().out


# ---- convert --------------------------------------------------------------------------------


def test_a_foreign_file_becomes_canonical_lines(tmp_path, capsys):
    source = tmp_path / "openai.json"
    messages = [
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
    ]
    source.write_text(json.dumps([{"id": "a", "messages": messages}]), encoding="utf-8")
    assert run("convert", source, tmp_path / "out.jsonl") == 0
    said = capsys.readouterr()
    assert said.out == f"1 records in, 1 samples in {tmp_path / 'out.jsonl'}, 0 left out\n"
    (found,) = read_samples(tmp_path / "out.jsonl")
    assert [(turn.role, turn.value) for turn in found.conversations] == [
        ("human", "What is 1 + 1?"),
        ("gpt", "2"),
    ]


def test_coordinates_in_pixels_become_fractions_and_paths_get_their_folder(tmp_path, capsys):
    write_picture(tmp_path / "pictures/a.png", 10, side=64)
    boxed = sample("a", "<image>Where?", "<box>(16,16),(32,48)</box>", image="a.png")
    path = write_annotations(tmp_path, [boxed])
    out = tmp_path / "out.jsonl"
    assert run("convert", path, out, "--coordinates", "absolute", "--media", "pictures") == 0
    (found,) = read_samples(out)
    assert found.image == ("pictures/a.png",)
    assert found.conversations[1].value == "<box>(0.250,0.250),(0.500,0.750)</box>"


def test_a_folder_goes_before_videos_and_frames_too(tmp_path, capsys):
    samples = [
        sample("a", "<video>?", "1", video="a.mp4"),
        sample("b", "<video>?", "1", video=["a.png", "b.png"]),
    ]
    out = tmp_path / "out.jsonl"
    assert run("convert", write_annotations(tmp_path, samples), out, "--media", "x/") == 0
    assert [found.video for found in read_samples(out)] == ["x/a.mp4", ("x/a.png", "x/b.png")]


def test_bad_records_are_named_and_nothing_is_written(tmp_path, capsys):
    path = write_annotations(tmp_path, [sample("a", "?", "1"), {"id": "b\x1b[2J"}, 7])
    out = tmp_path / "out.jsonl"
    assert run("convert", path, out) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("entry 2 (b⟨U+001B⟩[2J): conversations: ")
    assert said[1].startswith("entry 3 (")
    assert said[2].startswith(f"ovis data: 2 of 3 records of {path} are no samples")
    assert not out.exists()


def test_bad_records_can_be_left_out_and_are_counted(tmp_path, capsys):
    path = write_annotations(tmp_path, [sample("a", "?", "1"), {"id": "b"}])
    out = tmp_path / "out.jsonl"
    assert run("convert", path, out, "--skip-bad") == 0
    said = capsys.readouterr()
    assert said.out == f"2 records in, 1 samples in {out}, 1 left out\n"
    assert said.err.startswith("entry 2 (b): ")
    assert len(list(read_samples(out))) == 1


@pytest.mark.parametrize("option", ["--from", "--to", "--coordinates"])
def test_an_unknown_format_is_answered_with_those_that_are_known(tmp_path, capsys, option):
    path = write_annotations(tmp_path, [sample("a", "?", "1")])
    assert run("convert", path, tmp_path / "out.jsonl", option, "odd") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ovis data: {option} is 'odd'; known are ")
    assert "ovis" in said


def test_a_file_that_is_there_is_not_overwritten(tmp_path, capsys):
    path = write_annotations(tmp_path, [sample("a", "?", "1")])
    before = path.read_bytes()
    assert run("convert", path, path) == 2
    assert "is already there" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("target", ["ovis", "sharegpt", "llava", "openai", "ms_swift"])
def test_what_is_converted_there_and_back_is_the_same(tmp_path, capsys, target):
    write_every_kind(tmp_path)
    there, back = tmp_path / f"there.{target}.json", tmp_path / "back.jsonl"
    first = tmp_path / "first.jsonl"
    assert run("convert", tmp_path / "annotations.json", first) == 0
    assert run("convert", first, there, "--to", target) == 0
    assert run("convert", there, back, "--from", target) == 0
    assert run("diff", first, back) == 0
    assert "9 samples before, 9 after" in capsys.readouterr().out
    shown = [(s.id, s.media) for s in read_samples(back)]
    assert shown == [(s.id, s.media) for s in read_samples(first)]


# ---- split ----------------------------------------------------------------------------------


def write_many(folder, count=60):
    """Write samples of which each two neighbours show one picture."""
    for number in range(count // 2):
        write_picture(folder / f"{number}.png", 4 * number)
        (folder / f"copy{number}.png").write_bytes((folder / f"{number}.png").read_bytes())
    names = [f"{'copy' if n % 2 else ''}{n // 2}.png" for n in range(count)]
    samples = [sample(f"s{n}", "<image>?", "1", image=name) for n, name in enumerate(names)]
    return write_annotations(folder, samples)


def test_no_picture_is_on_both_sides_and_no_sample_is_lost(tmp_path, capsys):
    path = write_many(tmp_path)
    assert run("split", path, "--holdout", 0.3, "--seed", 1, "--out", tmp_path / "parts") == 0
    said = capsys.readouterr().out
    sides = [
        {found.id for found in read_samples(tmp_path / f"parts/{part}.jsonl")}
        for part in ("train", "holdout")
    ]
    assert sides[0] | sides[1] == {f"s{n}" for n in range(60)}
    assert not sides[0] & sides[1]
    assert 5 < len(sides[1]) < 35
    for side in sides:
        assert all(f"s{int(name[1:]) ^ 1}" in side for name in side)
    assert f"60 records in: {len(sides[0])} samples in" in said
    assert "30 groups that share no content; the largest has 2 samples" in said


def test_the_same_seed_splits_alike_and_another_one_does_not(tmp_path, capsys):
    path = write_many(tmp_path)
    written = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        out = tmp_path / name
        assert run("split", path, "--holdout", 0.3, "--seed", seed, "--out", out) == 0
        written.append((out / "holdout.jsonl").read_bytes())
    assert written[0] == written[1] != written[2]


def test_a_share_that_is_none_is_refused(tmp_path, capsys):
    path = write_annotations(tmp_path, [sample("a", "?", "1")])
    assert run("split", path, "--holdout", 5, "--out", tmp_path / "parts") == 2
    assert "--holdout is a share between 0 and 1, not 5.0" in capsys.readouterr().err


def test_a_missing_picture_is_named_with_its_sample(tmp_path, capsys):
    path = write_annotations(tmp_path, [sample("a", "<image>?", "1", image="none.png")])
    assert run("split", path, "--holdout", 0.5, "--out", tmp_path / "parts") == 1
    said = capsys.readouterr().err
    assert "sample 'a', file 'none.png': " in said
    assert "--media says where paths start" in said
    assert not (tmp_path / "parts").exists()


def test_media_may_lie_elsewhere(tmp_path, capsys):
    write_picture(tmp_path / "pictures/a.png", 10)
    path = write_annotations(tmp_path / "raw", [sample("a", "<image>?", "1", image="a.png")])
    out = tmp_path / "parts"
    options = ("--media", tmp_path / "pictures")
    assert run("split", path, "--holdout", 0.1, "--out", out, *options) == 0
    assert (out / "train.jsonl").is_file()
    assert (out / "holdout.jsonl").is_file()


# ---- diff -----------------------------------------------------------------------------------


def test_changes_are_tabulated(tmp_path, capsys):
    samples = [sample("a", "?", "1"), sample("b", "?", "2"), sample("gone", "?", "3")]
    changed = [samples[0], sample("b", "?", "two"), sample("n\x1bew", "?", "4"), 7]
    before = write_annotations(tmp_path / "1", samples)
    after = write_annotations(tmp_path / "2", changed)
    assert run("diff", before, after) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["3", "samples", "before,", "3", "after"]
    assert ["samples", "added", "1", "n⟨U+001B⟩ew"] in lines
    assert ["samples", "removed", "1", "gone"] in lines
    assert ["samples", "with", "another", "text", "1", "b"] in lines
    assert ["samples", "with", "another", "split", "0"] in lines
    assert ["no", "samples,", "after", "1", "entry", "4"] in lines


def test_media_that_are_missing_are_told_apart_from_changed_ones(tmp_path, capsys):
    shown = [sample("a", "<image>?", "1", image="images/a.png")]
    before = write_annotations(tmp_path / "1", shown)
    after = write_annotations(tmp_path / "2", shown)
    write_picture(tmp_path / "1/images/a.png", 5)
    assert run("diff", before, after) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["media", "missing,", "after", "1", "images/a.png"] in lines
    assert run("diff", before, after, "--media", tmp_path / "1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["media", "changed", "0"] in lines
    assert not [line for line in lines if "missing," in line]


def test_changes_are_written_as_json(tmp_path, capsys):
    before = write_annotations(tmp_path / "1", [sample("a", "?", "1")])
    after = write_annotations(tmp_path / "2", [sample("a", "?", "2")])
    found = run_json(capsys, "diff", before, after)
    assert found["changed"] == {"a": ["text"]}
    assert found["num_changed"]["text"] == 1
    assert found["added"] == []


def test_many_names_are_counted_and_not_listed(tmp_path, capsys):
    before = write_annotations(tmp_path / "1", [sample("a", "?", "1")])
    after = write_annotations(tmp_path / "2", [sample(f"s{n:02}", "?", "1") for n in range(30)])
    assert run("diff", before, after) == 0
    assert "s09 and 20 more" in capsys.readouterr().out


def test_two_versions_of_the_pipeline_can_be_compared(tree, capsys):
    assert run("diff", "data/validated", "data/validated") == 0
    assert "9 samples before, 9 after" in capsys.readouterr().out


def test_what_is_no_version_is_an_error(tmp_path, capsys):
    assert run("diff", tmp_path, tmp_path) == 1
    assert "is no version of a dataset" in capsys.readouterr().err


# ---- help -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["convert", "show", "stats", "split", "diff"])
def test_every_command_says_in_a_line_what_it_does(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(command, "--help")
    assert stopped.value.code == 0
    assert f"usage: ovis data {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--help")
    assert command in capsys.readouterr().out
