"""README's two commands as a stranger runs them: in a minimal system, from a clone, with nothing of this machine."""
