"""Rewards from choices: which reward makes the comparisons that we saw likely?"""
