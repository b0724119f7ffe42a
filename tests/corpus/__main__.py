"""Write the corpus and print what becomes of it: python -m tests.corpus FOLDER."""

import sys
from pathlib import Path

from tests.corpus import KINDS
from tests.corpus.verdicts import TABLE_HEAD, judge_kind, table_row


def main(folder: Path) -> None:
    print(*TABLE_HEAD, sep="\n")
    for kind in KINDS:
        expectation = kind.build(folder)
        found = judge_kind(folder / kind.name, expectation)
        print(table_row(kind.name, expectation, found), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.corpus FOLDER")
    main(Path(sys.argv[1]))
