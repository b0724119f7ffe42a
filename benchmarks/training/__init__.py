"""The suite `training`: what fine-tuning does with its samples.

cases    every case with its target
packing  S1: samples to rows, against best fit by tokens alone
mix      sizes of samples as fine-tuning sets have them
"""
