"""Ours against the plain path and against stock parts: equality, time and peak memory.

__main__     the command: `python -m benchmarks model`
suite        what a case is, and how one is run: equality first, then time, then memory
measure      clocks, rounds, quartiles, peak memory of a process
machine      on what the numbers were measured
report       rows to a table and to JSON lines
goals        numbers with a limit, where a goal is no ratio of a case
model/       the suite `model`: preprocessing, tokenising, loss, visual vocabulary, generation
data/        the suite `data`: video, samples, opening, inspection, validation by size, extraction
"""
