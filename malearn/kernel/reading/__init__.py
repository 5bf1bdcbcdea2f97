"""From what a worker or a stream wrote to an execution: times, run ids, predecessors."""
