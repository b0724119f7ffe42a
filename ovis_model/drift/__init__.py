"""Whether new data looks like the data that a model learned from."""
