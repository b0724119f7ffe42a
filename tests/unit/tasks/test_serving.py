import base64
import io

import pytest
from PIL import Image

from ovis_model.errors import DataError
from tasks._serving import SERVED, read_image


def test_an_image_comes_from_a_path_or_a_data_url(tmp_path):
    picture = Image.effect_noise((8, 6), 80).convert("RGB")
    picture.save(tmp_path / "noise.png")
    content = io.BytesIO()
    picture.save(content, "PNG")
    data_url = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    for source in (str(tmp_path / "noise.png"), data_url):
        assert read_image(source).tobytes() == picture.tobytes()


def test_where_strangers_ask_no_file_is_opened(tmp_path, monkeypatch):
    Image.new("RGB", (8, 6)).save(tmp_path / "private.png")
    monkeypatch.setenv(SERVED, "true")
    with pytest.raises(DataError, match="a served model opens no files of its machine; send the"):
        read_image(str(tmp_path / "private.png"))


def test_a_served_model_fetches_no_address():
    with pytest.raises(DataError, match="a served model fetches no addresses; send the image"):
        read_image("http://127.0.0.1:9/picture.png")
