"""The vocabulary: events, envelope, email, account, receipt, errors."""
