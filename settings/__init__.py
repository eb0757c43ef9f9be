"""Typed configuration and the logging set-up."""
