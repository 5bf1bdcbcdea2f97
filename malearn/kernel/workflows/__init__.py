"""How much is left of a workflow, learnt from workflows that have finished."""
