"""Annotations: every format that people have, read into and written from the canonical sample."""
