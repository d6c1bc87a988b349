"""Readers of demonstrations in the formats of others."""
