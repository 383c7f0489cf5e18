"""Augmentations, drawn for each sample."""
