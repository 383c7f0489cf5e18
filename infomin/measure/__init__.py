"""What a representation is worth: bounds in nats, and probes of frozen features."""

from .bounds import BOUNDS, infonce
from .estimator import nats
from .probe import knn, linear, localisation

__all__ = ["BOUNDS", "infonce", "knn", "linear", "localisation", "nats"]
