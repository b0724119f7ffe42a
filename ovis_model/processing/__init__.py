"""From text, images and frames to ids and patches: no model, no torch.nn."""
