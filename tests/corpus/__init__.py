"""Inputs that should do no harm: 76 kinds, each made by code, each with its expected verdict.

python -m tests.corpus FOLDER     writes them all, and prints what becomes of each
"""

from pathlib import Path

from tests.corpus.conversations import CONVERSATIONS
from tests.corpus.dataset import Expectation, Kind
from tests.corpus.images import IMAGES
from tests.corpus.paths import PATHS
from tests.corpus.records import RECORDS
from tests.corpus.videos import VIDEOS

KINDS: tuple[Kind, ...] = (*RECORDS, *CONVERSATIONS, *PATHS, *IMAGES, *VIDEOS)


def write_corpus(root: Path) -> dict[str, Expectation]:
    """Write every kind's folder and return what is expected of each, by its name.

    Raises:
        FileExistsError: If a kind's folder is there already.
    """
    return {kind.name: kind.build(root) for kind in KINDS}
