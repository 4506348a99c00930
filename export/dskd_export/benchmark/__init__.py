"""Time models: plan, cells, statistics, budgets."""
