"""Payment providers behind one small interface (provider.py)."""
