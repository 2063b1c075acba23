"""What pipelines on images share: reading files, operations on pixels, boxes and maps."""
