"""Benchmarks on disk: what a YAML declares, and readers of every format items come in."""
