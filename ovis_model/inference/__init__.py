"""Answers from a model: thinking, streaming, grounding."""
