"""Decoding in processes that may hang or crash without harm, here or on a cluster."""
