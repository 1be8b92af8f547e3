"""Stores all state: one interface, one SQL implementation, two database engines."""
