"""Runners: one way to call a model, whatever executes it."""
