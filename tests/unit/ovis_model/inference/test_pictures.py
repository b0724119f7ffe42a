"""Whatever form a picture comes in, the model sees the same pixels; what is none is named."""

import base64
import functools
import http.server
import io
import threading

import numpy as np
import pytest
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.frame_folders import list_pictures
from ovis_model.errors import DataError
from ovis_model.inference import pictures
from ovis_model.inference.pictures import open_frames, open_media, open_picture
from tests.support.raw_data import write_clip

TWO_FRAMES = FrameSampling(min_frames=2, max_frames=2)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(pixels).save(folder / "a.png")
    for number in (10, 9, 1, 2):
        name = folder / "clip" / f"frame{number}.png"
        name.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(name)
    (folder / "clip" / "notes.txt").write_text("not a frame")
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return (folder / "a.png").read_bytes()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def forms(folder, address, content, pixels):
    encoded = base64.b64encode(content).decode()
    percent = "".join(f"%{byte:02x}" for byte in content)
    return {
        "path": folder / "a.png",
        "path as text": str(folder / "a.png"),
        "address": f"{address}/a.png",
        "data URL": f"data:image/png;base64,{encoded}",
        "data URL without base64": f"data:image/png,{percent}",
        "base64": encoded,
        "base64 in lines": base64.encodebytes(content).decode(),
        "bytes": content,
        "PIL": Image.open(io.BytesIO(content)),
        "array": pixels,
    }


def test_all_forms_of_one_picture_give_the_same_pixels(forms, pixels):
    for name, form in forms.items():
        opened = open_picture(form)
        assert opened.mode == "RGB", name
        np.testing.assert_array_equal(np.asarray(opened), pixels, err_msg=name)


@pytest.mark.parametrize("suffix", ["JPEG", "WEBP", "GIF", "BMP"])
def test_base64_of_every_format_is_recognised(pixels, suffix):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    assert open_picture(encoded).size == (30, 20)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("gone.png", r"gone\.png", id="missing"),
        pytest.param("data:image/png;base64", "a data: URL has a comma", id="no comma"),
        pytest.param("data:image/png;base64,@@@", "data:image/png;base64: .*not base64", id="b64"),
        pytest.param("data:image/png;base64,AAAA", "data:image/png;base64 cannot", id="no image"),
        pytest.param(b"no picture", "image of 10 bytes cannot be decoded", id="bytes"),
        pytest.param("http://127.0.0.1:1/a.png", "127.0.0.1:1/a.png cannot be fetched", id="port"),
        pytest.param("http://", "http:// cannot be fetched", id="no host"),
    ],
)
def test_what_cannot_be_read_is_named(source, message):
    with pytest.raises(DataError, match=message):
        open_picture(source)


def test_an_image_that_pil_has_only_opened_is_decoded_or_named(content, tmp_path):
    with pytest.raises(DataError, match="the PIL image cannot be decoded"):
        open_picture(Image.open(io.BytesIO(content[:300])))
    (tmp_path / "cut.png").write_bytes(content[:300])
    with (
        Image.open(tmp_path / "cut.png") as cut,
        pytest.raises(DataError, match=r"cut\.png cannot be decoded"),
    ):
        open_picture(cut)


def test_errors_behind_an_address_name_the_address(address):
    with pytest.raises(DataError, match=rf"{address}/gone\.png cannot be fetched: .*404"):
        open_picture(f"{address}/gone.png")
    with pytest.raises(DataError, match=rf"^{address}/text\.png cannot be decoded"):
        open_picture(f"{address}/text.png")


def test_a_large_download_is_refused(address, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(DataError, match="is larger than 0 MiB"):
        open_picture(f"{address}/a.png")


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((3, 4, 4), np.uint8), r"uint8 \[3, 4, 4\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
)
def test_an_array_of_another_kind_is_refused(array, found):
    with pytest.raises(ValueError, match=rf"not {found}; scale its values"):
        open_picture(array)


def test_an_object_that_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="not int"):
        open_picture(5)


def reds(frames):
    return [frame.getpixel((0, 0))[0] for frame in frames]


def test_a_folder_of_frames_is_sampled_in_the_order_of_its_numbers(folder):
    assert [path.name for path in list_pictures(folder / "clip")] == [
        "frame1.png",
        "frame2.png",
        "frame9.png",
        "frame10.png",
    ]
    assert reds(open_frames(folder / "clip", TWO_FRAMES)) == [2, 10]
    assert reds(open_frames(folder / "clip", TWO_FRAMES, 4)) == [1, 2, 9, 10]


def test_a_list_of_frames_is_taken_whole_until_a_number_is_given(folder):
    frames = [folder / "clip" / f"frame{number}.png" for number in (1, 2, 9, 10)]
    assert reds(open_frames(frames, TWO_FRAMES)) == [1, 2, 9, 10]
    assert reds(open_frames(frames, TWO_FRAMES, 2)) == [2, 10]


def test_a_video_file_is_sampled_from_a_path_and_from_an_address(folder, address):
    write_clip(folder / "clip.mp4", [0, 80, 160, 240])
    dark, light = reds(open_frames(folder / "clip.mp4", TWO_FRAMES))
    assert dark < 120 < light
    assert len(open_frames(str(folder / "clip.mp4"), TWO_FRAMES, 3)) == 3
    assert reds(open_frames(f"{address}/clip.mp4", TWO_FRAMES)) == [dark, light]


def test_what_is_no_video_behind_an_address_is_named(address):
    with pytest.raises(DataError, match=rf"^{address}/a\.png is not a video container"):
        open_frames(f"{address}/a.png", TWO_FRAMES)


@pytest.mark.parametrize("num_frames", [0, -2])
def test_a_number_of_frames_below_one_is_refused(folder, num_frames):
    with pytest.raises(ValueError, match=f"num_frames must be at least 1, got {num_frames}"):
        open_frames(folder / "clip", TWO_FRAMES, num_frames)


def test_two_videos_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'a\.mp4' is a video file; ask about one video"):
        open_frames(["a.mp4", "b.mp4"], TWO_FRAMES)


def test_images_and_a_video_are_refused_together(pixels):
    with pytest.raises(ValueError, match=r"not both; it has 1 image\(s\) and a video"):
        open_media([pixels], [pixels], TWO_FRAMES)


def test_one_image_where_several_are_wanted_is_refused(folder):
    with pytest.raises(ValueError, match="images must be a list, even of one"):
        open_media(str(folder / "a.png"), None, TWO_FRAMES)


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        list_pictures(tmp_path)
