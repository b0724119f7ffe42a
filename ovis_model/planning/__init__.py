"""What a training will need and take, told before anything is loaded."""
