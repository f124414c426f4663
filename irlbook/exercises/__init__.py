"""Exercises: cards, checks and the wrong answers that test them."""
