"""What a representation is worth: bounds in nats, and probes."""
