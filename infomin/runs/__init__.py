"""A recipe in, a row out."""
