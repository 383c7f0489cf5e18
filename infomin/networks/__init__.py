"""Networks: encoders of views, and projection heads.

A network of your own is a function from channels and width to an `Encoder`, decorated with
`@register("name")`.
"""

from .encoders import ENCODERS, Encoder, Encoders, build_encoder, register
from .heads import HEADS, Projection

__all__ = ["ENCODERS", "HEADS", "Encoder", "Encoders", "Projection", "build_encoder", "register"]

ENCODERS.load_members(__name__, __path__)
