"""Small text worlds whose gold reward is written down.

`irlbook.tasks.reviews`: write a review in a given tone; the reward is a sum of named parts.
`irlbook.tasks.arithmetic`: word problems; the reward checks the answer, or every step.
"""
