"""Subject, text and HTML of every kind, in English and French."""
