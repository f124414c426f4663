"""Learning a policy from interaction, when the reward is known and the dynamics are not."""
