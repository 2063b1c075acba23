"""Image classification: any net of knorm, any norm, from digits to ImageNet-like folders."""
