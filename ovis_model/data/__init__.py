"""Data: what a sample is, how it is checked, extracted, and read for training."""
