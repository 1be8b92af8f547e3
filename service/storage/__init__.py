"""Where state lives: one interface, one SQL implementation, two engines."""
