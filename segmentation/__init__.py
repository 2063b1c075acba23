"""Semantic segmentation: config, data, augment, task, train, evaluate, predict."""
