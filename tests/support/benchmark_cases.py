"""What every case of every suite must do, in small sizes."""

from dataclasses import replace

from benchmarks.suite import Settings, run_case

SMALL = Settings(rounds=1, min_seconds=0.0, small=True, memory=False)


def check_agreement(case):
    """All variants give the result they should, and ours is the last."""
    rows = list(run_case(case, SMALL))
    assert [row.agreement.how for row in rows if not row.agreement.equal] == []
    assert [row.is_ours for row in rows] == [False] * (len(rows) - 1) + [True]
    assert all(row.times is not None for row in rows) is case.timed


def check_wrong_is_found(case, spoil):
    """A variant whose result was spoilt is called wrong and not timed; the others are."""

    def build_wrong(seed):
        trial = case.build_small(seed)
        ours = trial.variants["ours"]
        return replace(trial, variants={**trial.variants, "ours": lambda: spoil(ours())})

    *others, ours = run_case(replace(case, build_small=build_wrong), SMALL)
    assert ours.verdict == "WRONG"
    assert ours.times is None
    assert all(row.agreement.equal for row in others)


def check_seed(case):
    """The seed decides the workload."""
    build = case.build_small
    assert build(1).sha256 == build(1).sha256
    assert build(1).sha256 != build(2).sha256
