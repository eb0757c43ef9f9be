"""Typed configuration and logging set-up."""
