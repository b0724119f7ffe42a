"""The suite `model`: what a model does with a sample, from bytes to new tokens.

cases               every case with its target
agreement           the comparisons that the cases share
preprocessing       P1: an image to patches
tokenization        P3: a conversation and its media to ids and labels
loss                C1: hidden states to the loss and its gradients
visual_vocabulary   C2: features to visual embeddings
generation          G1, G2, G3: thinking budgets, batches, questions on one image
tiny_ovis           the model that generates: Ovis2.5's vocabularies, few narrow layers
"""
