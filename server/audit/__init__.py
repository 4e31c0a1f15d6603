"""Proof that every unit, claim and order is where it should be (`livesale audit`)."""
