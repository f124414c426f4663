"""Wrong answers to the exercises, for the tests of their checks. In a checkout, not in the wheel.

`chNN.WRONG_ANSWERS` maps an exercise's number to its wrong answers: the name of the mistake, the
answer, and a regular expression that the failure message must match.
"""
