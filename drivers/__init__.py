"""One file per way of sending."""
