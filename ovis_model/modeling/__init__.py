"""The Ovis2.5 network: vision tower, visual vocabulary and language model."""
