"""The signing keys: how they are created, stored, rotated and used."""
