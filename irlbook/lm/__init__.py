"""A language model is a policy in a Markov decision process without a reward."""
