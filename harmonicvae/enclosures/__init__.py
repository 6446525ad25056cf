"""Rigorous enclosures of elementary functions and activations in float64 interval arithmetic."""
