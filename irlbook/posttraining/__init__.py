"""Floor 4: rewards and policies for language models, one algorithm a file.

Every loss is a pure function of log-probabilities or rewards and returns one value an example,
not their mean: who trains sums them and divides once, by the number of examples of the whole step,
so that micro-batches and several processes change nothing.
"""
