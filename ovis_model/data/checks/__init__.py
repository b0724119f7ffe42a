"""Checks: what is found out about every sample, and what is made of it."""
