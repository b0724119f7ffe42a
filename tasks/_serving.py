"""The code of a registered version: MLflow keeps a copy of this file and runs it to load one.

    mlflow.pyfunc.load_model("models:/ovis2_5@champion").predict([{"question": "..."}])

The copy calls this project's code and reads the weights from where they were when the version
was registered.  Both are needed to load it; every file is checked against its digest first.
"""

from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ovis_model.errors import CheckpointError, DataError
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.inference.pictures import URL_PREFIXES, open_picture
from ovis_model.inference.results import InferenceResult
from ovis_model.model_folder import verify_model_folder
from tasks._mlflow import PythonModel, PythonModelContext, set_model


class Question(BaseModel):
    """One question, about an image or about nothing but itself."""

    model_config = ConfigDict(extra="forbid")

    question: str
    image: str | None = Field(default=None, description="a path, or a data: URL in base64")
    enable_thinking: bool = True
    thinking_budget: int | None = Field(
        default=None, description="tokens; None lets the thought end by itself"
    )
    max_new_tokens: int | None = Field(
        default=None, description="tokens in all; None is 3072 with thinking, 1024 without"
    )


class RegisteredOvis(PythonModel):
    """Answers questions with the checkpoint that the version was registered with."""

    def load_context(self, context: PythonModelContext) -> None:
        """Check every file, then read the weights.

        Raises:
            CheckpointError: If the files are gone, or are not the ones that were registered.
        """
        folder = Path(context.model_config["checkpoint"])
        expected = context.model_config["model_digest"]
        if not folder.is_dir():
            raise CheckpointError(
                f"the files of this version are not at {folder}: versions without an alias are "
                "kept in DVC's cache alone. Check out the commit that trained it, then run "
                "`dvc checkout` and `dvc repro register`."
            )
        found = verify_model_folder(folder)
        if found != expected:
            raise CheckpointError(
                f"{folder} holds another model (digest {found[:12]}) than the one that was "
                f"registered ({expected[:12]})"
            )
        self._ovis = Ovis25Inference(folder, device="auto", local_files_only=True)

    # MLflow reads the annotation: it checks the input against it and makes it the signature.
    def predict(self, model_input: list[Question]) -> list[dict[str, str]]:  # type: ignore[override]
        """Answer one question after the other, always taking the likeliest token.

        Returns:
            For each question its `answer`, and the `thinking` before it ("" if there is none).

        Raises:
            DataError: If an image cannot be read.
        """
        results = [self._ask(one) for one in model_input]
        return [{"answer": one.answer, "thinking": one.thinking} for one in results]

    def _ask(self, one: Question) -> InferenceResult:
        options = one.model_dump(exclude={"question", "image"}, exclude_none=True)
        if one.image is None:
            return self._ovis.text_only_inference(one.question, do_sample=False, **options)
        image = read_image(one.image)
        return self._ovis.single_image_inference(image, one.question, do_sample=False, **options)


def read_image(source: str) -> Image.Image:
    """Read an image from a path or a data: URL; a served model fetches nothing from elsewhere.

    Raises:
        DataError: If there is none, it cannot be decoded, or it is an address.
    """
    if source.startswith(URL_PREFIXES):
        raise DataError(f"{source}: a served model fetches no addresses; send the image as data:")
    return open_picture(source)


set_model(RegisteredOvis())
