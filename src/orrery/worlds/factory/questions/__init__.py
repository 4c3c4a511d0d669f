"""Questions about attempts in the cell, with answers from its true state. `question` is where to begin."""
