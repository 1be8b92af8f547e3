"""The rules, pure: no HTTP, no SQL, no environment, no clock, and no randomness but `handles`."""
