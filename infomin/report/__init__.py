"""Rows in, pictures and words out."""
