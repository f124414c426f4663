"""Demonstrations and preferences: records, readers of the usual formats, writers back."""
