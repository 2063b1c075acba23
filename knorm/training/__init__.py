"""Training machinery shared by the pipelines; it knows nothing of images, labels or privacy."""
