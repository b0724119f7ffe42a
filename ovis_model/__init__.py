"""Ovis2.5: model, processing, data, training, inference and evaluation, without any workflow tool.

Nothing is re-exported here: reading the data schema must not import torch.
"""
