"""One file per kind of event."""
