"""The signing keys: how they are made, kept, rotated and used."""
