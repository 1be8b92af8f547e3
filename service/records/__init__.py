"""Stored values, as frozen structs: each can be turned into a row and back."""
