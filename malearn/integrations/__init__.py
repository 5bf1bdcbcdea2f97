"""malearn where something else calls it: schedulers of other makes and of other languages."""
