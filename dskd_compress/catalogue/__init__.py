"""Architectures of timm: survey, inspect, suggest, licences."""
