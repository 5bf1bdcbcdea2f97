"""How long a task will take: the history of each function, the mix with a model, intervals."""
