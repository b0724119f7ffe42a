"""The five steps of the pipeline, each with two faces: run by DVC, and a Prefect task."""

#: The pipeline, in order.  dvc.yaml, params.yaml, the flow, the Makefile and the README agree.
STEPS = ("validate", "extract", "train", "evaluate", "register")
