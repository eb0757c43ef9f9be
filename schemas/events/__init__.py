"""The kinds of event, one file each."""
