"""Inverse reinforcement learning: which reward makes the behaviour that we saw likely?"""
