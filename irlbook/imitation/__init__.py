"""Floor 2: learning a policy from demonstrations, without asking for the reward behind them."""
