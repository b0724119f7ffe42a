"""What is written down of runs: first on this disk, then in MLflow, whatever becomes of it."""
