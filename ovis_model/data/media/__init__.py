"""Media: opening the images and videos of strangers."""
