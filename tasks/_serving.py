"""The code of a registered version: MLflow keeps a copy of this file and runs it to load one.

    mlflow.pyfunc.load_model("models:/ovis2_5@champion").predict([{"question": "..."}])

The copy calls this project's code, which has to be installed, and reads the weights from where
they were when the version was registered, or from what was uploaded with it.  Every file is
checked against its digest first.
"""

import os
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ovis_model.errors import CheckpointError, DataError, OvisError
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.inference.pictures import URL_PREFIXES, names_a_file, open_picture
from ovis_model.inference.results import InferenceResult
from ovis_model.model_folder import verify_model_folder
from tasks._mlflow import MlflowException, PythonModel, PythonModelContext, set_model
from tasks._version_files import CHECKPOINT

#: `mlflow models serve` sets this to "true".
SERVED = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


class Question(BaseModel):
    """One question, about an image or about nothing but itself."""

    model_config = ConfigDict(extra="forbid")

    question: str
    image: str | None = Field(default=None, description="a data: URL, base64, or a path here")
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
        uploaded = (context.artifacts or {}).get(CHECKPOINT)
        folder = Path(uploaded or context.model_config[CHECKPOINT])
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
            MlflowException: If a question cannot be asked as it is. A server answers 400 then,
                with its text; any other error would reach the asker as a traceback.
        """
        try:
            results = [self._ask(one) for one in model_input]
        except (OvisError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return [{"answer": one.answer, "thinking": one.thinking} for one in results]

    def _ask(self, one: Question) -> InferenceResult:
        options = one.model_dump(exclude={"question", "image"}, exclude_none=True)
        if one.image is None:
            return self._ovis.text_only_inference(one.question, do_sample=False, **options)
        image = read_image(one.image)
        return self._ovis.single_image_inference(image, one.question, do_sample=False, **options)


def read_image(source: str) -> Image.Image:
    """Read an image from a data: URL, base64 or a path; nothing is fetched from elsewhere.

    Raises:
        DataError: If there is none, it cannot be decoded, or it is an address; or a path, where
            strangers ask.
    """
    if source.startswith(URL_PREFIXES):
        raise DataError(f"{source}: a served model fetches no addresses; send the image as data:")
    if names_a_file(source) and os.environ.get(SERVED) == "true":
        raise DataError(
            f"{source}: a served model opens no files of its machine; send the image as data:"
        )
    return open_picture(source)


set_model(RegisteredOvis())
