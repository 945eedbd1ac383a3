"""What the lectures need on top of the library: the explorer, pictures, exercise checkers. Nothing imports this."""
