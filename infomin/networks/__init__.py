"""Networks: encoders of views, and projection heads."""
