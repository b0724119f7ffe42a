"""Fine-tuning: transformers' Trainer, DeepSpeed underneath, our own checkpoint commits."""
